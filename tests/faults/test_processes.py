"""Several processes that train as one, on this machine's loopback."""

import contextlib
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator

import compiling
import pytest
import runs

# Where much else runs, a process may not come to say that it is alive for long.
HEARTBEAT_TIMEOUT = 60


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('tfds')


@pytest.fixture(scope='module')
def alone(data_dir, tmp_path_factory):
  """The directory of a run by one process with one device."""
  workdir = tmp_path_factory.mktemp('alone') / 'run'
  with runs.Run(workdir, data_dir, optim_dtype='float32') as run:
    assert run.end() == 0, run.text
  return workdir


@contextlib.contextmanager
def processes(
  count: int, workdir, data_dir, num_devices: int = 1, others=None, **config
) -> Iterator[list[runs.Run]]:
  """Starts processes that meet at a port which is free.

  All but the first have the fields of `others` as well.
  """
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  with contextlib.ExitStack() as stack:
    yield [
      stack.enter_context(
        runs.Run(
          workdir,
          data_dir,
          f'--coordinator_address=127.0.0.1:{port}',
          f'--num_processes={count}',
          f'--process_id={index}',
          f'--heartbeat_timeout={HEARTBEAT_TIMEOUT}',
          env={'XLA_FLAGS': compiling.flags(num_devices)},
          optim_dtype='float32',
          **config | ((others or {}) if index else {}),
        )
      )
      for index in range(count)
    ]


def texts(running: list[runs.Run]) -> str:
  return '\n---\n'.join(run.text for run in running)


def assert_same_metrics(workdir, reference):
  ours, theirs = runs.evaluations(workdir), runs.evaluations(reference)
  assert [x['step'] for x in ours] == [10, 20, 30, 40, 50, 60]
  for mine, other in zip(ours, theirs, strict=True):
    assert mine == pytest.approx(other, rel=1e-5)


@pytest.mark.slow
def test_four_processes_train_as_one(alone, data_dir, tmp_path):
  workdir = tmp_path / 'run'
  with processes(4, workdir, data_dir) as running:
    assert running[0].wait_for(lambda: bool(running[0].steps())), texts(running)
    running[2].process.kill()
    for run in (running[0], running[1], running[3]):
      assert run.end() not in (0, 143)
  copy = shutil.copytree(workdir, tmp_path / 'copy')
  with runs.Run(copy, data_dir, optim_dtype='float32') as run:
    assert run.end() == 0, run.text
  assert run.first_step() > 0
  assert_same_metrics(copy, alone)

  with processes(4, workdir, data_dir) as running:
    assert [run.end() for run in running] == [0] * 4, running[0].text
  assert 'devices: 4 x cpu' in running[0].text
  # Only the first one says and writes something.
  for run in running[1:]:
    assert 'loss' not in run.text
  assert_same_metrics(workdir, alone)


@pytest.mark.slow
def test_processes_with_other_settings_do_not_train(data_dir, tmp_path):
  with processes(
    2, tmp_path / 'run', data_dir, others={'base_lr': 0.5, 'seed': 3}
  ) as running:
    assert [run.end() for run in running] == [2, 2], running[0].text
  for run in running:
    assert 'base_lr: 0.002 in process 0, 0.5 in process 1' in run.text
    assert 'seed: 0 in process 0, 3 in process 1' in run.text
    assert 'Traceback' not in run.text
  assert not (tmp_path / 'run').exists()


def test_two_processes_stop_together_and_go_on(alone, data_dir, tmp_path):
  workdir = tmp_path / 'run'
  with processes(2, workdir, data_dir, num_devices=2) as running:
    assert running[0].wait_for(lambda: bool(running[0].steps())), texts(running)
    running[1].process.send_signal(signal.SIGTERM)
    assert [run.end() for run in running] == [143, 143], running[0].text
  last = running[0].steps()[-1]
  assert f'Stopped by SIGTERM after step {last}, which' in running[0].text
  assert 'Stopped' not in running[1].text
  # Nothing of Orbax's above or below.
  assert not re.search(r'^[IWE]\d{4} ', running[0].text, re.MULTILINE)

  with processes(2, workdir, data_dir, num_devices=2) as running:
    assert running[0].wait_for(lambda: running[0].steps()[-1] > last)
    running[1].process.kill()
    start = time.monotonic()
    assert running[0].end() not in (0, 143)
    assert time.monotonic() - start < HEARTBEAT_TIMEOUT + 10
  assert running[0].first_step() == last
  (message,) = (
    line for line in running[0].text.splitlines() if line.startswith('error: ')
  )
  assert 'died' in message
  assert 'continues from the last checkpoint' in message
  assert 'Traceback' not in running[0].text
  assert 'stack trace' not in running[0].text

  with runs.Run(workdir, data_dir, optim_dtype='float32') as run:
    assert run.end() == 0, run.text
  assert run.first_step() > last
  assert_same_metrics(workdir, alone)


def test_without_the_first_process_the_others_end(data_dir, tmp_path):
  with processes(2, tmp_path / 'run', data_dir, num_devices=2) as running:
    assert running[0].wait_for(lambda: bool(running[0].steps())), texts(running)
    running[0].process.kill()
    start = time.monotonic()
    assert running[1].end() not in (0, 143)
    assert time.monotonic() - start < HEARTBEAT_TIMEOUT + 10
  lines = running[1].text.splitlines()
  assert lines[-1].startswith('error: ') and 'died' in lines[-1]
  assert 'stack trace' not in running[1].text


@pytest.mark.parametrize(
  ('flags', 'text'),
  [
    (
      ['--coordinator_address=127.0.0.1:9', '--num_processes=2'],
      'but no --process_id',
    ),
    (
      [
        '--coordinator_address=127.0.0.1:9',
        '--num_processes=2',
        '--process_id=1',
        '--start_timeout=2',
      ],
      'did not all meet at 127.0.0.1:9 within --start_timeout',
    ),
  ],
)
def test_processes_that_do_not_meet(flags, text, data_dir, tmp_path):
  with runs.Run(tmp_path / 'run', data_dir, *flags) as run:
    assert run.end() != 0
  (line,) = run.text.splitlines()
  assert line.startswith('error: ')
  assert text in line
  assert not (tmp_path / 'run').exists()
