"""What a run says of its steps: its log, its progress, its trace, its times."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Self, SupportsFloat

import jax

from vit_jax import profiling, progress
from vit_jax.data.prefetch import Prefetch
from vit_jax.metrics import MetricWriter
from vit_jax.step_window import StepWindow
from vit_jax.workdir import Workdir


class RunLog:
  """Takes what steps and evaluations measure, writes it down and shows it.

  A context manager, so that files are closed and the bar is taken down
  whatever ends the run. All processes time their steps; the first one writes
  and shows.
  """

  def __init__(
    self, config: Any, run: Workdir, start_step: int, *, writes: bool = True
  ):
    """Only prepares.

    Args:
      config: of the run.
      run: its directory.
      start_step: steps done before this process; what the log has of later
        ones is dropped.
      writes: False, for a run that is finished already, leaves the log alone.
    """
    self._config = config
    self._run = run
    self._start_step = start_step
    is_main_process = jax.process_index() == 0
    self._writes = writes and is_main_process
    self._bar = progress.Progress(
      config.total_steps, start_step, config.batch, enabled=is_main_process
    )
    max_skipped = config.max_skipped if config.on_nonfinite == 'skip' else None
    self._window = StepWindow(
      start_step, config.batch, max_skipped, self.message
    )

  def __enter__(self) -> Self:
    with contextlib.ExitStack() as stack:
      self._writer = stack.enter_context(
        MetricWriter(self._run.path, self._start_step, enabled=self._writes)
      )
      stack.enter_context(self._bar)
      self._profile = stack.enter_context(
        profiling.Profile(
          self._config.profile,
          self._run.profile,
          self._start_step,
          self.message,
        )
      )
      self._open = stack.pop_all()
    return self

  def __exit__(self, *exc_info: Any) -> None:
    self._open.__exit__(*exc_info)

  def message(self, text: str) -> None:
    """Prints a line of its own."""
    self._bar.message(text)

  def next_batch(self, step: int, state: Any, batches: Prefetch) -> Any:
    """Returns the batch of a step that starts from `state`."""
    self._profile.before(step, state)
    return self._window.next_batch(batches)

  def add(self, step: int, step_metrics: dict[str, jax.Array]) -> None:
    """Takes the metrics of a step; every `config.progress_every` says them.

    Raises:
      NonFiniteError: as `fetch`.
    """
    self._window.add(step_metrics)
    config = self._config
    if step % config.progress_every == 0 or step == config.total_steps:
      means = self._window.summarize()
      self._writer.write(step, means)
      self._bar.update(step, means)

  def fetch(self) -> None:
    """Waits for the steps so far and makes sure they went well.

    Raises:
      NonFiniteError: as `StepWindow.fetch`.
    """
    self._window.fetch()

  @contextlib.contextmanager
  def pause(self) -> Iterator[None]:
    """Leaves what happens inside out of the times of the steps."""
    with self._bar.pause(), self._window.pause():
      yield

  def write_evaluation(
    self, step: int, metrics: Mapping[str, SupportsFloat]
  ) -> None:
    """Writes down the metrics of an evaluation after so many steps."""
    self._writer.write(step, metrics)

  def show_data_wait(self) -> None:
    """Prints the share of the time that the steps waited for data."""
    waited = self._window.data_wait()
    if waited is not None:
      self.message(f'Waited for data {waited:.1%} of the time')
