"""Two runs in one directory: the second is refused, a dead one isn't minded."""

import errno
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest
import small_run

from vit_jax import errors, run_lock, train

ROOT = pathlib.Path(__file__).parents[2]
DEAD = 2**22 + 7  # No system numbers its processes that high.

_HOLD = """
import pathlib, subprocess, sys
from vit_jax import run_lock
with run_lock.hold(pathlib.Path(sys.argv[1])):
  child = subprocess.Popen(['sleep', '60'])
  print(child.pid, flush=True)
  sys.stdin.read()
"""
_TRY = """
import pathlib, sys, time
from vit_jax import errors, run_lock
sys.stdin.readline()
try:
  with run_lock.hold(pathlib.Path(sys.argv[1])):
    print('held', flush=True)
    sys.stdin.read()
except errors.ConfigError:
  print('refused', flush=True)
"""


def start(code, directory):
  return subprocess.Popen(
    [sys.executable, '-c', code, str(directory)],
    cwd=ROOT,
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    text=True,
  )


@pytest.fixture
def holder(tmp_path):
  """Another process that holds the lock, and a program that it started."""
  process = start(_HOLD, tmp_path)
  assert process.stdout
  child = int(process.stdout.readline())
  yield process
  os.kill(child, signal.SIGKILL)  # It has the other end of our pipe, too.
  process.kill()
  process.communicate()


def leave_behind(directory, **fields):
  """Writes what a process that was killed has left."""
  found = {'host': socket.gethostname(), 'process': DEAD, 'started': 'noon'}
  (directory / 'run.lock').write_text(json.dumps(found | fields))


def refusal(directory) -> str:
  with pytest.raises(errors.ConfigError) as caught, run_lock.hold(directory):
    pass
  return str(caught.value)


def assert_free(directory):
  with run_lock.hold(directory):
    found = json.loads((directory / 'run.lock').read_text())
    assert found['process'] == os.getpid()
    assert found['host'] == socket.gethostname()
  assert [*directory.iterdir()] == []


@pytest.fixture
def without_locks(monkeypatch):
  """A file system that knows no locks."""

  def fail(*args):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr(fcntl, 'flock', fail)


def test_second_process_is_refused_and_told_of_the_first(tmp_path, holder):
  before = (tmp_path / 'run.lock').read_bytes()
  text = refusal(tmp_path)
  assert f'{tmp_path} is in use by another run' in text
  assert f'process {holder.pid} on {socket.gethostname()}, since 20' in text
  assert '--workdir=DIR' in text
  assert (tmp_path / 'run.lock').read_bytes() == before


def test_second_run_of_the_same_process_is_refused(tmp_path):
  with run_lock.hold(tmp_path):
    assert f'process {os.getpid()} on' in refusal(tmp_path)
  assert_free(tmp_path)


def test_lock_of_a_killed_process_is_free_though_a_child_lives(
  tmp_path, holder
):
  holder.kill()
  holder.wait()
  assert json.loads((tmp_path / 'run.lock').read_text())['process'] == (
    holder.pid
  )
  assert_free(tmp_path)


def test_exception_lets_go(tmp_path):
  with pytest.raises(KeyboardInterrupt), run_lock.hold(tmp_path):
    raise KeyboardInterrupt
  assert_free(tmp_path)


def test_of_many_at_once_one_gets_it(tmp_path):
  processes = [start(_TRY, tmp_path) for _ in range(5)]
  for process in processes:
    process.stdin.write('\n')
    process.stdin.flush()
  answers = [process.stdout.readline().strip() for process in processes]
  for process in processes:
    process.communicate('', timeout=30)
  assert sorted(answers) == ['held'] + 4 * ['refused']
  assert_free(tmp_path)


def test_lock_of_a_file_that_was_removed_meanwhile_does_not_count(
  tmp_path, monkeypatch
):
  """As the one before removes it when it ends."""
  flock, path = fcntl.flock, tmp_path / 'run.lock'
  removed = []

  def remove_first(descriptor, how):
    if not removed:
      removed.append(path.unlink())
    flock(descriptor, how)

  monkeypatch.setattr(fcntl, 'flock', remove_first)
  with run_lock.hold(tmp_path) as is_held:
    assert removed and is_held()
    assert f'process {os.getpid()} on' in refusal(tmp_path)


def test_lock_of_the_next_run_is_not_removed(tmp_path):
  path = tmp_path / 'run.lock'
  with run_lock.hold(tmp_path) as is_held:
    assert is_held()
    path.unlink()
    assert not is_held()
    path.write_text('another')
    assert not is_held()
  assert path.read_text() == 'another'


def test_directory_is_made(tmp_path):
  with run_lock.hold(tmp_path / 'a' / 'b'):
    assert (tmp_path / 'a/b/run.lock').is_file()


@pytest.mark.parametrize('path', ['file', 'file/run'])
def test_directory_that_cannot_be_made(path, tmp_path):
  (tmp_path / 'file').touch()
  assert f'can not be kept in {tmp_path / path}' in refusal(tmp_path / path)


@pytest.mark.parametrize('text', ['', '{', '[]', '{"host": 3}', '\0'])
def test_file_that_cannot_be_read_is_nobodys(text, tmp_path):
  (tmp_path / 'run.lock').write_text(text)
  assert_free(tmp_path)


def test_lock_of_another_host_that_lets_go_is_taken_and_told(tmp_path, caplog):
  leave_behind(tmp_path, host='tuvalu')
  assert_free(tmp_path)
  (text,) = caplog.messages
  assert f'process {DEAD} on tuvalu, since noon' in text
  assert 'stop one of the two' in text


def test_dead_process_of_this_host_is_not_even_told_of(tmp_path, caplog):
  leave_behind(tmp_path)
  assert_free(tmp_path)
  assert not caplog.messages


@pytest.mark.usefixtures('without_locks')
@pytest.mark.parametrize(
  'fields',
  [{'process': os.getppid()}, {'process': 1}, {'host': 'tuvalu'}],
  ids=['parent', 'init', 'elsewhere'],
)
def test_without_locks_who_may_be_running_is_believed(fields, tmp_path):
  leave_behind(tmp_path, **fields)
  text = refusal(tmp_path)
  assert 'is in use by another run' in text
  assert f'remove {tmp_path / "run.lock"}' in text


@pytest.mark.usefixtures('without_locks')
@pytest.mark.parametrize('process', [DEAD, os.getpid()])
def test_without_locks_who_cannot_be_running_is_not(process, tmp_path):
  leave_behind(tmp_path, process=process)
  assert_free(tmp_path)


def test_other_errors_of_locks_are_told(tmp_path, monkeypatch):
  def fail(*args):
    raise OSError(errno.EIO, 'Input/output error')

  monkeypatch.setattr(fcntl, 'flock', fail)
  assert 'Input/output error' in refusal(tmp_path)


def test_run_that_is_refused_writes_nothing(tmp_path):
  with run_lock.hold(tmp_path):
    before = (tmp_path / 'run.lock').read_bytes()
    with pytest.raises(errors.ConfigError, match='is in use by another run'):
      train.train_and_evaluate(small_run.make_config(), tmp_path)
    assert [*tmp_path.iterdir()] == [tmp_path / 'run.lock']
    assert (tmp_path / 'run.lock').read_bytes() == before


def test_command_says_so_and_fails(tmp_path, holder):
  done = subprocess.run(
    small_run.command(tmp_path),
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 2
  used = f'error: {tmp_path} is in use by another run: process {holder.pid} on '
  assert done.stderr.startswith(used)
  assert done.stderr.count('\n') == 1
