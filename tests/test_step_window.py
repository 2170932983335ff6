"""Speed and means of the steps between two lines of the log."""

import collections
import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import errors, step_window
from vit_jax.step_window import StepWindow


class Clock:
  """Stands for `time` with seconds that pass only when told."""

  def __init__(self):
    self.now = 1000.0

  def perf_counter(self):
    return self.now

  def passes(self, seconds):
    self.now += seconds


@pytest.fixture
def clock(monkeypatch):
  clock = Clock()
  monkeypatch.setattr(step_window, 'time', clock)
  return clock


def metrics(loss=1.0, learning_rate=0.1, grad_norm=2.0):
  return {
    'loss': jnp.float32(loss),
    'learning_rate': jnp.float32(learning_rate),
    'grad_norm': jnp.float32(grad_norm),
  }


class SlowBatches:
  """Batches that each take their time to read, none of them ahead."""

  def __init__(self, clock, seconds):
    self._clock, self._seconds = clock, seconds
    self._numbers = itertools.count()

  def is_ready(self):
    return False

  def __next__(self):
    self._clock.passes(self._seconds)
    return next(self._numbers)


class Device:
  """Computes in a queue, on the clock, while the host goes on."""

  def __init__(self, clock):
    self._clock, self._free_at = clock, clock.now

  def run(self, seconds):
    """Returns metrics that are there once the device is done with them."""
    self._free_at = max(self._free_at, self._clock.now) + seconds
    return {**metrics(), 'loss': Later(self._clock, self._free_at)}


class Later:
  """A metric that is still being computed."""

  def __init__(self, clock, ready_at):
    self._clock, self._ready_at = clock, ready_at

  def block_until_ready(self):
    self._clock.now = max(self._clock.now, self._ready_at)
    return self

  def __array__(self, dtype=None, copy=None):
    self.block_until_ready()
    return np.ones((), dtype)


class ThreadedBatches:
  """Batches of a thread that needs `seconds` for each and is `size` ahead."""

  def __init__(self, clock, seconds, size=2):
    self._clock, self._seconds, self._size = clock, seconds, size
    self._ready_at = collections.deque()
    self._made_at = clock.now
    for _ in range(size):
      self._make()

  def _make(self):
    self._made_at = max(self._made_at, self._clock.now) + self._seconds
    self._ready_at.append(self._made_at)

  def is_ready(self):
    return self._ready_at[0] <= self._clock.now

  def __next__(self):
    self._clock.now = max(self._clock.now, self._ready_at.popleft())
    self._make()
    return 'batch'


def make_steps(window, clock, batches, number, seconds):
  for _ in range(number):
    window.next_batch(batches)
    clock.passes(seconds)
    window.add(metrics())


def test_rates_are_those_of_the_steps_after_the_compilation(clock):
  window = StepWindow(start_step=0, batch_size=7)
  batches = SlowBatches(clock, 0.5)
  make_steps(window, clock, batches, 1, seconds=60.0)  # Compiles.
  make_steps(window, clock, batches, 4, seconds=1.5)
  summary = window.summarize()
  assert summary['train/images_per_sec'] == pytest.approx(7 / 2.0)
  assert summary['train/data_wait'] == pytest.approx(0.25)


def test_later_windows_count_all_their_steps(clock):
  window = StepWindow(start_step=0, batch_size=7)
  batches = SlowBatches(clock, 0.25)
  make_steps(window, clock, batches, 3, seconds=9.0)
  window.summarize()
  make_steps(window, clock, batches, 5, seconds=0.75)
  summary = window.summarize()
  assert summary['train/images_per_sec'] == pytest.approx(7.0)
  assert summary['train/data_wait'] == pytest.approx(0.25)


def test_the_compiling_step_counts_where_there_is_no_other(clock):
  window = StepWindow(start_step=0, batch_size=7)
  make_steps(window, clock, SlowBatches(clock, 10.0), 1, seconds=60.0)
  assert window.summarize()['train/images_per_sec'] == pytest.approx(7 / 70)


def test_pauses_do_not_count(clock):
  window = StepWindow(start_step=0, batch_size=7)
  batches = SlowBatches(clock, 0.0)
  with window.pause():  # Before anything is timed.
    clock.passes(100.0)
  make_steps(window, clock, batches, 1, seconds=60.0)
  for _ in range(2):
    make_steps(window, clock, batches, 3, seconds=2.0)
    with window.pause():
      clock.passes(100.0)
    summary = window.summarize()
    assert summary['train/images_per_sec'] == pytest.approx(7 / 2.0)


def test_next_batch_passes_the_batch_on(clock):
  window = StepWindow(start_step=0, batch_size=7)
  batches = SlowBatches(clock, 0.0)
  assert [window.next_batch(batches) for _ in range(3)] == [0, 1, 2]


@pytest.mark.parametrize('progress_every', [5, 50])
@pytest.mark.parametrize(
  ('batch_seconds', 'share'),
  [(0.1, 0.0), (0.5, 0.0), (0.9, 0.0), (1.25, 0.2), (2.0, 0.5), (10.0, 0.9)],
)
def test_waiting_is_the_share_of_time_that_the_device_idles(
  clock, batch_seconds, share, progress_every
):
  device, window = Device(clock), StepWindow(start_step=0, batch_size=7)
  batches = ThreadedBatches(clock, batch_seconds)
  for step in range(1, 201):
    window.next_batch(batches)
    clock.passes(0.001)  # The host's part of a step.
    window.add(device.run(1.0))
    if step % progress_every == 0:
      waited = window.summarize()['train/data_wait']
  assert waited == pytest.approx(share, abs=0.02)


def test_means_are_over_the_window_and_the_learning_rate_is_the_last():
  window = StepWindow(start_step=0, batch_size=7)
  for loss, learning_rate in ((1.0, 0.5), (2.0, 0.25)):
    window.add(metrics(loss, learning_rate))
  window.fetch()  # As an evaluation does; it begins no new window.
  window.add(metrics(6.0, 0.125))
  summary = window.summarize()
  assert summary['train/loss'] == pytest.approx(3.0)
  assert summary['train/grad_norm'] == pytest.approx(2.0)
  assert summary['train/learning_rate'] == 0.125
  window.add(metrics(5.0))
  assert window.summarize()['train/loss'] == pytest.approx(5.0)


@pytest.mark.parametrize('method', ['fetch', 'summarize'])
@pytest.mark.parametrize('name', ['loss', 'grad_norm'])
@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_first_step_that_is_not_finite_is_named(name, value, method):
  window = StepWindow(start_step=100, batch_size=7)
  window.add(metrics())
  window.add(metrics())
  window.fetch()
  window.add(metrics())
  window.add(metrics(**{name: value}))  # Step 104.
  window.add(metrics(loss=math.nan))
  with pytest.raises(errors.NonFiniteError) as caught:
    getattr(window, method)()
  assert f'{name} is {value} at step 104.' in str(caught.value)
  assert 'config.base_lr' in str(caught.value)


def test_steps_are_counted_over_windows():
  window = StepWindow(start_step=3, batch_size=7)
  for _ in range(2):
    window.add(metrics())
    window.summarize()
  window.add(metrics(loss=math.inf))
  with pytest.raises(errors.NonFiniteError, match='loss is inf at step 6'):
    window.fetch()


def test_waiting_is_counted_over_all_windows(clock):
  window = StepWindow(start_step=0, batch_size=7)
  assert window.data_wait() is None
  batches = SlowBatches(clock, 0.5)
  make_steps(window, clock, batches, 1, seconds=60.0)  # Compiles.
  make_steps(window, clock, batches, 4, seconds=1.5)
  window.summarize()
  assert window.data_wait() == pytest.approx(0.25)
  make_steps(window, clock, batches, 4, seconds=0.5)
  window.summarize()
  assert window.data_wait() == pytest.approx(4 / 12)


# --- Updates that are left out -----------------------------------------------


def guarded(num_skipped=0, left_out=False, is_overflow=None, **values):
  found = metrics(**values) | {
    'left_out': jnp.asarray(left_out),
    'num_skipped': jnp.int32(num_skipped),
  }
  if is_overflow is None:
    return found
  return found | {
    'is_overflow': jnp.asarray(is_overflow),
    'loss_scale': jnp.float32(4.0 if is_overflow else 2.0),
  }


def test_skipped_steps_are_told_and_counted_but_in_no_mean():
  said = []
  window = StepWindow(100, 7, max_skipped=3, say=said.append)
  window.add(guarded(1, loss=2.0))
  window.add(guarded(2, left_out=True, loss=math.nan))
  window.add(guarded(3, left_out=True, grad_norm=math.inf))
  summary = window.summarize()
  assert summary['train/loss'] == 2.0
  assert summary['train/grad_norm'] == 2.0
  assert summary['train/skipped'] == 2
  assert len(said) == 2
  assert said[0].startswith('loss is nan at step 102. That update is left out')
  assert 'makes 3 of at most config.max_skipped=3' in said[1]
  window.add(guarded(3))
  assert window.summarize()['train/skipped'] == 0


def test_window_of_nothing_but_skipped_steps_has_no_loss():
  window = StepWindow(0, 7, max_skipped=3, say=lambda line: None)
  window.add(guarded(1, left_out=True, loss=math.nan))
  summary = window.summarize()
  assert math.isnan(summary['train/loss'])
  assert summary['train/skipped'] == 1


def test_one_skipped_too_many_stops():
  # The count is the run's, so a restart begins with what was skipped before.
  window = StepWindow(100, 7, max_skipped=3, say=lambda line: None)
  window.add(guarded(3, left_out=True, loss=math.nan))
  window.fetch()
  window.add(guarded(4, left_out=True, loss=math.nan))
  with pytest.raises(errors.NonFiniteError) as caught:
    window.fetch()
  for text in ('nan at step 102', '4 updates', 'config.max_skipped=3'):
    assert text in str(caught.value)


@pytest.mark.parametrize('max_skipped', [None, 0])
def test_overflow_that_the_loss_scale_takes_care_of_is_no_fault(max_skipped):
  said = []
  window = StepWindow(0, 7, max_skipped=max_skipped, say=said.append)
  window.add(guarded(0, True, is_overflow=True, grad_norm=math.inf))
  window.add(guarded(0, is_overflow=False))
  summary = window.summarize()
  assert not said
  assert summary['train/grad_norm'] == 2.0
  assert summary['train/loss_scale'] == 2.0
  assert summary['train/skipped'] == 1
  assert 'train/is_overflow' not in summary
  assert 'train/num_skipped' not in summary


@pytest.mark.parametrize('max_skipped', [None, 0])
def test_scale_that_can_go_no_lower_is_a_fault(max_skipped):
  window = StepWindow(0, 7, max_skipped=max_skipped)
  window.add(guarded(1, True, is_overflow=False, grad_norm=math.nan))
  with pytest.raises(errors.NonFiniteError, match='with a loss scale of 2'):
    window.fetch()
