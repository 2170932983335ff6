"""Runs with stacked blocks: they end as others do, and continue exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trees

from configs import vit
from vit_jax import (
  checkpoints,
  errors,
  experiment,
  guard,
  models,
  sharding,
  step_window,
  train,
  train_step,
)
from vit_jax.models import blocks

pytestmark = pytest.mark.usefixtures('compile_once')
STEPS, SAVED = 7, 4


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return str(tmp_path_factory.mktemp('tfds'))


def make_config(data_dir, **fields):
  config = vit.get_config('tiny,digits')
  config.tfds_data_dir = data_dir
  config.model.hidden_size = 10
  config.model.transformer.update(
    mlp_dim=14, num_heads=2, num_layers=2, dropout_rate=0.1, drop_path_rate=0.2
  )
  config.pp.update(
    train='train[:101]', test='test[:47]', crop=8, augment='none'
  )
  config.update(
    total_steps=STEPS,
    warmup_steps=2,
    batch=6,
    batch_eval=24,
    eval_every=STEPS,
    checkpoint_every=SAVED,
    num_threads=1,
    best_metric='',
    scan_layers=True,
  )
  config.update(fields)
  return config


class KilledError(Exception):
  """Stands for whatever ends a process."""


def train_and_break(config, workdir, monkeypatch):
  """Trains and is stopped in the middle, one step after a checkpoint."""
  next_batch = step_window.StepWindow.next_batch
  steps = iter(range(SAVED + 1))

  def next_or_die(self, batches):
    if next(steps, None) is None:
      raise KilledError
    return next_batch(self, batches)

  with monkeypatch.context() as patch:
    patch.setattr(step_window.StepWindow, 'next_batch', next_or_die)
    with pytest.raises(KilledError):
      train.train_and_evaluate(config, workdir)


@pytest.fixture
def spoil(monkeypatch):
  """Makes the inputs of some steps, always the same, NaN."""
  make = train_step.augment.train_transform

  def make_spoiling(*args, **kwargs):
    transform = make(*args, **kwargs)

    def spoiling(keys, images):
      is_bad = jax.random.bits(keys[0]) % 3 == 0
      return jnp.where(is_bad, jnp.nan, transform(keys, images))

    return spoiling

  monkeypatch.setattr(train_step.augment, 'train_transform', make_spoiling)


def assert_same_state(found, wanted):
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for one, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
    assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


@pytest.mark.usefixtures('spoil')
def test_run_that_skips_is_that_of_a_loop_and_continues_exactly(
  data_dir, tmp_path, monkeypatch
):
  config = make_config(data_dir, on_nonfinite='skip')
  whole = train.train_and_evaluate(config, tmp_path / 'whole')
  assert isinstance(whole.opt_state, guard.GuardState)
  assert 0 < whole.opt_state.num_skipped < STEPS - 2
  kernels = whole.params['Transformer']['encoderblock']['MlpBlock_0']
  assert kernels['Dense_0']['kernel'].shape == (2, 10, 14)

  train_and_break(config, tmp_path / 'broken', monkeypatch)
  unfinished = _check_weights_of_unfinished(config, tmp_path / 'broken')
  broken = train.train_and_evaluate(config, tmp_path / 'broken')
  assert_same_state(broken, whole)
  exported = [
    (tmp_path / name / 'model.npz').read_bytes() for name in ('whole', 'broken')
  ]
  assert exported[0] == exported[1]

  # In the file nothing shows that there were stacks.
  loop = make_config(data_dir, on_nonfinite='skip', scan_layers=False)
  state = train.train_and_evaluate(loop, tmp_path / 'loop')
  assert state.opt_state.num_skipped == whole.opt_state.num_skipped
  found, wanted = (
    trees.flat(checkpoints.load_params(tmp_path / name / 'model.npz'))
    for name in ('whole', 'loop')
  )
  assert found.keys() == wanted.keys() == trees.flat(unfinished).keys()
  for name, array in wanted.items():
    np.testing.assert_allclose(found[name], array, atol=1e-4, err_msg=name)

  with pytest.raises(errors.ConfigError) as caught:
    train.train_and_evaluate(loop, tmp_path / 'whole')
  assert 'config.scan_layers: True there, False now' in str(caught.value)


def _check_weights_of_unfinished(config, workdir):
  """Reads them as other programs do, and as another scanned run does."""
  assert not (workdir / 'model.npz').exists()
  params = checkpoints.load_params(workdir)
  model = models.create_model(config.model, 10)
  trees.assert_same_bits(checkpoints.load_pretrained(workdir, model, 8), params)
  built = experiment.build(config, 10, sharding.make_mesh())
  state = jax.device_get(built.fresh_state(str(workdir)))
  trees.assert_same_bits(state.params, blocks.stack_layers(params))
  return params


@pytest.mark.slow
def test_float16_run_continues_exactly(data_dir, tmp_path, monkeypatch):
  # Such a scale makes the first gradients overflow.
  monkeypatch.setattr(guard, '_FIRST_SCALE', 2.0**20)
  config = make_config(data_dir, dtype='float16', remat='full')
  whole = train.train_and_evaluate(config, tmp_path / 'whole')
  scale = whole.opt_state.loss_scale
  assert 0 < scale.num_overflows < STEPS
  assert scale.scale == 2.0 ** (20 - int(scale.num_overflows))
  assert whole.opt_state.num_skipped == 0

  train_and_break(config, tmp_path / 'broken', monkeypatch)
  broken = train.train_and_evaluate(config, tmp_path / 'broken')
  assert_same_state(broken, whole)
