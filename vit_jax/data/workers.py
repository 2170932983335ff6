"""Batches from worker processes, which end with their parent."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import grain
from absl import flags

from vit_jax import errors


class Batches:
  """Batches that worker processes make, in the order of the data set.

  Whole batches are dealt to the workers in turns, so the stream is the same for
  any number of them.
  """

  def __init__(self, batches: grain.MapDataset, num_workers: int):
    """Starts the workers at the first batch.

    Args:
      batches: random access to whole batches; it is pickled for the workers.
      num_workers: processes, at least one.
    """
    # Grain hands the flags to its workers, and refuses ones not parsed.
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()
    # At the end, what the workers had ready is still in shared memory. Python
    # frees it, and would call it leaked.
    os.environ.setdefault('PYTHONWARNINGS', 'ignore:resource_tracker')
    # A batch ahead in each worker, beside the one being made.
    dataset = batches.to_iter_dataset(
      grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)
    ).mp_prefetch(
      grain.MultiprocessingOptions(
        num_workers=num_workers, per_worker_buffer_size=1
      ),
      worker_init_fn=_end_with_parent,
    )
    self._iterator = _start_without_signals(dataset)
    self._num_workers = num_workers

  def __iter__(self) -> Iterator[Any]:
    return self

  def __next__(self) -> Any:
    """Returns the next batch.

    Raises:
      DataError: a record is broken, or a worker has died.
    """
    try:
      return next(self._iterator)
    except RuntimeError as error:
      if 'terminated unexpectedly' not in str(error):
        raise
      reason = errors.first_line(error).partition('. ')[0]
      raise errors.DataError(
        f'One of {self._num_workers} processes that read data has died '
        f'({reason}); code -9 is most often a lack of memory. Use fewer: '
        '--config.num_workers=N, or 0 for threads alone.'
      ) from error

  def close(self) -> None:
    """Ends the workers."""
    self._iterator.close()


def _start_without_signals(dataset: grain.IterDataset) -> Any:
  """Starts the workers such that Ctrl-C and SIGTERM are not for them.

  They reach all processes of a terminal or a job, and the parent needs its data
  until it has saved. What a thread blocks, whoever it starts inherits.
  """
  kept_away = {signal.SIGINT, signal.SIGTERM}
  before = signal.pthread_sigmask(signal.SIG_BLOCK, kept_away)
  try:
    return iter(dataset)
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(worker_index: int, worker_count: int) -> None:
  """Makes a worker end when its parent is gone, even by SIGKILL."""
  del worker_index, worker_count
  parent = multiprocessing.parent_process()

  def wait() -> None:
    if parent is not None:
      parent.join()
      os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
