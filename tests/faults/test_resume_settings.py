"""Continuing with other settings is refused with what differs, or is exact."""

import json
import os
import pathlib
import shutil
import subprocess

import compiling
import jax
import numpy as np
import pytest
import small_run
from jax.experimental import multihost_utils
from small_run import metrics_of, steps_in, stop, train_with

from vit_jax import distributed, errors, optim, train

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures('compile_once')


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """A run that nothing disturbs and one that was stopped after step 4."""
  whole, half = (tmp_path_factory.mktemp(name) for name in ('whole', 'half'))
  with pytest.MonkeyPatch.context() as patch:
    train_with(whole, {}, patch)
    with pytest.raises(small_run.Stopped):
      train_with(half, {5: stop}, patch)
  return whole, half


@pytest.fixture
def half_run(runs, tmp_path):
  return pathlib.Path(shutil.copytree(runs[1], tmp_path / 'run'))


def set_fields(config, fields):
  with config.unlocked():
    for name, value in fields.items():
      *parents, last = name.split('.')
      node = config
      for parent in parents:
        node = node[parent]
      node[last] = value
  return config


def refusal(workdir, config, error=errors.ConfigError) -> str:
  """Returns the text, after making sure that nothing was changed."""
  before = {
    path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()
  }
  with pytest.raises(error) as caught:
    train.train_and_evaluate(config, workdir)
  after = {
    path: path.read_bytes() for path in workdir.rglob('*') if path.is_file()
  }
  # The settings alone may be said anew.
  assert {k for k in before if before[k] != after.get(k)} <= {
    workdir / 'config.json'
  }
  assert after.keys() == before.keys()
  return str(caught.value)


# Each changes what comes out; the comment says whether any array would show it.
_OTHERS = [
  {'model.hidden_size': 20},  # Shapes.
  {'model.transformer.num_heads': 1},  # Shapes.
  {'model.transformer.num_layers': 2},  # Names.
  {'model.transformer.dropout_rate': 0.1},  # None.
  {'model.classifier': 'token'},  # Names.
  {'optimizer': 'sgd', 'base_lr': 0.03},  # Names.
  {'optim_dtype': 'bfloat16'},  # Dtypes.
  {'grad_norm_clip': 3.0},  # None, as all that follow.
  {'base_lr': 0.01},
  {'decay_type': 'linear'},
  {'warmup_steps': 3},
  {'total_steps': 13},
  {'batch': 7},
  {'accum_steps': 2},
  {'dtype': 'bfloat16'},
  {'seed': 3},
  {'mixup_alpha': 0.5},
  {'label_smoothing': 0.1},
  {'pp.crop': 9},
  {'pp.train': 'train[:103]'},
  {'eval_every': 4},
]


@pytest.mark.parametrize('fields', _OTHERS, ids=lambda x: ','.join(x))
def test_other_settings_are_refused_with_what_differs(fields, half_run):
  config = small_run.make_config()
  olds = {name: _field(config, name) for name in fields}
  text = refusal(half_run, set_fields(config, fields))
  assert 'holds a run with another config' in text
  for name, new in fields.items():
    assert f'config.{name}: {olds[name]!r} there, {new!r} now' in text


def _field(config, name):
  for part in name.split('.'):
    config = config[part]
  return config


# The file of settings was edited to agree, so that the arrays alone can tell.
@pytest.mark.parametrize('fields', _OTHERS[:3] + _OTHERS[4:7], ids=str)
def test_edited_settings_do_not_make_other_arrays_fit(fields, half_run):
  config = set_fields(small_run.make_config(), fields)
  settings = config.to_dict()
  saved = json.loads((half_run / 'config.json').read_text())
  settings['pp'] |= {name: saved['pp'][name] for name in ('train', 'test')}
  (half_run / 'config.json').write_text(json.dumps(settings))
  text = refusal(half_run, config, errors.CheckpointError)
  assert 'the checkpoint is whole, but of another model or optimizer' in text
  assert ' there, ' in text and ' now' in text
  assert steps_in(half_run) == [4]  # Not moved aside as damaged.


# Nor do settings that no array shows: the checkpoint has noted them.
@pytest.mark.parametrize('fields', _OTHERS[3:4] + _OTHERS[14:16], ids=str)
def test_edited_settings_do_not_make_the_checkpoint_fit(fields, half_run):
  config = set_fields(small_run.make_config(), fields)
  settings = config.to_dict()
  saved = json.loads((half_run / 'config.json').read_text())
  settings['pp'] |= {name: saved['pp'][name] for name in ('train', 'test')}
  (half_run / 'config.json').write_text(json.dumps(settings))
  text = refusal(half_run, config)
  assert f'{half_run / "checkpoints" / "4"} is of a run with another' in text
  for name, new in fields.items():
    assert f'config.{name}: ' in text and f' there, {new!r} now' in text


def test_optimiser_that_the_code_changed_is_refused(half_run, monkeypatch):
  make = optim.make_optimizer

  def make_another(*args):
    return optim.optax.chain(make(*args), optim.optax.ema(0.9))

  monkeypatch.setattr(optim, 'make_optimizer', make_another)
  text = refusal(half_run, small_run.make_config(), errors.CheckpointError)
  assert 'nothing there, float32' in text


@pytest.mark.parametrize('content', [None, '', '{}', '{"model"'])
def test_settings_that_are_gone_or_damaged_are_no_pass(content, half_run):
  path = half_run / 'config.json'
  path.unlink()
  if content is not None:
    path.write_text(content)
  text = refusal(half_run, small_run.make_config())
  assert 'config.json' in text or 'config.batch: None there, 6 now' in text


@pytest.mark.parametrize(
  'fields',
  [
    {'num_threads': 3},
    {'num_workers': 2, 'num_threads': 0},
    {'keep_checkpoints': 5, 'checkpoint_every': 3},
  ],
  ids=str,
)
def test_other_workers_threads_and_checkpoints_change_no_bit(
  fields, half_run, runs
):
  config = set_fields(small_run.make_config(), fields)
  train.train_and_evaluate(config, half_run)
  models = [(path / 'model.npz').read_bytes() for path in (half_run, runs[0])]
  assert models[0] == models[1]
  assert metrics_of(half_run) == metrics_of(runs[0])


def test_other_number_of_devices_continues_the_verified_state(half_run, runs):
  """Two devices split the batch, so that sums round differently."""
  done = subprocess.run(
    small_run.command(half_run, '--verbosity=0'),
    cwd=ROOT,
    env=os.environ | {'XLA_FLAGS': compiling.flags(2)},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert '2 x cpu' in done.stdout
  assert 'Continues after step 4' in done.stdout
  assert not [*half_run.glob('checkpoints/*.corrupt*')]
  losses = [
    [line['test/loss'] for line in metrics_of(path) if 'test/loss' in line]
    for path in (half_run, runs[0])
  ]
  assert losses[0] == pytest.approx(losses[1], rel=1e-5)
  # And back on one: what two devices saved is read by one.
  shutil.rmtree(half_run / 'checkpoints' / str(small_run.STEPS))
  train.train_and_evaluate(small_run.make_config(), half_run)
  assert steps_in(half_run)[-1] == small_run.STEPS


def test_processes_with_other_settings_are_told_of_both(monkeypatch):
  ours = {'seed': 0, 'batch': 6, 'num_threads': 1}
  theirs = json.dumps({'seed': 11, 'batch': 6, 'num_threads': 5}).encode()

  def gather(array):
    """Does what two processes would."""
    other = np.frombuffer(theirs, np.uint8)
    if array.ndim == 0:
      return np.stack([array, np.int32(other.size)])
    padded = np.zeros(array.size, np.uint8)
    padded[: other.size] = other
    return np.stack([array, padded])

  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(multihost_utils, 'process_allgather', gather)
  with pytest.raises(errors.ConfigError) as caught:
    distributed.check_agreement(ours)
  assert str(caught.value).splitlines()[1:-1] == [
    '  seed: 0 in process 0, 11 in process 1'
  ]
  theirs = json.dumps(ours | {'num_threads': 12}).encode()
  distributed.check_agreement(ours)


def test_processes_compare_settings_and_data_before_they_train(
  tmp_path, monkeypatch
):
  def refuse(settings):
    assert settings['base_lr'] == small_run.make_config().base_lr
    assert settings['pp']['train'] == 'train[:101]'
    assert settings['data_fingerprint']['train'].startswith('101-')
    assert settings['data_tested']['test'].startswith('47-')
    raise small_run.Stopped

  monkeypatch.setattr(distributed, 'check_agreement', refuse)
  with pytest.raises(small_run.Stopped):
    train.train_and_evaluate(small_run.make_config(), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
