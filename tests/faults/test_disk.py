"""Disks that are full, gone or not to be written: an error, nothing lost."""

import contextlib
import os
import pathlib
import shutil
import subprocess

import jax
import pytest
import small_run
from small_run import largest_file, metrics_of, steps_in, stop, train_with

from vit_jax import errors, metrics, run_lock, run_log, train
from vit_jax.checkpoints import room
from vit_jax.checkpoints.state import StateCheckpoints
from vit_jax.workdir import Workdir

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures('compile_once')

# Of the run's files only those of a checkpoint are larger.
SMALL = 3000


@pytest.fixture(scope='module')
def whole_run(tmp_path_factory):
  """A run that nothing disturbs, which no test changes."""
  workdir = tmp_path_factory.mktemp('whole')
  with pytest.MonkeyPatch.context() as patch:
    train_with(workdir, {}, patch)
  return workdir


@pytest.fixture
def half_run(whole_run, tmp_path, monkeypatch):
  """One that was stopped after its first checkpoint."""
  workdir = tmp_path / 'run'
  with pytest.raises(small_run.Stopped):
    train_with(workdir, {5: stop}, monkeypatch)
  assert steps_in(workdir) == [small_run.CHECKPOINT_EVERY]
  return workdir


def assert_ends_like(workdir, whole_run):
  """Continues a run and compares what comes out."""
  train.train_and_evaluate(small_run.make_config(), workdir)
  files = [(path / 'model.npz').read_bytes() for path in (workdir, whole_run)]
  assert files[0] == files[1]
  assert metrics_of(workdir) == metrics_of(whole_run)


def test_disk_that_fills_up_ends_the_run_at_the_next_save(
  half_run, whole_run, monkeypatch
):
  with contextlib.ExitStack() as stack:
    events = {7: lambda: stack.enter_context(largest_file(SMALL))}
    with pytest.raises(errors.UserError) as caught:
      train_with(half_run, events, monkeypatch)
  assert 'can not be written' in str(caught.value)
  assert 'File too large' in str(caught.value)
  assert steps_in(half_run) == [4]
  assert_ends_like(half_run, whole_run)


def test_disk_that_is_full_is_found_before_anything_is_compiled(
  half_run, whole_run, monkeypatch
):
  monkeypatch.setattr(train.experiment.Experiment, 'fresh_state', None)
  before = (half_run / 'config.json').read_bytes()
  with (
    largest_file(0),
    pytest.raises(errors.ConfigError, match='can not be kept in'),
  ):
    train_with(half_run, {}, monkeypatch)
  assert (half_run / 'config.json').read_bytes() == before
  assert not [*half_run.glob('*.partial')]
  assert_ends_like(half_run, whole_run)


def test_command_whose_output_nobody_reads_says_how_to_go_on(half_run):
  end, place = os.pipe()
  os.close(end)
  done = subprocess.run(
    small_run.command(half_run),
    cwd=ROOT,
    env=_environment(),
    stdout=place,
    stderr=subprocess.PIPE,
    text=True,
    timeout=300,
  )
  os.close(place)
  assert done.returncode == 141
  assert done.stderr == (
    'error: standard output: nobody reads it any more. The same command '
    'continues from the last checkpoint, if there is one.\n'
  )
  assert steps_in(half_run) == [4]


def _environment():
  # Not compiled again, where another test has done so.
  cache = jax.config.jax_compilation_cache_dir
  return os.environ | {'JAX_COMPILATION_CACHE_DIR': cache}


def test_command_fails_with_one_message(half_run, whole_run):
  code = (
    'import resource, runpy; '
    f'resource.setrlimit(resource.RLIMIT_FSIZE, ({SMALL}, {SMALL})); '
    'runpy.run_module("vit_jax.main", run_name="__main__", alter_sys=True)'
  )
  python, _, _, *flags = small_run.command(half_run)
  done = subprocess.run(
    [python, '-c', code, *flags],
    cwd=ROOT,
    env=_environment(),
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1].startswith('error: ')
  assert done.stderr.count('can not be written') == 1
  assert 'Traceback' not in done.stderr
  assert steps_in(half_run) == [4]
  assert_ends_like(half_run, whole_run)


@pytest.mark.parametrize('gone', ['', 'checkpoints'])
def test_directory_that_vanishes_ends_the_run(gone, half_run, monkeypatch):
  path = half_run / gone
  with pytest.raises(errors.CheckpointError, match='the directory is gone'):
    train_with(half_run, {7: lambda: shutil.rmtree(path)}, monkeypatch)
  assert not steps_in(half_run)  # Half of a run would look like a whole one.


def test_directory_of_another_run_by_now_is_left_alone(half_run, monkeypatch):
  with contextlib.ExitStack() as stack:

    def replace():
      shutil.rmtree(half_run)
      stack.enter_context(run_lock.hold(half_run))
      (half_run / 'checkpoints').mkdir()

    with pytest.raises(errors.CheckpointError) as caught:
      train_with(half_run, {7: replace}, monkeypatch)
    assert f'{half_run} was replaced while this run' in str(caught.value)
    assert not [*(half_run / 'checkpoints').iterdir()]
    assert (half_run / run_lock.FILE_NAME).exists()
    assert not (half_run / 'model.npz').exists()


def test_curves_are_not_drawn_for_another_run(half_run, monkeypatch):
  with contextlib.ExitStack() as stack:

    def replace():
      shutil.rmtree(half_run)
      stack.enter_context(run_lock.hold(half_run))
      (half_run / 'checkpoints').mkdir()
      (half_run / 'metrics.jsonl').write_text('{"step": 3, "test/loss": 2}\n')

    # After it comes an evaluation without a save.
    events = {small_run.EVAL_EVERY: replace}
    with pytest.raises(errors.CheckpointError, match='was replaced while'):
      train_with(half_run, events, monkeypatch)
    assert not (half_run / 'curves.png').exists()


def test_directory_that_becomes_a_file_ends_the_run(half_run, monkeypatch):
  def replace():
    (half_run / 'checkpoints').rename(half_run / 'kept')
    (half_run / 'checkpoints').touch()

  with pytest.raises(errors.CheckpointError, match='the directory is gone'):
    train_with(half_run, {7: replace}, monkeypatch)
  assert (half_run / 'kept' / '4').is_dir()


def test_checkpoints_that_can_not_be_written_are_found_at_once(tmp_path):
  run = Workdir(tmp_path)
  run.checkpoints.touch()
  with pytest.raises(errors.ConfigError, match='Not a directory'):
    run.claim({'batch': 3})


def test_place_of_the_checkpoints_that_can_not_be_made(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(errors.CheckpointError, match='can not be written'):
    StateCheckpoints(tmp_path / 'file' / 'checkpoints', 2, None)


def test_log_that_can_not_be_written_is_found_before_compiling(
  half_run, monkeypatch
):
  (half_run / metrics.FILE_NAME).unlink()
  (half_run / metrics.FILE_NAME).mkdir()
  monkeypatch.setattr(run_log.RunLog, 'next_batch', None)
  with pytest.raises(errors.ConfigError, match='metrics can not be written'):
    train.train_and_evaluate(small_run.make_config(), half_run)
  assert steps_in(half_run) == [4]


@pytest.fixture
def free(monkeypatch):
  """Gives a function that says how many bytes are free on the disk."""

  def say(num_bytes):
    usage = shutil.disk_usage('/')._replace(free=num_bytes)
    monkeypatch.setattr(room.shutil, 'disk_usage', lambda path: usage)

  return say


def test_no_room_for_a_checkpoint_is_an_error_before_compiling(
  free, tmp_path, monkeypatch
):
  free(1000)
  monkeypatch.setattr(run_log.RunLog, 'next_batch', None)
  with pytest.raises(errors.CheckpointError) as caught:
    train.train_and_evaluate(small_run.make_config(), tmp_path)
  assert f'{tmp_path / "checkpoints"}: 0.001 MB are free' in str(caught.value)


def test_no_room_matters_not_to_a_finished_run(free, whole_run, tmp_path):
  workdir = shutil.copytree(whole_run, tmp_path / 'run')
  free(0)
  train.train_and_evaluate(small_run.make_config(), workdir)


@pytest.mark.parametrize(
  ('num_bytes', 'num_more', 'warns'),
  [(24, 2, False), (23, 2, True), (12, 1, False), (12, 2, True)],
)
def test_too_little_room_is_warned_of(
  num_bytes, num_more, warns, free, tmp_path, caplog
):
  free(num_bytes)
  shapes = [jax.ShapeDtypeStruct((3, 2), 'bfloat16')]
  room.check_room(tmp_path, shapes, num_more)
  assert bool(caplog.messages) == warns
  free(11)
  with pytest.raises(errors.CheckpointError, match='Make room'):
    room.check_room(tmp_path, shapes, num_more)
