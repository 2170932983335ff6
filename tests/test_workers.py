"""Worker processes: the same stream, our errors, none outlives its parent."""

import itertools
import multiprocessing
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import streams

from vit_jax import errors
from vit_jax.data import pipeline


@pytest.fixture
def of_workers():
  """Gives the arguments of `train_batches` -> an iterator that is closed."""
  made = []

  def make(config, start, source, *args):
    made.append(pipeline.train_batches(config, start, source, *args))
    return made[-1]

  yield make
  for batches in made:
    batches.close()


def test_worker_processes_give_the_same_stream(of_workers):
  source = streams.SOURCES['encoded']
  wanted = streams.take(streams.config(), 3, 7, 'encoded')
  found = of_workers(streams.config(num_workers=2), 3, source)
  streams.assert_same(list(itertools.islice(found, 7)), wanted)


# Workers meet one bad image each, of which neither is one too many.
@pytest.mark.parametrize(
  'settings',
  [
    {'num_threads': 0},
    {'num_threads': 3},
    {'num_workers': 2},
    pytest.param({'num_workers': 4}, marks=pytest.mark.slow),
  ],
)
def test_too_many_bad_images_stop_at_the_same_batch(of_workers, settings):
  count, bad = 101, [3, 23]
  first, stop = sorted(streams.steps_with_bad(streams.config(), bad, count))
  assert first % 4 != stop % 4 and first % 2 != stop % 2
  config = streams.config(on_bad_image='skip', **settings)
  batches = of_workers(config, 0, streams.with_bad(bad, count))
  assert [next(batches).keys() for _ in range(stop)] == stop * [
    {'image', 'label'}
  ]
  with pytest.raises(errors.DataError, match='2 of the 101 images'):
    next(batches)


def test_error_in_a_worker_is_ours(of_workers):
  batches = of_workers(
    streams.config(num_workers=1, batch=streams.N), 0, streams.with_bad([5])
  )
  with pytest.raises(errors.DataError, match='some train record 5: '):
    next(batches)


def test_dead_worker_is_told(of_workers):
  batches = of_workers(
    streams.config(num_workers=2), 0, streams.SOURCES['encoded']
  )
  next(batches)
  children = multiprocessing.active_children()
  assert len(children) >= 2
  for child in children:
    child.kill()
  start = time.monotonic()
  with pytest.raises(errors.DataError, match='2 processes .* died'):
    for _ in range(1000):
      next(batches)
  assert time.monotonic() - start < 5


def test_workers_end_with_their_parent(tmp_path):
  script = tmp_path / 'parent.py'
  script.write_text(_PARENT)
  process = subprocess.run(
    [sys.executable, script], capture_output=True, text=True, check=False
  )
  assert process.returncode == -signal.SIGKILL, process.stderr
  workers = [int(pid) for pid in process.stdout.split()]
  assert len(workers) == 2
  end = time.monotonic() + 5
  while any(pathlib.Path(f'/proc/{pid}/cmdline').exists() for pid in workers):
    assert time.monotonic() < end
    time.sleep(0.05)


_PARENT = """
import multiprocessing, os, signal
import grain
from vit_jax.data import workers

def read(index):
  return index

if __name__ == '__main__':
  batches = workers.Batches(grain.MapDataset.range(10**6).map(read).batch(2), 2)
  next(batches), next(batches)
  pids = [child.pid for child in multiprocessing.active_children()]
  print(*pids, flush=True)
  os.kill(os.getpid(), signal.SIGKILL)
"""
