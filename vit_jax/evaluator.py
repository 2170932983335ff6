"""Evaluations in the course of a run, and how it stands after them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from vit_jax import evaluate, progress
from vit_jax.checkpoints.standing import Standing
from vit_jax.checkpoints.state import StateCheckpoints
from vit_jax.data import eval_sets
from vit_jax.metrics import read_metrics
from vit_jax.run_log import RunLog
from vit_jax.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """Evaluates a run and says what comes out, there and in its log."""

  config: Any
  run: Workdir
  saved: StateCheckpoints
  jit_eval_step: Callable[..., Any]
  eval_sources: eval_sets.EvalSets
  mesh: Mesh
  log: RunLog

  def evaluate(
    self,
    step: int,
    params: Any,
    standing: Standing,
    is_abandoned: Callable[[], bool] = lambda: False,
  ) -> tuple[Mapping[str, float] | None, Standing]:
    """Returns the metrics and how the run stands then.

    Args:
      step: number of updates that the parameters have seen.
      params: of the model.
      standing: before.
      is_abandoned: as `evaluate.evaluate` asks it; if so, the metrics are None
        and the evaluation stays due.

    Raises:
      NonFiniteError: a step before went wrong.
      DataError: an image can't be read.
    """
    self.log.fetch()
    with self.log.pause():
      try:
        metrics = evaluate.evaluate_sets(
          self.jit_eval_step,
          params,
          self.config,
          self.eval_sources,
          self.mesh,
          is_abandoned,
        )
      except evaluate.AbandonedError:
        return None, dataclasses.replace(standing, evaluation_due=True)
      # A process that made it up for another may have been killed since.
      if not (standing.evaluation_due and _is_logged(self.run, step)):
        self.log.write_evaluation(step, metrics)
      self.log.message(f'step {step:,}: {progress.format_metrics(metrics)}')
    best_metric, patience = self.config.best_metric, self.config.patience
    if best_metric:
      standing = standing.after(
        metrics[best_metric], step, best_metric, patience
      )
    return metrics, dataclasses.replace(standing, evaluation_due=False)

  def plot_curves(self) -> None:
    """Draws the log, on the process that writes it."""
    if jax.process_index() == 0:
      from vit_jax import figures  # matplotlib takes a second to import.

      run = self.run
      self.saved.check_present()  # Else another run's log would be drawn.
      with self.log.pause(), run.writing(run.curves):
        metrics = read_metrics(run.metrics)
        figures.plot_curves(metrics, run.curves, run.path.name)


def _is_logged(run: Workdir, step: int) -> bool:
  """Whether the log has an evaluation after that step; False on all but one."""
  return jax.process_index() == 0 and any(
    step in steps
    for name, (steps, _) in read_metrics(run.metrics).items()
    if not name.startswith('train/')
  )


def was_made_up_for(run: Workdir, step: int) -> bool:
  """Whether the evaluation that was put off has been made, and ended the run.

  The checkpoint can't tell, as it was saved before. Every process is told.
  """
  is_made = run.model.exists() and _is_logged(run, step)
  if jax.process_count() > 1:
    is_made = multihost_utils.broadcast_one_to_all(np.bool_(is_made))
  return bool(is_made)
