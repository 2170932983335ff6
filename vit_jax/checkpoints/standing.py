"""How a run stands at evaluations, and which value of a metric is better."""

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class Standing:
  """How a run stands at evaluations: what resuming needs beside the state.

  Attributes:
    best_value: the best metric so far, None before the first that is a number.
    best_step: the first step that had it.
    num_stale: evaluations since then.
    stopped_early: whether the run is over because it ran out of patience.
    evaluation_due: whether the evaluation after the step that is saved was put
      off, as a signal came.
  """

  best_value: float | None = None
  best_step: int | None = None
  num_stale: int = 0
  stopped_early: bool = False
  evaluation_due: bool = False

  def after(
    self, value: float, step: int, metric: str, patience: int = 0
  ) -> 'Standing':
    """Returns the standing after one more evaluation.

    Args:
      value: of the metric; NaN is never better.
      step: of the evaluation.
      metric: its name, which says whether lower is better.
      patience: stale evaluations after which the run is over, 0 for never.
    """
    if _is_better(metric, value, self.best_value):
      return Standing(value, step)
    num_stale = self.num_stale + 1
    return dataclasses.replace(
      self,
      num_stale=num_stale,
      stopped_early=0 < patience <= num_stale,
      evaluation_due=False,
    )


def _is_better(metric: str, value: float, best: float | None) -> bool:
  """Whether `value` beats `best`; of a loss, lower does. NaN beats nothing."""
  if math.isnan(value) or best is None:
    return not math.isnan(value)
  return value < best if metric.endswith('loss') else value > best
