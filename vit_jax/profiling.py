"""Traces of some steps for XProf or TensorBoard, as `config.profile` asks."""

import contextlib
import os
import re
from collections.abc import Callable
from typing import Any

import jax

from vit_jax import errors

# The first step compiles, the second still starts things up.
_NUM_SKIPPED = 2


def parse(
  profile: str, start_step: int = 0, total_steps: int | None = None
) -> tuple[int, int] | None:
  """Returns the first and the last step to trace, None for none.

  Args:
    profile: 'FIRST:LAST', steps of the run, or a number of steps, which are
      those after the first two of this process; '' for none.
    start_step: steps done before this process.
    total_steps: of the run; None does not compare them.

  Raises:
    ConfigError: it is neither, or of steps that the run does not have.
  """
  if not profile:
    return None
  # As many digits as any number of steps has.
  found = re.fullmatch(r'(?:(\d{1,18}):)?(\d{1,18})', profile, re.ASCII)
  if not found or int(found[2]) < max(1, int(found[1] or 1)):
    raise errors.ConfigError(
      f"config.profile={profile!r} should be 'FIRST:LAST', such as '10:14' for "
      "five steps, a number of steps, such as '5', or '' for no trace."
    )
  if found[1] is not None:
    first, last = max(1, int(found[1])), int(found[2])
    needed = last
  else:
    first = needed = start_step + _NUM_SKIPPED + 1
    last = first + int(found[2]) - 1
  if total_steps is not None and needed > total_steps:
    raise errors.ConfigError(
      f'config.profile={profile!r} is of the steps {first} to {last}, and '
      f'config.total_steps={total_steps} ends before. Name steps that the run '
      "has, or '' for no trace."
    )
  return first, last


class Profile(contextlib.AbstractContextManager):
  """Writes a trace of the steps that are asked for; leaving it ends it."""

  def __init__(
    self,
    profile: str,
    directory: str | os.PathLike,
    start_step: int,
    message: Callable[[str], None],
  ):
    """Only prepares.

    Args:
      profile: see `parse`.
      directory: where traces go, each into a directory of its own time.
      start_step: steps done before this process.
      message: is told where the trace is, or why there is none.
    """
    # All processes do the same; one trace of it will do.
    is_writer = jax.process_index() == 0
    self._steps = parse(profile, start_step) if is_writer else None
    self._profile = profile
    self._directory = os.fspath(directory)
    self._message = message
    self._running = contextlib.ExitStack()
    self._is_running = False
    if self._steps and self._steps[1] <= start_step:
      self._tell_none(f'{start_step} steps are done already')
      self._steps = None

  def before(self, step: int, state: Any) -> None:
    """Starts or ends the trace where it is time.

    Args:
      step: that comes next.
      state: what it starts from; waited for where a trace starts or ends, so
        that it holds whole steps.
    """
    if self._steps is None:
      return
    first, last = self._steps
    if step > last:
      self._stop(state)
    elif step >= first:
      if not self._is_running:
        jax.block_until_ready(state)
        jax.profiler.start_trace(self._directory)
        self._is_running = True
      self._running.close()  # The step before.
      self._running.enter_context(
        jax.profiler.StepTraceAnnotation('train', step_num=step)
      )

  def __exit__(self, error_type: Any, *_) -> None:
    if self._steps and not self._is_running and error_type is None:
      self._tell_none('the run ended before')
    self._stop(None)

  def _tell_none(self, reason: str) -> None:
    self._message(f'No trace by config.profile={self._profile!r}: {reason}.')

  def _stop(self, state: Any) -> None:
    if self._is_running:
      jax.block_until_ready(state)
      self._running.close()
      jax.profiler.stop_trace()
      self._message(
        f'Trace in {self._directory}; look at it by: xprof --port 8791 '
        f'{self._directory}'
      )
    self._is_running, self._steps = False, None
