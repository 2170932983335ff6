"""Signals to a process that has started others, which save when told."""

import signal
from types import TracebackType
from typing import Any, Self

from vit_jax.preemption import StoppedError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
  """SIGINT and SIGTERM to this process, passed on to the runs it started.

  In a `with` block of the main thread they end nothing by themselves: each
  `run_training` that was given this object passes them on to its run, waits for
  that to save, and raises StoppedError.
  """

  def __init__(self):
    self.received: list[int] = []
    self._before: dict[int, Any] = {}

  def __enter__(self) -> Self:
    for signum in _SIGNALS:
      self._before[signum] = signal.signal(signum, self._receive)
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    for signum, handler in self._before.items():
      signal.signal(signum, handler)

  def check(self) -> None:
    """Raises StoppedError, with the status to exit with, once one has come."""
    if self.received:
      name = signal.Signals(self.received[0]).name
      raise StoppedError(
        f'Stopped by {name}. The same command continues from there.',
        128 + self.received[0],
      )

  def _receive(self, signum: int, _: Any) -> None:
    self.received.append(signum)
