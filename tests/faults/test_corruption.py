"""Damaged checkpoints: none goes on unnoticed, none is lost."""

import io
import json
import logging
import pathlib
import re
import shutil

import absl.logging
import corruption
import jax
import numpy as np
import pytest
from corruption import STEPS, make_state, same_bits, target_of

from vit_jax import errors, main
from vit_jax.checkpoints import fallback, packing, record, restore, run_state
from vit_jax.checkpoints.arrays import DamagedArrayError
from vit_jax.checkpoints.state import Standing, StateCheckpoints

OLD, PREVIOUS, NEWEST = STEPS
NOTES = '_CHECKPOINT_METADATA'  # Orbax's own.


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The checkpoints of a run, which no test changes."""
  directory = tmp_path_factory.mktemp('whole')
  corruption.save_run(directory)
  return directory


@pytest.fixture
def run(whole, tmp_path) -> pathlib.Path:
  """A copy of them, at RUN/checkpoints."""
  return pathlib.Path(shutil.copytree(whole, tmp_path / 'checkpoints'))


def damage(run, step):
  """Changes what is in the arrays, where Orbax notices nothing."""
  files = (run / str(step)).glob('state/ocdbt.process_0/d/*')
  path = max(files, key=lambda file: file.stat().st_size)
  data = bytearray(path.read_bytes())
  # In the largest array wherever it lies, as it takes two thirds of the file.
  # Its noise is stored as it is: compressed, it would take as much.
  data[len(data) // 2] ^= 0x10
  path.write_bytes(data)


def restore_newest(run):
  with StateCheckpoints(run, 3, None) as saved:
    found = saved.restore_newest(target_of(make_state(0)))
  assert found is not None
  assert same_bits(found[1], make_state(found[0]))
  assert found[2] == corruption.STANDING
  return found[0]


def names_in(run):
  return sorted(path.name for path in run.iterdir())


@pytest.mark.parametrize('kind', corruption.KINDS)
def test_whatever_is_damaged_is_noticed_or_not_read(kind, whole):
  rng = np.random.default_rng(0)
  found = []
  files = corruption.files_of(whole, NEWEST)
  for i in range(0, len(files), 1 if kind == 'flip' else 3):
    with corruption.damaged_copy(whole, files[i], kind, rng) as copy:
      found.append(corruption.outcome(copy))
  assert {*found} == {'stepped back', 'harmless'}


def test_bits_that_orbax_does_not_miss_are_missed(run, caplog):
  damage(run, NEWEST)
  assert corruption.orbax_alone(run) == 'OTHER BITS'
  assert restore_newest(run) == PREVIOUS
  assert names_in(run) == sorted([str(OLD), str(PREVIOUS), f'{NEWEST}.corrupt'])
  (text,) = caplog.messages
  assert f'{run / str(NEWEST)} is damaged: not what was saved: ' in text
  assert f'It is {NEWEST}.corrupt now' in text
  assert f'goes on from step {PREVIOUS}.' in text


@pytest.mark.parametrize(
  'content',
  [
    b'{"performance_metracs": {}}',
    b'[]',
    b'[1]',
    b'{"init_timestamp_nsecs": "q"}',
    b'{',
    b'\xff',
    b'{"a": {}, "custom_metadata": {"b": 1}}',
  ],
)
def test_damaged_notes_of_orbax_cost_nothing(content, run):
  aside = shutil.copytree(run / str(OLD), run / f'{OLD}.corrupt')
  for path in (aside, run / str(NEWEST)):
    (path / NOTES).write_bytes(content)
  others = (run / str(PREVIOUS) / NOTES).read_bytes()
  assert restore_newest(run) == NEWEST
  assert (aside / NOTES).read_bytes() == content
  assert (run / str(PREVIOUS) / NOTES).read_bytes() == others


def test_notes_that_orbax_can_not_read_are_named(run, caplog):
  notes = run / str(NEWEST) / NOTES
  notes.write_bytes(b'[1]')
  restore_newest(run)
  # Orbax complains as well.
  assert f'{notes} is damaged. It is {NOTES}.corrupt now' in caplog.text


def test_several_are_stepped_over(run, caplog):
  damage(run, NEWEST)
  (run / str(PREVIOUS) / 'standing' / 'metadata').unlink()
  assert restore_newest(run) == OLD
  assert names_in(run) == [
    str(OLD),
    f'{PREVIOUS}.corrupt',
    f'{NEWEST}.corrupt',
  ]
  assert 'standing/metadata is missing' in caplog.text


def test_second_one_of_a_step_gets_another_name(run):
  for _ in range(3):
    damage(run, NEWEST)
    assert restore_newest(run) == PREVIOUS
    with StateCheckpoints(run, 3, None) as saved:
      saved.save(NEWEST, make_state(NEWEST), corruption.STANDING, None)
  assert restore_newest(run) == NEWEST
  assert {f'{NEWEST}.corrupt{n}' for n in ('', '2', '3')} <= {*names_in(run)}


def test_saves_go_on_where_the_damaged_ones_were(run):
  damage(run, NEWEST)
  with StateCheckpoints(run, 3, None) as saved:
    assert saved.restore_newest(target_of(make_state(0)))[0] == PREVIOUS
    assert saved.latest_step() == PREVIOUS
    for step in (PREVIOUS + 1, NEWEST, NEWEST + 4):
      saved.save(step, make_state(step), corruption.STANDING, None)
  assert restore_newest(run) == NEWEST + 4
  assert str(OLD) not in names_in(run)  # The newest three are kept.


def test_save_before_the_newest_is_an_error(run):
  with (
    pytest.raises(errors.CheckpointError, match='step 7 is there'),
    StateCheckpoints(run, 3, None) as saved,
  ):
    saved.save(PREVIOUS, make_state(PREVIOUS), Standing(), None)


def test_if_none_is_whole_it_stops_and_moves_nothing(run):
  for step in STEPS:
    damage(run, step)
  before = corruption.contents(run)
  for _ in range(2):  # The next start must not begin anew, either.
    with (
      StateCheckpoints(run, 3, None) as saved,
      pytest.raises(errors.CheckpointError) as caught,
    ):
      saved.restore_newest(target_of(make_state(0)))
    text = str(caught.value)
    assert f'{run}: no checkpoint is whole' in text
    assert all(f'\n  {step}: not what was saved: ' in text for step in STEPS)
  assert corruption.contents(run) == before


def test_without_checkpoints_there_is_none(tmp_path):
  with StateCheckpoints(tmp_path / 'run', 3, None) as saved:
    assert saved.restore_newest(target_of(make_state(0))) is None


def test_damaged_best_one_is_an_error(run):
  damage(run, OLD)
  with (
    StateCheckpoints(run, 3, None) as saved,
    pytest.raises(errors.CheckpointError, match='the checkpoint is damaged'),
  ):
    saved.restore(OLD, target_of(make_state(0)))
  assert str(OLD) in names_in(run)


def test_checkpoint_under_another_name_is_noticed(run):
  (run / str(NEWEST)).rename(run / '11')
  assert restore_newest(run) == PREVIOUS


@pytest.fixture
def unpacked_run(tmp_path, monkeypatch) -> pathlib.Path:
  """Checkpoints as earlier versions wrote them, each array by itself."""
  run = tmp_path / 'checkpoints'
  with monkeypatch.context() as patch:
    patch.setattr(packing, 'pack', lambda state: (state, None))
    corruption.save_run(run)
  return run


def test_checkpoint_of_an_earlier_version_is_taken(unpacked_run):
  run = unpacked_run
  path = run / str(NEWEST) / 'standing' / 'metadata'
  path.write_text(
    '{"best_value": 0.30000000000000004, "best_step": 3, "num_stale": 2, '
    '"stopped_early": false}'
  )
  assert restore_newest(run) == NEWEST


@pytest.mark.parametrize(
  'error',
  [
    MemoryError(),
    PermissionError(13, 'Permission denied'),
    OSError(5, 'Input/output error'),
    OSError(24, 'Too many open files'),
    jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory'),
    ValueError('PERMISSION_DENIED: Error opening "zarr" driver'),
    ValueError("INTERNAL: Input/output error [os_error_code='5']"),
  ],
  ids=repr,
)
def test_what_need_not_be_damage_moves_nothing(error, run, monkeypatch):
  def fail(*args, **kwargs):
    raise error

  before = names_in(run)
  monkeypatch.setattr(restore.ocp.StandardCheckpointHandler, 'restore', fail)
  with (
    StateCheckpoints(run, 3, None) as saved,
    pytest.raises(errors.CheckpointError, match='can not be read'),
  ):
    saved.restore_newest(target_of(make_state(0)))
  assert names_in(run) == before


def test_directory_that_can_not_be_renamed_is_an_error(run, monkeypatch):
  def fail(*args):
    raise OSError(30, 'Read-only file system')

  damage(run, NEWEST)
  monkeypatch.setattr(fallback, 'move_aside', fail)
  with (
    StateCheckpoints(run, 3, None) as saved,
    pytest.raises(errors.CheckpointError, match='Read-only file system'),
  ):
    saved.restore_newest(target_of(make_state(0)))


@pytest.mark.parametrize('place', ['', 'standing'])
def test_checkpoint_of_a_later_version_is_no_damage(place, run):
  path = run / str(NEWEST) / 'standing' / 'metadata'
  found = json.loads(path.read_text())
  del found['seal']
  (found[place] if place else found)['novelty'] = 7
  path.write_text(json.dumps(found | {'seal': record._seal(found)}))
  before = names_in(run)
  with (
    StateCheckpoints(run, 3, None) as saved,
    pytest.raises(errors.CheckpointError, match='later version .* novelty'),
  ):
    saved.restore_newest(target_of(make_state(0)))
  assert names_in(run) == before


def test_weights_under_another_name_are_not_taken(run):
  (run / str(NEWEST)).rename(run / '11')
  with (
    pytest.raises(errors.CheckpointError, match=f'it is of step {NEWEST}'),
    run_state.open_newest_state(run.parent),
  ):
    pass


@pytest.mark.parametrize('kind', ['run', 'unpacked_run'])
def test_weights_read_of_an_unfinished_run_are_verified(kind, request):
  run = request.getfixturevalue(kind)

  def read():
    with run_state.open_newest_state(run.parent) as stored:
      return {key: array.load() for key, array in stored.arrays.items()}

  assert same_bits(read(), make_state(NEWEST)['params'])
  damage(run, NEWEST)
  with pytest.raises(DamagedArrayError, match='not what was saved'):
    read()


def test_warning_reads_like_a_message_on_the_command_line(run):
  stream = io.StringIO()
  handler = logging.StreamHandler(stream)
  handler.setFormatter(main._PlainFormatter())
  logging.getLogger('absl').addHandler(handler)
  try:
    damage(run, NEWEST)
    restore_newest(run)
    absl.logging.warning('of another package')
  finally:
    logging.getLogger('absl').removeHandler(handler)
  ours, theirs = stream.getvalue().splitlines()
  assert ours.startswith(f'warning: {run / str(NEWEST)} is damaged: ')
  assert re.match(r'W\d{4} .*\] of another package', theirs)
