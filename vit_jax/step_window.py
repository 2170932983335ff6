"""Metrics and times of the steps between two lines of the log."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from vit_jax import errors
from vit_jax.data.prefetch import Prefetch


class StepWindow:
  """Metrics and times of the steps since the last line of the log.

  Metrics stay on the device until they are asked for, so that the host runs
  ahead of it.

  Args:
    start_step: number of updates made before.
    batch_size: examples in a step.
  """

  def __init__(self, start_step: int, batch_size: int):
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
      NonFiniteError: a loss or gradient is NaN or infinite.
    """
    for step_metrics in jax.device_get(self._on_device):
      self._step += 1
      _check_step(self._step, step_metrics)
      self._on_host.append(step_metrics)
    self._on_device = []

  def summarize(self) -> dict[str, float]:
    """Returns what the log says of these steps, and begins a new window.

    Raises:
      NonFiniteError: a loss or gradient is NaN or infinite.
    """
    self.fetch()
    assert self._start is not None
    elapsed = time.perf_counter() - self._start
    means = {
      f'train/{name}': float(np.mean([m[name] for m in self._on_host]))
      for name in self._on_host[0]
    }
    # A mean of rates would be no rate that was ever used.
    means['train/learning_rate'] = float(self._on_host[-1]['learning_rate'])
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


def _check_step(step: int, step_metrics: Mapping[str, float]) -> None:
  for name in ('loss', 'grad_norm'):
    value = float(step_metrics[name])
    if not math.isfinite(value):
      raise errors.NonFiniteError(
        f'{name} is {value} at step {step}. The run has stopped, and no state '
        'from this step on is saved. Lower config.base_lr, raise '
        'config.warmup_steps, or set config.grad_norm_clip=1.'
      )
