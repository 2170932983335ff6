"""Two processes that restore together: what one finds, both heed."""

import os
import pathlib
import shutil
import socket
import subprocess
import sys

import compiling
import pytest
import two_processes

ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def run_both(directory, action) -> list[str]:
  """Returns the last line of each process."""
  with socket.socket() as found:
    found.bind(('127.0.0.1', 0))
    port = found.getsockname()[1]
  flags = {
    'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
    'JAX_PLATFORMS': 'cpu',
    'PYTHONPATH': str(ROOT),
    'XLA_FLAGS': compiling.flags(1),
  }
  command = [sys.executable, two_processes.__file__]
  processes = [
    subprocess.Popen(
      [*command, str(index), str(port), str(directory), action],
      env=os.environ | flags,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  try:
    outputs = [process.communicate(timeout=120) for process in processes]
  finally:
    for process in processes:
      process.kill()
  for process, (_, messages) in zip(processes, outputs, strict=True):
    assert process.returncode == 0, messages
  return [output.splitlines()[-1] for output, _ in outputs]


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  directory = tmp_path_factory.mktemp('whole')
  assert run_both(directory, 'save') == ['saved', 'saved']
  return directory


def damage(checkpoint, process):
  """Changes what one process wrote, which it alone reads again."""
  for path in checkpoint.glob(f'state/ocdbt.process_{process}/d/*'):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize('process', [0, 1])
def test_part_of_one_process_is_damaged(process, whole, tmp_path):
  run = shutil.copytree(whole, tmp_path / 'run')
  damage(run / '5', process)
  assert run_both(run, 'restore') == ['step 3', 'step 3']
  assert sorted(path.name for path in run.iterdir()) == ['3', '5.corrupt', '7']


def test_file_of_one_process_is_missing(whole, tmp_path):
  run = shutil.copytree(whole, tmp_path / 'run')
  shutil.rmtree(run / '5' / 'state' / 'ocdbt.process_1' / 'd')
  assert run_both(run, 'restore') == ['step 3', 'step 3']
  assert (run / '5.corrupt').is_dir()


@pytest.mark.parametrize('content', ['[1]', '{"custom_metadata": 3}'])
def test_damaged_notes_of_orbax_cost_nothing(content, whole, tmp_path):
  run = shutil.copytree(whole, tmp_path / 'run')
  (run / '5' / '_CHECKPOINT_METADATA').write_text(content)
  assert run_both(run, 'restore') == ['step 5', 'step 5']


def test_signal_to_one_interrupts_both_after_the_same_part(tmp_path):
  # They compare notes at every eighth.
  assert run_both(tmp_path, 'signal') == ['question 16', 'question 16']


def test_none_is_whole(whole, tmp_path):
  run = shutil.copytree(whole, tmp_path / 'run')
  damage(run / '3', 0)
  damage(run / '5', 1)
  for line in run_both(run, 'restore'):
    assert 'no checkpoint is whole' in line
  assert sorted(path.name for path in run.iterdir()) == ['3', '5']
