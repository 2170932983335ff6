"""Training states on disk: the same bits again, and which ones are kept."""

import hashlib
import json
import math
import pathlib
import shutil
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from vit_jax import errors
from vit_jax.checkpoints import packing, reasons
from vit_jax.checkpoints.state import (
  Standing,
  StateCheckpoints,
  abstract_state,
)

METRIC = 'test/accuracy'


@pytest.fixture(scope='module')
def state(everywhere):
  """A state with the dtypes of a real one and values that rounding shows."""
  rng = np.random.default_rng(0)
  tree = {
    'step': jnp.int32(7),
    'params': {
      'kernel': rng.normal(size=(11, 13)).astype('f4'),
      'bias': np.array([0.0, -0.0, np.inf, 1e-40, 3.0], 'f4'),
      # Too large to be packed with others.
      'embedding': rng.normal(size=(521, 523)).astype('f4'),
    },
    'opt_state': (
      (),
      {'kernel': jnp.asarray(rng.normal(size=(11, 13)), jnp.bfloat16)},
      None,
    ),
  }
  return jax.device_put(tree, everywhere)


def target_of(state, everywhere):
  return abstract_state(state, jax.tree.map(lambda _: everywhere, state))


def assert_same_bits(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
    assert a.dtype == b.dtype and a.shape == b.shape
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def steps_in(directory: pathlib.Path) -> list[int]:
  return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


@pytest.fixture
def small(everywhere):
  return jax.device_put({'x': jnp.arange(3.0)}, everywhere)


def test_restores_the_same_bits_standing_and_devices(
  state, everywhere, tmp_path
):
  standing = Standing(0.1 + 0.2, 5, 3, True)
  with StateCheckpoints(tmp_path / 'a/b', 2, METRIC) as saved:
    assert saved.latest_step() is None
    saved.save(7, state, standing, {METRIC: 0.25})
  with StateCheckpoints(tmp_path / 'a/b', 2, METRIC) as saved:
    assert saved.latest_step() == 7
    restored, found = saved.restore(7, target_of(state, everywhere))
  assert_same_bits(restored, state)
  assert found == standing
  for leaf in jax.tree.leaves(restored):
    assert leaf.sharding == everywhere


def test_state_of_large_arrays_alone_is_restored(state, everywhere, tmp_path):
  large = {'opt_state': ((), state['params']['embedding'])}
  with StateCheckpoints(tmp_path, 2, None) as saved:
    saved.save(3, large, Standing(), None)
    saved.wait()
    restored, _ = saved.restore(3, target_of(large, everywhere))
  assert_same_bits(restored, large)


def test_donated_arrays_do_not_reach_the_disk(
  state, everywhere, tmp_path, monkeypatch
):
  update = jax.jit(
    lambda tree: jax.tree.map(lambda x: x + jnp.ones((), x.dtype), tree),
    donate_argnums=0,
  )
  current = jax.tree.map(jnp.copy, state)
  jax.block_until_ready(update(jax.tree.map(jnp.copy, state)))  # Compiles.
  run = threading.Thread.run

  def run_late(self):
    time.sleep(0.1)  # Nothing is written before the updates below.
    run(self)

  with StateCheckpoints(tmp_path, 2, None) as saved:
    with monkeypatch.context() as patch:
      patch.setattr(threading.Thread, 'run', run_late)
      saved.save(3, current, Standing(), None)
    for _ in range(20):
      current = update(current)
    jax.block_until_ready(current)
    saved.wait()
    restored, _ = saved.restore(3, target_of(state, everywhere))
  assert_same_bits(restored, state)


@pytest.mark.parametrize('step', [3, 5])
def test_step_that_is_not_the_newest_is_not_left_out_in_silence(
  step, small, tmp_path
):
  with StateCheckpoints(tmp_path, 2, None) as saved:
    saved.save(5, small, Standing(), None)
    saved.wait()
    text = f'step {step} can not be saved, as step 5 is there'
    with pytest.raises(errors.CheckpointError, match=text):
      saved.save(step, small, Standing(), None)
  assert steps_in(tmp_path) == [5]


def test_settings_are_saved_under_the_seal(small, everywhere, tmp_path):
  settings = {'base_lr': 0.1 + 0.2, 'pp': {'crop': 8}, 'eval_sets': []}
  with StateCheckpoints(tmp_path, 2, None, settings=settings) as saved:
    saved.save(3, small, Standing(), None)
    saved.wait()
    assert saved.settings(3) == settings
    path = tmp_path / '3/standing/metadata'
    path.write_text(path.read_text().replace('"crop": 8', '"crop": 9'))
    with pytest.raises(errors.CheckpointError, match='is damaged'):
      saved.restore(3, target_of(small, everywhere))


def test_checkpoint_of_before_settings_were_noted(
  small, everywhere, tmp_path, monkeypatch
):
  # Nor were arrays packed.
  monkeypatch.setattr(packing, 'pack', lambda state: (state, None))
  standing = Standing(0.5, 3, 1)
  with StateCheckpoints(tmp_path, 2, None, settings={'a': 1}) as saved:
    saved.save(3, small, standing, None)
    saved.wait()
    path = tmp_path / '3/standing/metadata'
    old = json.loads(path.read_text())
    del old['settings'], old['standing']['evaluation_due'], old['seal']
    del old['packed']
    text = json.dumps(old, sort_keys=True)
    seal = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(old | {'seal': seal}))
    restored, found = saved.restore(3, target_of(small, everywhere))
    assert found == standing
    assert_same_bits(restored, small)
    assert saved.settings(3) is None


_NO_DAMAGE = (
  *('RESOURCE_EXHAUSTED', 'PERMISSION_DENIED', 'UNAVAILABLE'),
  *('DEADLINE_EXCEEDED', 'CANCELLED', 'ABORTED'),
  *("os_error_code='5'", "os_error_code='28'"),
)
_DAMAGE = (
  *('DATA_LOSS', 'NOT_FOUND', 'FAILED_PRECONDITION', 'INVALID_ARGUMENT'),
  *(f"os_error_code='{code}'" for code in (2, 20, 21, 22)),
)


@pytest.mark.parametrize('code', [*_NO_DAMAGE, *_DAMAGE])
def test_what_the_codes_of_tensorstore_say_of_the_files(code):
  error = ValueError(f'{code}: Error reading "x" [{code}]')
  assert reasons.is_damage(error) == (code in _DAMAGE)


def test_keeps_the_newest(small, tmp_path):
  with StateCheckpoints(tmp_path, 2, None) as saved:
    for step in (2, 3, 5, 7):
      saved.save(step, small, Standing(0.9, 2), {METRIC: 0.9})
  assert steps_in(tmp_path) == [5, 7]


def train_and_save(directory, metric, values, small):
  """Evaluates at each step that has a value and saves at all of them.

  Every step is a process of its own, as if the run was killed each time.
  """
  for step, value in values.items():
    with StateCheckpoints(directory, 1, metric) as saved:
      standing = Standing()
      latest = saved.latest_step()
      if latest is not None:
        target = jax.tree.map(
          lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
          small,
        )
        _, standing = saved.restore(latest, target)
      metrics = None
      if value is not None:
        metrics = {metric: value}
        standing = standing.after(value, step, metric)
      saved.save(step, small, standing, metrics)


@pytest.mark.parametrize(
  ('metric', 'values', 'kept'),
  [
    (METRIC, {1: 0.2, 2: 0.5, 3: 0.4, 4: 0.3}, [2, 4]),
    (METRIC, {1: 0.5, 2: 0.5, 3: 0.5}, [1, 3]),  # Of equals the first.
    (METRIC, {1: 0.2, 2: 0.1, 3: 0.3, 4: 0.0}, [3, 4]),
    (METRIC, {1: 0.2, 2: math.nan, 3: 0.1}, [1, 3]),
    (METRIC, {1: math.nan, 2: 0.0, 3: math.nan}, [2, 3]),
    (METRIC, {1: math.nan, 2: math.nan}, [2]),
    (METRIC, {1: None, 2: 0.1, 3: None, 4: None}, [2, 4]),
    (METRIC, {1: None, 2: None}, [2]),
    ('test/loss', {1: 0.2, 2: 0.5, 3: 0.4}, [1, 3]),
    ('test/loss', {1: math.inf, 2: 0.5, 3: 0.5, 4: 0.6}, [2, 4]),
  ],
)
def test_keeps_the_best_also_of_earlier_processes(
  metric, values, kept, small, tmp_path
):
  train_and_save(tmp_path, metric, values, small)
  assert steps_in(tmp_path) == kept


def test_exception_waits_for_the_last_save(
  small, everywhere, tmp_path, monkeypatch
):
  run = threading.Thread.run

  def run_late(self):
    time.sleep(0.1)
    run(self)

  with (
    pytest.raises(KeyboardInterrupt),
    StateCheckpoints(tmp_path, 2, None) as saved,
  ):
    monkeypatch.setattr(threading.Thread, 'run', run_late)
    saved.save(3, small, Standing(), None)
    assert steps_in(tmp_path) == []
    raise KeyboardInterrupt
  monkeypatch.undo()
  with StateCheckpoints(tmp_path, 2, None) as saved:
    assert saved.latest_step() == 3
    assert_same_bits(saved.restore(3, target_of(small, everywhere))[0], small)


def test_save_that_was_cut_short_is_no_checkpoint(small, tmp_path):
  with StateCheckpoints(tmp_path, 2, None) as saved:
    saved.save(3, small, Standing(), None)
  shutil.copytree(tmp_path / '3', tmp_path / '5.orbax-checkpoint-tmp')
  with StateCheckpoints(tmp_path, 2, None) as saved:
    assert saved.latest_step() == 3
    saved.save(5, small, Standing(), None)
  assert steps_in(tmp_path) == [3, 5]
  assert not (tmp_path / '5.orbax-checkpoint-tmp').exists()


# By what they are: the names of the data files are random.
_FILES = {
  'standing': 'standing/metadata',
  'structure': 'state/_METADATA',
  'shapes': 'state/array_metadatas/process_0',
  'manifest': 'state/manifest.ocdbt',
  'data': 'state/d/*',
}
_DAMAGES = {
  'cut': lambda data: data[: len(data) // 2],
  'empty': lambda data: b'',
  'garbled': lambda data: bytes(byte ^ 0x55 for byte in data),
}


@pytest.fixture(scope='module')
def whole_checkpoint(state, tmp_path_factory):
  directory = tmp_path_factory.mktemp('whole')
  with StateCheckpoints(directory, 2, None) as saved:
    saved.save(4, state, Standing(), None)
  return directory


@pytest.mark.parametrize(
  ('fields', 'text'),
  [
    ({'step': jnp.zeros(3, 'i4')}, 'step: int32[] there, int32[3] now'),
    ({'step': jnp.float32(7)}, 'step: int32[] there, float32[] now'),
    ({'opt_state': ()}, 'bfloat16[11, 13] there, nothing now'),
    ({'mask': jnp.ones(5, bool)}, 'mask: nothing there, bool[5] now'),
    ({str(i): jnp.ones(2) for i in range(7)}, 'and 2 more'),
  ],
  ids=['shape', 'dtype', 'fewer', 'more', 'many'],
)
def test_whole_checkpoint_of_another_model_is_not_called_damaged(
  fields, text, whole_checkpoint, state, everywhere
):
  other = jax.device_put({**state, **fields}, everywhere)
  with (
    StateCheckpoints(whole_checkpoint, 2, None) as saved,
    pytest.raises(errors.CheckpointError) as caught,
  ):
    saved.restore(4, target_of(other, everywhere))
  assert f'{whole_checkpoint / "4"}: the checkpoint is whole' in str(
    caught.value
  )
  assert text in str(caught.value)
  assert 'Remove' not in str(caught.value)


@pytest.mark.parametrize('damage', _DAMAGES)
@pytest.mark.parametrize('file', _FILES)
def test_damaged_file_is_an_error_that_names_the_directory(
  file, damage, whole_checkpoint, state, everywhere, tmp_path
):
  shutil.copytree(whole_checkpoint, tmp_path, dirs_exist_ok=True)
  (path,) = (tmp_path / '4').glob(_FILES[file])
  path.write_bytes(_DAMAGES[damage](path.read_bytes()))
  with StateCheckpoints(tmp_path, 2, None) as saved:
    assert saved.latest_step() == 4
    with pytest.raises(errors.CheckpointError) as caught:
      saved.restore(4, target_of(state, everywhere))
  assert f'{tmp_path / "4"}: the checkpoint is damaged' in str(caught.value)


def test_standing_of_another_kind_is_an_error(
  whole_checkpoint, state, everywhere, tmp_path
):
  shutil.copytree(whole_checkpoint, tmp_path, dirs_exist_ok=True)
  (tmp_path / '4/standing/metadata').write_text('{"best": 3}')
  with (
    StateCheckpoints(tmp_path, 2, None) as saved,
    pytest.raises(errors.CheckpointError, match='is damaged'),
  ):
    saved.restore(4, target_of(state, everywhere))


@pytest.mark.parametrize('method', ['save', 'wait_until_finished'])
def test_save_that_fails_is_an_error(method, small, tmp_path, monkeypatch):
  def fail(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  with (
    pytest.raises(errors.CheckpointError, match='No space left') as caught,
    StateCheckpoints(tmp_path / 'run', 2, None) as saved,
  ):
    monkeypatch.setattr(ocp.CheckpointManager, method, fail)
    saved.save(3, small, Standing(), None)
    saved.wait()
  assert f'{tmp_path / "run"}: a checkpoint can not' in str(caught.value)
