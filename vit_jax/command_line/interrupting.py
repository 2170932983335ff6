"""Ctrl-C that is not lost where Python can't raise it."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

# Until the callback is over in which nothing could be raised, in seconds.
_PAUSE = 0.05


def _interrupt() -> None:
  """Sends the main thread what Ctrl-C does, also where it sleeps."""
  ident = threading.main_thread().ident
  assert ident is not None  # It has been started.
  signal.pthread_kill(ident, signal.SIGINT)


@contextlib.contextmanager
def heeded() -> Iterator[None]:
  """Raises KeyboardInterrupt again where it was ignored, until it ends.

  In a callback of the garbage collector, and JAX has one, Python prints an
  exception and goes on; while JAX is imported that was one Ctrl-C in six.
  """
  timers = []
  report = sys.unraisablehook

  def hook(unraisable: Any) -> None:
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
      return report(unraisable)
    # From a thread, as it would come at once here, and be ignored again.
    timers.append(threading.Timer(_PAUSE, _interrupt))
    timers[-1].daemon = True
    timers[-1].start()

  sys.unraisablehook = hook
  try:
    yield
  finally:
    for timer in timers:
      timer.cancel()
    if sys.unraisablehook is hook:  # Else another one stands on it.
      sys.unraisablehook = report
