"""Puts batches on the devices ahead of their use, in a thread of its own."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self


class Prefetch:
  """Iterates over `put(batch)` of each batch, some of them made ahead.

  The thread reads and copies while the devices compute, so a batch that is
  asked for is there already, unless reading is slower than computing.

  Args:
    batches: of the host.
    put: starts a copy to the devices and doesn't wait for it.
    size: how many batches the devices hold beside those in use, at least 1.
  """

  def __init__(
    self, batches: Iterator[Any], put: Callable[[Any], Any], size: int = 2
  ):
    self._batches = map(put, batches)
    self._made: queue.SimpleQueue[Any] = queue.SimpleQueue()
    self._failure: BaseException | None = None
    self._is_closed = False
    # Taken before a batch is read, so that no more than `size` are held.
    self._places = threading.Semaphore(size)
    self._thread = threading.Thread(target=self._make, daemon=True)
    self._thread.start()

  def __iter__(self) -> Self:
    return self

  def __next__(self) -> Any:
    """Returns the next batch.

    Raises:
      Exception: what `batches` raised, after what was whole before it.
    """
    if self._failure is not None:
      raise self._failure
    batch = self._made.get()
    if isinstance(batch, _End):
      self._failure = batch.failure
      raise self._failure
    self._places.release()
    return batch

  def is_ready(self) -> bool:
    """Returns whether the next batch is there without waiting."""
    return not self._made.empty()

  def close(self) -> None:
    """Ends the thread, once the batch that it reads is there."""
    self._is_closed = True
    self._places.release()
    self._thread.join()

  def _make(self) -> None:
    try:
      while True:
        self._places.acquire()
        if self._is_closed:
          return
        self._made.put(next(self._batches))
    except BaseException as failure:  # Whatever it is, the caller gets it.
      self._made.put(_End(failure))


class _End:
  """Stands in the queue for what ends the batches, StopIteration included."""

  def __init__(self, failure: BaseException):
    self.failure = failure
