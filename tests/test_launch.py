"""Tests of `launch`: how a run ends, who is told, and that none is left."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from vit_jax import errors, launch, run_lock
from vit_jax.launch import training
from vit_jax.preemption import StoppedError

ROOT = pathlib.Path(__file__).parents[1]
# Stands in for the command, and does what --config says.
PROGRAM = """
import os, pathlib, signal, sys, time
from vit_jax.launch import child
child.end_with_caller()
options = dict(x[2:].split('=', 1) for x in sys.argv[1:])
run = pathlib.Path(options['workdir'])
run.mkdir(exist_ok=True)
def save(signum, _):
  (run / 'saved').write_text(str(signum))
  os._exit(128 + signum)
if options['config'] == 'finish':
  print(options, os.getcwd(), os.environ.get('SHARE'))
elif options['config'] == 'mistake':
  print('step 1', flush=True)
  print('error: no such thing:\\n  two lines', file=sys.stderr)
  sys.exit(2)
elif options['config'] == 'crash':
  raise KeyError('lost')
elif options['config'] == 'silent':
  os.kill(os.getpid(), signal.SIGKILL)
elif options['config'] == 'held' and not (run / 'begun').exists():
  (run / 'begun').touch()
  print('error: there IN_USE: someone', file=sys.stderr)
  sys.exit(2)
elif options['config'] in ('wait', 'deaf'):
  handler = save if options['config'] == 'wait' else signal.SIG_IGN
  signal.signal(signal.SIGTERM, handler)
  signal.signal(signal.SIGINT, handler)
  (run / 'ready').write_text(str(os.getpid()))
  while True:
    time.sleep(0.05)
"""


@pytest.fixture
def program(tmp_path, monkeypatch) -> pathlib.Path:
  """Replaces the command by `PROGRAM`."""
  path = tmp_path / 'program.py'
  path.write_text(PROGRAM.replace('IN_USE', run_lock.IN_USE))
  monkeypatch.setattr(training, '_PROGRAM', (sys.executable, str(path)))
  monkeypatch.setattr(training, '_ASK_SECONDS', 0.05)
  monkeypatch.setenv('PYTHONPATH', str(ROOT))
  return path


@pytest.fixture
def start(program, tmp_path):
  """Gives (what it does, ...) -> how it ended."""

  def call(config, overrides=(), **kwargs):
    return launch.run_training(
      config, tmp_path / 'run', overrides, log=tmp_path / 'log', **kwargs
    )

  return call


def once_ready(tmp_path, then=lambda: True):
  """Returns a `should_stop` that does something once the run is under way."""

  def should_stop():
    return (tmp_path / 'run' / 'ready').exists() and then()

  return should_stop


def wait_for(path: pathlib.Path) -> str:
  deadline = time.monotonic() + 30
  while not (path.exists() and path.read_text()):
    assert time.monotonic() < deadline, f'{path} does not appear'
    time.sleep(0.05)
  return path.read_text()


def test_command_is_what_people_type():
  expected = [
    'python', '-m', 'vit_jax.main', '--config=c.py:a,b', '--workdir=runs/x',
    '--config.base_lr=0.01', '--config.pp.crop=16',
  ]  # fmt: skip
  for overrides in (
    {'base_lr': 0.01, 'pp.crop': 16},
    ['base_lr=0.01', '--config.pp.crop=16'],
  ):
    assert launch.command('c.py:a,b', 'runs/x', overrides) == expected


@pytest.mark.parametrize(
  ('what', 'status', 'error'),
  [
    ('finish', 0, ''),
    ('mistake', 2, 'no such thing:\n  two lines'),
    ('crash', 1, "KeyError: 'lost'"),
    ('silent', 137, 'Exit status 137, and nothing printed.'),
  ],
)
def test_outcome_says_how_it_ended(start, what, status, error):
  outcome = start(what)
  assert (outcome.status, outcome.error) == (status, error)
  assert outcome.is_finished == (status == 0)
  assert not outcome.was_stopped
  assert 0 < outcome.seconds < 60


def test_log_is_appended_to_and_begins_with_the_command(start, tmp_path):
  start('finish', {'base_lr': 0.5}, env={'SHARE': 'half'})
  start('mistake')
  assert start('finish').error == ''  # Of this start, not of the one before.
  text = (tmp_path / 'log').read_text()
  assert 'python -m vit_jax.main --config=finish' in text
  assert "'config.base_lr': '0.5'" in text
  assert os.getcwd() in text
  assert 'half' in text
  assert text.index('half') < text.index('two lines')


def test_predicate_ends_a_run_which_saves(start, tmp_path):
  outcome = start('wait', should_stop=once_ready(tmp_path))
  assert outcome.was_stopped
  assert (outcome.status, outcome.error) == (143, '')
  assert (tmp_path / 'run' / 'saved').read_text() == str(int(signal.SIGTERM))


def test_run_that_does_not_end_is_killed(start, tmp_path):
  outcome = start('deaf', should_stop=once_ready(tmp_path), grace=0.3)
  assert outcome.was_stopped
  assert outcome.status == 137


@pytest.mark.parametrize('signum', [signal.SIGINT, signal.SIGTERM])
def test_signals_are_passed_on_and_end_the_caller(start, tmp_path, signum):
  before = signal.getsignal(signum)

  def send():
    os.kill(os.getpid(), signum)
    return False

  with pytest.raises(StoppedError, match=signum.name) as stopped:
    start('wait', should_stop=once_ready(tmp_path, send))
  assert stopped.value.status == 128 + signum
  assert (tmp_path / 'run' / 'saved').read_text() == str(int(signum))
  assert signal.getsignal(signum) is before


def test_nothing_is_started_once_a_signal_has_come(start, tmp_path):
  with launch.Signals() as signals:
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(StoppedError):
      start('finish', signals=signals)
  assert not (tmp_path / 'log').exists()


def test_error_of_the_predicate_leaves_no_run(start, tmp_path):
  with pytest.raises(ZeroDivisionError):
    start('wait', should_stop=once_ready(tmp_path, lambda: 1 // 0))
  assert (tmp_path / 'run' / 'saved').exists()


def test_run_saves_and_ends_when_its_caller_is_killed(program, tmp_path):
  code = (
    'import sys; from vit_jax import launch; '
    f'launch.training._PROGRAM = sys.executable, {str(program)!r}; '
    f'launch.run_training("wait", {str(tmp_path / "run")!r}, '
    f'log={str(tmp_path / "log")!r})'
  )
  with subprocess.Popen([sys.executable, '-c', code]) as caller:
    wait_for(tmp_path / 'run' / 'ready')
    caller.kill()
  assert wait_for(tmp_path / 'run' / 'saved') == str(int(signal.SIGTERM))


def test_run_waits_for_one_that_is_about_to_end(start):
  assert start('held').is_finished


def test_log_that_can_not_be_written_is_told(start, tmp_path):
  (tmp_path / 'log').mkdir()
  with pytest.raises(errors.ConfigError, match='can not be written'):
    start('finish')


def test_real_command_tells_a_mistake(tmp_path, monkeypatch):
  monkeypatch.chdir(ROOT)
  outcome = launch.run_training(
    'configs/vit.py:tiny,digits',
    tmp_path / 'run',
    {'bse_lr': 0.1},
    log=tmp_path / 'run' / 'log.txt',
  )
  assert outcome.status == 2
  assert "Did you mean 'base_lr'?" in outcome.error
