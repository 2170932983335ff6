"""Metrics and times of the steps between two lines of the log."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vit_jax import errors
from vit_jax.data.prefetch import Prefetch

# Of a guard; the log has how many updates were left out.
_BOOKKEEPING = ('is_overflow', 'left_out', 'num_skipped')
_REMEDY = (
  ', and no state from this step on is saved. Lower config.base_lr, raise '
  'config.warmup_steps, or set config.grad_norm_clip=1.'
)


class StepWindow:
  """Metrics and times of the steps since the last line of the log.

  Metrics stay on the device until they are asked for, so that the host runs
  ahead of it.

  Args:
    start_step: number of updates made before.
    batch_size: examples in a step.
    max_skipped: updates of a run that may be left out because they are not
      finite, None where the first one stops it.
    say: takes the line that tells of one.
  """

  def __init__(
    self,
    start_step: int,
    batch_size: int,
    max_skipped: int | None = None,
    say: Callable[[str], None] = print,
  ):
    self._max_skipped = max_skipped
    self._say = say
    self._step = start_step
    self._batch_size = batch_size
    self._on_device: list[dict[str, jax.Array]] = []
    self._on_host: list[dict[str, float]] = []
    self._num_timed = 0
    self._start: float | None = None  # Until the first step is compiled.
    self._waited = 0.0
    self._created = time.perf_counter()
    self._first_step_seconds = 0.0
    self._total_waited = self._total_seconds = 0.0

  def next_batch(self, batches: Prefetch) -> Any:
    """Returns the next batch; the time that the devices idle is waiting."""
    if not batches.is_ready() and self._on_device:
      # The host is ahead: until the last step is done, nothing waits.
      jax.block_until_ready(self._on_device[-1])
    before = time.perf_counter()
    batch = next(batches)
    self._waited += time.perf_counter() - before
    return batch

  def add(self, step_metrics: dict[str, jax.Array]) -> None:
    """Takes the metrics of one more step."""
    self._on_device.append(step_metrics)
    if self._start is None:
      # Compiling it is no measure of the speed.
      jax.block_until_ready(step_metrics)
      self._start, self._waited = time.perf_counter(), 0.0
      self._first_step_seconds = self._start - self._created
    else:
      self._num_timed += 1

  def fetch(self) -> None:
    """Waits for the steps so far and makes sure they went well.

    Raises:
      NonFiniteError: a loss or gradient is NaN or infinite, once too often if
        such updates are left out.
    """
    for step_metrics in jax.device_get(self._on_device):
      self._step += 1
      self._check_step(step_metrics)
      self._on_host.append(step_metrics)
    self._on_device = []

  def summarize(self) -> dict[str, float]:
    """Returns what the log says of these steps, and begins a new window.

    Returns:
      'train/images_per_sec', 'train/data_wait', and the means of all metrics of
      the steps whose update was made, or of all if none was; of the learning
      rate and the loss scale the last. With a guard, 'train/skipped' is how
      many updates were left out.

    Raises:
      NonFiniteError: as `fetch`.
    """
    self.fetch()
    assert self._start is not None
    elapsed = time.perf_counter() - self._start
    means = _means(self._on_host)
    num_images = self._num_timed * self._batch_size
    if not num_images:  # Nothing but the step that was compiled.
      num_images, elapsed = self._batch_size, elapsed + self._first_step_seconds
    means['train/images_per_sec'] = num_images / elapsed
    means['train/data_wait'] = self._waited / elapsed
    self._total_waited += self._waited
    self._total_seconds += elapsed
    self._on_host, self._num_timed = [], 0
    self._start, self._waited = time.perf_counter(), 0.0
    return means

  def data_wait(self) -> float | None:
    """Returns the share of all time waited for data; None before a summary."""
    if not self._total_seconds:
      return None
    return self._total_waited / self._total_seconds

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Leaves what happens inside out of the times."""
    before = time.perf_counter()
    yield
    if self._start is not None:
      self._start += time.perf_counter() - before

  def _check_step(self, step_metrics: Mapping[str, Any]) -> None:
    """Raises NonFiniteError if the run can't go on after this step."""
    bad = [
      f'{name} is {value}'
      for name in ('loss', 'grad_norm')
      if not math.isfinite(value := float(step_metrics[name]))
    ]
    if not bad or step_metrics.get('is_overflow', False):
      return
    found = f'{bad[0]} at step {self._step}'
    if 'loss_scale' in step_metrics:
      found += f', with a loss scale of {float(step_metrics["loss_scale"]):g}'
    if self._max_skipped is None:
      raise errors.NonFiniteError(f'{found}. The run has stopped{_REMEDY}')
    num_skipped = int(step_metrics['num_skipped'])
    if num_skipped > self._max_skipped:
      raise errors.NonFiniteError(
        f'{found}. {num_skipped} updates of this run would be left out, more '
        f'than config.max_skipped={self._max_skipped}. The run has '
        f'stopped{_REMEDY}'
      )
    self._say(
      f'{found}. That update is left out, which makes {num_skipped} of at most '
      f'config.max_skipped={self._max_skipped}.'
    )


def _means(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Returns what the log says of a window's metrics."""
  made = [m for m in steps if not m.get('left_out', False)] or steps
  last = steps[-1]
  means = {
    f'train/{name}': float(np.mean([m[name] for m in made]))
    for name in last
    if name not in _BOOKKEEPING
  }
  # A mean of rates would be no rate that was ever used.
  for name in ('learning_rate', 'loss_scale'):
    if name in last:
      means[f'train/{name}'] = float(last[name])
  if 'left_out' in last:
    means['train/skipped'] = float(sum(m['left_out'] for m in steps))
  return means
