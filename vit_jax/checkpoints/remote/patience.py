"""How long servers are waited for: each of them, and all of them together.

What counts is the time in which nothing useful comes. A download that goes on
at a useful rate takes as long as it takes.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from vit_jax.checkpoints.remote.reasons import UnavailableError

# How long, in seconds, a server may take to begin its answer; name look-up,
# connection and redirects are part of it.
FIRST_BYTE_SECONDS = 7.0
# How long it may then send nothing.
STALL_SECONDS = 8.0
# A server that sends fewer bytes than this in that time is given up.
SLOW_SECONDS, SLOW_BYTES = 10.0, 10_000
# A host that was given up isn't asked again for so long: there may be more to
# ask it for, and the user waits.
SILENCE_SECONDS = 20.0

# A read that blocks for so much longer than that is ended.
_GRACE_SECONDS = 0.5

_useless_hosts: dict[str, tuple[float, str]] = {}  # Since when, and why.
_Result = TypeVar('_Result')


class SlowError(Exception):
  """Bytes come, but too few; the text says how few."""


@dataclasses.dataclass
class _Budget:
  seconds: float  # In all.
  left: float


_budget: contextvars.ContextVar[_Budget | None] = contextvars.ContextVar(
  'budget', default=None
)


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
  """Bounds what is waited in vain within the block, for all servers together.

  Args:
    seconds: of waiting; within another limit, what is left of that counts.
  """
  if _budget.get():
    yield
    return
  token = _budget.set(_Budget(seconds, seconds))
  try:
    yield
  finally:
    _budget.reset(token)


def left() -> float:
  """Returns the seconds that may yet be waited in vain."""
  budget = _budget.get()
  return budget.left if budget else float('inf')


def spend(seconds: float) -> None:
  """Notes that so long was waited in vain, or if negative, that it wasn't."""
  if budget := _budget.get():
    budget.left -= seconds


def first_answer(host: str, ask: Callable[[], _Result]) -> _Result:
  """Returns `ask()`, or gives up when it takes too long.

  Name look-ups and slow headers obey no timeout of a socket, so it is asked in
  a thread, which is left to itself if it doesn't come back.
  """
  _check(host)
  results: list[_Result] = []
  failures: list[Exception] = []
  is_late = threading.Event()

  def run() -> None:
    try:
      results.append(ask())
      if is_late.is_set() and hasattr(results[0], 'close'):
        results[0].close()  # type: ignore[attr-defined]
    except Exception as error:
      failures.append(error)

  start, seconds = time.monotonic(), min(FIRST_BYTE_SECONDS, left())
  thread = threading.Thread(target=run, daemon=True)
  thread.start()
  thread.join(seconds)
  spend(time.monotonic() - start)
  if failures:
    raise failures[0]
  if not results:
    is_late.set()
    raise UnavailableError(keeps_silent(host, seconds))
  return results[0]


def _check(host: str) -> None:
  """Raises `UnavailableError` where a host isn't worth the wait."""
  then, why = _useless_hosts.get(host, (-SILENCE_SECONDS, ''))
  since = time.monotonic() - then
  if since < SILENCE_SECONDS:
    raise UnavailableError(
      f'not asked, because it {why} {since:.0f} seconds ago'
    )
  budget = _budget.get()
  if budget and budget.left <= 0:
    raise UnavailableError(
      f'not asked, after {budget.seconds:.0f} seconds of waiting for the others'
    )


def keeps_silent(host: str, seconds: float | None = None) -> str:
  """Notes that a host gave no answer in time, and returns that as a reason."""
  _useless_hosts[host] = time.monotonic(), 'gave no answer'
  waited = FIRST_BYTE_SECONDS if seconds is None else seconds
  return f'no answer within {waited:.0f} seconds'


def stalls(host: str) -> str:
  """Notes that a host sends no more, and returns that as a reason."""
  _useless_hosts[host] = time.monotonic(), 'stopped sending'
  return f'no bytes for {STALL_SECONDS:.0f} seconds'


def is_slow(num_bytes: int, seconds: float) -> bool:
  """Whether that is too little to wait for the rest."""
  return num_bytes * SLOW_SECONDS < SLOW_BYTES * seconds


class Watch:
  """Sees to it that the bytes of one answer come at a useful rate.

  A context for reading them. At its end by an error, what was waited in vain is
  off the limit.
  """

  def __init__(self, host: str, hang_up: Callable[[], None]):
    """Begins to wait.

    Args:
      host: that sends.
      hang_up: ends a read that another thread is in.
    """
    self._host, self._hang_up = host, hang_up
    self._is_over = False
    self._begin()

  def _begin(self) -> None:
    """Begins a stretch of time over which the rate is taken."""
    self._start, self._num_bytes = time.monotonic(), 0
    self._seconds = min(SLOW_SECONDS, max(left(), 1.0))
    # The sockets' own patience begins anew with every byte.
    self._timer = threading.Timer(self._seconds + _GRACE_SECONDS, self._end)
    self._timer.daemon = True
    self._timer.start()

  def _end(self) -> None:
    if is_slow(self._num_bytes, time.monotonic() - self._start):
      self._is_over = True
      self._hang_up()

  def see(self, num_bytes: int) -> None:
    """Notes that bytes came.

    Raises:
      SlowError: they are too few.
    """
    self._num_bytes += num_bytes
    elapsed = time.monotonic() - self._start
    if elapsed < self._seconds:
      return
    if is_slow(self._num_bytes, elapsed):
      raise SlowError(self._reason(elapsed))
    self._timer.cancel()
    self._begin()

  def _reason(self, elapsed: float) -> str:
    _useless_hosts[self._host] = time.monotonic(), 'was too slow'
    return f'{self._num_bytes} bytes in {elapsed:.0f} seconds'

  def __enter__(self) -> Watch:
    return self

  def __exit__(self, kind: object, error: object, trace: object) -> None:
    self._timer.cancel()
    elapsed = time.monotonic() - self._start
    if is_slow(self._num_bytes, elapsed):
      spend(elapsed)
    if self._is_over:  # What came looks like the end of the file, or an error.
      raise SlowError(self._reason(elapsed))
