"""Shows the user what a run is, how far it is and when it will be done.

On a terminal that is a bar that moves; in a file or a pipe, plain lines.
"""

import collections
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Self, SupportsFloat

import rich.progress
from rich.console import Console
from rich.table import Column

# Speed is taken over so many updates: long enough to be calm, short enough to
# follow a machine that gets busier.
_WINDOW = 50


def format_duration(seconds: float) -> str:
  """Returns hours, minutes and seconds, such as '1:02:03'."""
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}'


def format_metrics(metrics: Mapping[str, SupportsFloat]) -> str:
  """Returns a line such as 'test/loss 0.0712, test/accuracy 97.78%'."""
  return ', '.join(
    f'{name} {_format_value(name, float(value))}'
    for name, value in metrics.items()
  )


def _format_value(name: str, value: float) -> str:
  is_share = name.rpartition('/')[2] in ('accuracy', 'top5')
  return f'{value:.2%}' if is_share else f'{value:.4f}'


def print_summary(lines: Mapping[str, str]) -> None:
  """Prints the first lines of a run, one per label, the texts aligned."""
  width = max((len(label) for label in lines), default=0) + 1
  for label, text in lines.items():
    print(f'{label + ":":<{width}} {text}', flush=True)


class Rate:
  """Measures the speed of the steps made in this process.

  The clock starts at the first update, so neither compilation nor the steps
  of an earlier process count.
  """

  def __init__(self, clock: Callable[[], float] = time.perf_counter):
    """Starts nothing yet.

    Args:
      clock: returns seconds, counted from anywhere.
    """
    self._clock = clock
    self._paused = 0.0
    self._first_step: int | None = None
    # (step, seconds of training) of the latest updates.
    self._updates: collections.deque[tuple[int, float]] = collections.deque(
      maxlen=_WINDOW
    )

  def update(self, step: int) -> None:
    """Notes that `step` updates are made by now."""
    if self._first_step is None:
      self._first_step, self._paused = step, 0.0
    self._updates.append((step, self._clock() - self._paused))

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Leaves what happens inside, such as an evaluation, out of the speed."""
    start = self._clock()
    try:
      yield
    finally:
      self._paused += self._clock() - start

  def seconds_per_step(self) -> float | None:
    """Returns the time of a step, or None before the second update."""
    if len(self._updates) < 2:
      return None
    old_step, old_seconds = self._updates[0]
    new_step, new_seconds = self._updates[-1]
    if new_step <= old_step:
      return None
    return (new_seconds - old_seconds) / (new_step - old_step)

  def seconds_left(self, steps: int) -> float | None:
    """Returns how long so many more steps will take.

    Pauses count here: they will go on in the proportion they had so far.
    """
    seconds = self.seconds_per_step()
    if seconds is None or self._first_step is None:
      return None
    made = self._updates[-1][0] - self._first_step
    return max(steps, 0) * (seconds + self._paused / made)


class Progress:
  """Shows step, loss, accuracy, speed and the time left of a training.

  A context manager, so that the bar is taken down whatever ends the run.
  """

  def __init__(
    self,
    total_steps: int,
    start_step: int,
    batch_size: int,
    *,
    enabled: bool = True,
    console: Console | None = None,
    clock: Callable[[], float] = time.perf_counter,
  ):
    """Shows nothing yet.

    Args:
      total_steps: at which the training is done.
      start_step: number of updates made by earlier processes.
      batch_size: images in a step, over all devices.
      enabled: False, on all processes but the first, shows nothing at all.
      console: where to write; standard output by default.
      clock: see `Rate`.
    """
    self._total_steps = total_steps
    self._batch_size = batch_size
    self._rate = Rate(clock)
    self._bar = None
    self._console = console or Console(file=sys.stdout, quiet=not enabled)
    is_dumb = self._console.is_dumb_terminal
    if enabled and self._console.is_terminal and not is_dumb:
      self._bar = rich.progress.Progress(
        rich.progress.BarColumn(bar_width=None),
        rich.progress.TextColumn(
          '{task.description}',
          markup=False,
          # On a narrow terminal the end is cut off: a bar has one line.
          table_column=Column(no_wrap=True),
        ),
        console=self._console,
        expand=True,
        refresh_per_second=4,
      )
      self._task = self._bar.add_task(
        self._line(start_step, {}), total=total_steps, completed=start_step
      )

  def __enter__(self) -> Self:
    if self._bar:
      self._bar.start()
    return self

  def __exit__(self, *exc_info: object) -> None:
    if self._bar:
      self._bar.stop()

  def update(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
    """Shows where the training is.

    Args:
      step: number of updates made.
      metrics: 'train/loss' and 'train/accuracy' are shown if there.
    """
    self._rate.update(step)
    line = self._line(step, metrics)
    if self._bar:
      self._bar.update(self._task, completed=step, description=line)
    else:
      self._print(line)

  def message(self, text: str) -> None:
    """Prints a line of its own, above the bar where there is one."""
    self._print(text)

  def pause(self) -> contextlib.AbstractContextManager[None]:
    """Returns a context whose time is no time of training."""
    return self._rate.pause()

  def images_per_sec(self) -> float | None:
    """Returns the present speed, or None before the second update."""
    seconds = self._rate.seconds_per_step()
    return self._batch_size / seconds if seconds else None

  def _line(self, step: int, metrics: Mapping[str, SupportsFloat]) -> str:
    total = f'{self._total_steps:,}'
    parts = [f'{step:>{len(total)},}/{total}']
    shown = {
      name.removeprefix('train/'): metrics[name]
      for name in ('train/loss', 'train/accuracy')
      if name in metrics
    }
    if shown:
      parts.append(format_metrics(shown))
    speed = self.images_per_sec()
    if speed is not None:
      parts.append(f'{speed:,.{0 if speed >= 10 else 1}f} images/s')
    left = self._rate.seconds_left(self._total_steps - step)
    if left is not None and step < self._total_steps:
      parts.append(f'{format_duration(left)} left')
    return '  '.join(parts)

  def _print(self, text: str) -> None:
    # No markup: brackets in a path are not styles. No wrapping: what reads a
    # pipe wants whole lines.
    self._console.print(
      text, markup=False, highlight=False, emoji=False, soft_wrap=True
    )
    self._console.file.flush()
