"""Starts a training, waits for its end, and tells how it came about."""

import contextlib
import dataclasses
import os
import pathlib
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_jax import errors, run_lock
from vit_jax.launch.signals import Signals

# What a run asked to end takes at most: --grace of the command, and some more.
GRACE = 40.0
_POLL_SECONDS = 0.1
_ASK_SECONDS = 1.0
_TAIL = 65_536  # Bytes of the log in which an error is looked for.
_PROGRAM = (sys.executable, '-m', 'vit_jax.launch.child')


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a training ended.

  Attributes:
    status: as shells count: 0 finished, 2 a user's mistake, 130 or 143 stopped
      and saved, 128 and the signal's number where one has killed it.
    seconds: that the process took, its start included.
    was_stopped: whether `should_stop` has ended it before it was done.
    error: text after 'error: ' of what went wrong, or the last line of a
      traceback; '' of a run that finished or was stopped.
  """

  status: int
  seconds: float
  was_stopped: bool = False
  error: str = ''

  @property
  def is_finished(self) -> bool:
    """Whether the training came to its end."""
    return self.status == 0


def run_training(
  config: str,
  workdir: str | os.PathLike,
  overrides: Mapping[str, Any] | Sequence[str] = (),
  *,
  log: str | os.PathLike,
  should_stop: Callable[[], bool] | None = None,
  signals: Signals | None = None,
  env: Mapping[str, str] | None = None,
  grace: float = GRACE,
) -> Outcome:
  """Trains, or continues a training, in a process of its own.

  Args:
    config: FILE.py:ARGS.
    workdir: of the run.
    overrides: {'base_lr': 0.01}, or texts such as 'base_lr=0.01'; texts that
      begin with '--' are flags as they are.
    log: file to which what the run prints is appended.
    should_stop: asked about once a second; True ends the run by SIGTERM, which
      it saves at.
    signals: taken by the caller, who starts several from threads. None takes
      them meanwhile, where this is the main thread.
    env: variables added to those of this process.
    grace: seconds that a run which is asked to end has before it is killed.

  Returns:
    How it ended, also where it failed.

  Raises:
    ConfigError: the log can't be written.
    StoppedError: this process was sent SIGINT or SIGTERM; the run has ended.
  """
  words = command(config, workdir, overrides)
  taken = contextlib.nullcontext()
  if signals is None:
    signals = Signals()
    if threading.current_thread() is threading.main_thread():
      taken = signals
  start = time.monotonic()
  with taken:
    while True:
      outcome = _run(words, pathlib.Path(log), should_stop, signals, env, grace)
      # Of a caller that was killed just now, whose run is about to end.
      is_held = outcome.status == 2 and run_lock.IN_USE in outcome.error
      if not is_held or time.monotonic() - start > grace:
        return outcome
      time.sleep(_ASK_SECONDS)


def command(
  config: str,
  workdir: str | os.PathLike,
  overrides: Mapping[str, Any] | Sequence[str] = (),
) -> list[str]:
  """Returns the words of the command that people type for such a run."""
  if isinstance(overrides, Mapping):
    overrides = [f'{name}={value}' for name, value in overrides.items()]
  return [
    'python', '-m', 'vit_jax.main',
    f'--config={config}', f'--workdir={os.fspath(workdir)}',
    *(x if x.startswith('--') else f'--config.{x}' for x in overrides),
  ]  # fmt: skip


def _run(
  words: Sequence[str],
  log: pathlib.Path,
  should_stop: Callable[[], bool] | None,
  signals: Signals,
  env: Mapping[str, str] | None,
  grace: float,
) -> Outcome:
  signals.check()
  start = time.monotonic()
  try:
    log.parent.mkdir(parents=True, exist_ok=True)
    file = log.open('ab')
  except OSError as error:
    raise errors.ConfigError(
      f'{log}: what the run prints can not be written there '
      f'({error.strerror or error}).'
    ) from error
  with file:
    now = time.strftime('%Y-%m-%d %H:%M:%S')
    file.write(f'\n# {now}  {shlex.join(words)}\n'.encode())
    file.flush()
    begin = file.tell()
    process = subprocess.Popen(
      [*_PROGRAM, *words[3:]],
      stdin=subprocess.PIPE,
      stdout=file,
      stderr=subprocess.STDOUT,
      # In a group of its own: or Ctrl-C would reach it twice, and a second
      # signal ends a run without saving.
      process_group=0,
      env={**os.environ, **(env or {})},
    )
    try:
      was_asked = _wait(process, should_stop, signals, grace)
    finally:
      _end(process, grace)
  signals.check()
  status = process.returncode
  status = 128 - status if status < 0 else status
  was_stopped = was_asked and status != 0
  return Outcome(
    status=status,
    seconds=time.monotonic() - start,
    was_stopped=was_stopped,
    error='' if was_stopped or not status else _error_in(log, begin, status),
  )


def _wait(
  process: subprocess.Popen,
  should_stop: Callable[[], bool] | None,
  signals: Signals,
  grace: float,
) -> bool:
  """Returns, once the run has ended, whether `should_stop` has ended it."""
  num_passed, next_ask, deadline = 0, 0.0, float('inf')
  was_asked = False
  while True:
    try:
      process.wait(_POLL_SECONDS)
      return was_asked
    except subprocess.TimeoutExpired:
      now = time.monotonic()
    for signum in signals.received[num_passed:]:
      num_passed += 1
      process.send_signal(signum)
      deadline = min(deadline, now + grace)
    if now > deadline:
      process.kill()
    if should_stop and not (was_asked or num_passed) and now >= next_ask:
      next_ask = now + _ASK_SECONDS
      if should_stop():
        was_asked, deadline = True, now + grace
        process.terminate()


def _end(process: subprocess.Popen, grace: float) -> None:
  """Ends a run that is still there because something was raised meanwhile."""
  if process.poll() is None:
    process.terminate()
    try:
      process.wait(grace)
    except subprocess.TimeoutExpired:
      process.kill()
      process.wait()
  assert process.stdin
  process.stdin.close()


def _error_in(log: pathlib.Path, begin: int, status: int) -> str:
  """Returns why a run failed, by what it printed from byte `begin` on."""
  with log.open('rb') as file:
    file.seek(max(begin, file.seek(0, os.SEEK_END) - _TAIL))
    text = file.read().decode(errors='replace').strip()
  _, found, last = f'\n{text}'.rpartition('\nerror: ')
  if found:
    return last
  lines = text.splitlines()
  return lines[-1] if lines else f'Exit status {status}, and nothing printed.'
