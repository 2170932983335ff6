"""SIGTERM and SIGINT in training: the step is finished and saved first."""

import ctypes
import os
import signal
import socket
import sys
import threading
from types import TracebackType
from typing import Any, NoReturn

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_AGAIN = 'The same command continues'
_COMPARE_EVERY = 8


class StoppedError(Exception):
  """A signal has ended the training, whose state is saved.

  Attributes:
    status: with which the process should exit, 128 and the signal's number.
  """

  def __init__(self, text: str, status: int):
    super().__init__(text)
    self.status = status


class Preemption:
  """Whether a signal asks the training to stop, and the answer to it.

  In a `with` block it takes SIGTERM and SIGINT. Before the first step the
  process ends at once, wherever it is: a thread of its own answers, as the main
  one may be compiling for minutes. Later on the loop learns of it by
  `reached`, and has `grace` seconds to save. A second signal ends the process
  at once. Outside of a `with` block no signal is taken.

  Args:
    grace: seconds.
  """

  def __init__(self, grace: float = 25.0):
    self._grace = grace
    self._signum: int | None = None
    self._step: int | None = None
    self._num_asked = 0
    self._timer: threading.Timer | None = None
    self._before: dict[int, Any] = {}
    # The handler of JAX's runtime, which tells the other processes.
    self._notify: Any = None

  def __enter__(self) -> 'Preemption':
    self._receiver, self._sender = socket.socketpair()
    self._sender.setblocking(False)
    self._before_fd = signal.set_wakeup_fd(
      self._sender.fileno(), warn_on_full_buffer=False
    )
    for signum in _SIGNALS:
      self._before[signum] = signal.signal(signum, _ignore)
    threading.Thread(target=self._watch, daemon=True).start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
  ) -> None:
    self._cancel()
    for signum, handler in self._before.items():
      signal.signal(signum, handler)
    signal.set_wakeup_fd(self._before_fd)
    self._sender.close()  # Which ends the thread.

  def share(self) -> None:
    """Tells the other processes of a signal from now on.

    JAX's runtime, once started, has replaced our handler of SIGTERM by its own,
    by which the processes agree on a step. Ours goes in front of it.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    handler = libc.signal(signal.SIGTERM, None)
    signal.signal(signal.SIGTERM, _ignore)
    if handler:
      self._notify = ctypes.CFUNCTYPE(None, ctypes.c_int)(handler)

  def reached(self, step: int) -> bool:
    """Whether to save and stop after this step; the same in every process.

    Args:
      step: that is done. Every process asks after each of them, before an
        evaluation, which may outlast the grace.
    """
    import jax
    from jax.experimental import multihost_utils

    self._step = step
    if jax.process_count() == 1:
      return self.has_come
    return multihost_utils.reached_preemption_sync_point(step)

  def interrupted(self) -> bool:
    """Whether a signal has come to any process, the same in every process.

    For what takes longer than a step: each process asks equally often, between
    parts of it. Of several, they compare notes at every eighth question.
    """
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
      return self.has_come
    self._num_asked += 1
    if self._num_asked % _COMPARE_EVERY:
      return False
    with jax.transfer_guard('allow'):
      each = multihost_utils.process_allgather(np.bool_(self.has_come))
    return bool(np.any(each))

  @property
  def has_come(self) -> bool:
    """Whether a signal has come to this process."""
    return self._signum is not None

  def stopped(self, step: int) -> StoppedError:
    """Returns the exception that ends a training, saved after `step`.

    What is left to do, such as to part from other processes, has no limit.
    """
    self._cancel()
    signum = self._signum or signal.SIGTERM  # Of another process.
    return StoppedError(
      f'Stopped by {signal.Signals(signum).name} after step {step:,}, which is '
      f'saved. {_AGAIN} from there.',
      128 + signum,
    )

  def _cancel(self) -> None:
    if self._timer is not None:
      self._timer.cancel()

  def _watch(self) -> None:
    while received := self._receiver.recv(1):
      if received[0] in _SIGNALS:
        self._answer(received[0])
    self._receiver.close()

  def _answer(self, signum: int) -> None:
    name = signal.Signals(signum).name
    last = f'{_AGAIN} from the last checkpoint, if there is one.'
    if self._signum is not None:
      _end(f'Ended at once by a second signal, {name}. {last}', signum)
    if self._step is None:
      _end(f'Stopped by {name} before a step was done. {last}', signum)
    self._signum = signum
    self._timer = threading.Timer(
      self._grace,
      _end,
      (
        f'Stopped by {name} after step {self._step:,}, which could not be '
        f'saved within {self._grace:g} s (--grace). {last}',
        signum,
      ),
    )
    self._timer.daemon = True
    self._timer.start()
    if self._notify is not None:
      self._notify(signal.SIGTERM)


def _ignore(signum: int, frame: Any) -> None:
  """Is there so that Python's own handler wakes our thread."""
  del signum, frame


def _end(text: str, signum: int) -> NoReturn:
  """Ends the process from any thread, whatever the main one is doing."""
  print(text, file=sys.stderr, flush=True)
  os._exit(128 + signum)
