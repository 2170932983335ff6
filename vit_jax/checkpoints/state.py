"""Training states on disk: Orbax, asynchronous, the newest and the best kept."""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from vit_jax import errors


@dataclasses.dataclass(frozen=True)
class Standing:
  """How a run stands at evaluations: what resuming needs beside the state.

  Attributes:
    best_value: the best metric so far, None before the first evaluation.
    best_step: the step that had it.
    num_stale: evaluations since then.
    stopped_early: whether the run is over because it ran out of patience.
  """

  best_value: float | None = None
  best_step: int | None = None
  num_stale: int = 0
  stopped_early: bool = False

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
    better = self.best_value is None or (
      _rank(metric, value) > _rank(metric, self.best_value)
    )
    if better:
      return Standing(value, step)
    num_stale = self.num_stale + 1
    return dataclasses.replace(
      self,
      num_stale=num_stale,
      stopped_early=0 < patience <= num_stale,
    )


class StateCheckpoints:
  """The checkpoints of one run.

  Use it as a context manager: leaving it waits for the last save, also when an
  exception is on its way.

  Args:
    directory: created if it isn't there.
    keep: how many of the newest to keep.
    best_metric: name of the metric whose best checkpoint is kept too, None for
      none. Names that end in 'loss' count as better when lower.
  """

  def __init__(
    self, directory: pathlib.Path, keep: int, best_metric: str | None
  ):
    keepers: list[Any] = [policies.LatestN(keep)]
    if best_metric:
      keepers.append(
        policies.BestN(
          get_metric_fn=lambda metrics: (
            _rank(best_metric, metrics[best_metric]),
            -metrics['step'],  # Of equals the first, as in `Standing`.
          ),
          n=1,
          keep_checkpoints_without_metrics=False,
        )
      )
    self._directory = directory
    self._manager = ocp.CheckpointManager(
      directory.absolute(),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(keepers),
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
      ),
      item_names=('state', 'standing'),
    )

  def __enter__(self) -> 'StateCheckpoints':
    return self

  def __exit__(self, *_):
    # Without the wait, the last save is lost while the exit code is 0.
    try:
      self._manager.wait_until_finished()
    finally:
      self._manager.close()

  def latest_step(self) -> int | None:
    """Returns the newest step that was saved whole, None if there is none."""
    return self._manager.latest_step()

  def save(
    self,
    step: int,
    state: Any,
    standing: Standing,
    metrics: Mapping[str, float] | None,
  ):
    """Starts saving a state; the caller may donate its arrays afterwards.

    Args:
      step: number of updates that the state has seen.
      state: tree of arrays.
      standing: saved beside it.
      metrics: of an evaluation at this step, if there was one.
    """
    saved = self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        standing=ocp.args.JsonSave(dataclasses.asdict(standing)),
      ),
      metrics=dict(metrics, step=step) if metrics else None,
    )
    assert saved, f'Orbax refused to save step {step}.'

  def restore(self, step: int, target: Any) -> tuple[Any, Standing]:
    """Reads a checkpoint.

    Args:
      step: one that was saved.
      target: tree of `jax.ShapeDtypeStruct`s with shardings.

    Returns:
      The state, on the devices that `target` says, and the standing.

    Raises:
      CheckpointError: the files are damaged.
    """
    args = ocp.args.Composite(
      state=ocp.args.StandardRestore(target), standing=ocp.args.JsonRestore()
    )
    try:
      items = self._manager.restore(step, args=args)
    except Exception as error:  # Orbax raises bare ones for truncated files.
      raise errors.CheckpointError(
        f'{self._directory / str(step)}: the checkpoint can not be read '
        f'({str(error).splitlines()[0]}). Remove that directory to continue '
        'from the checkpoint before it.'
      ) from error
    return items['state'], Standing(**items['standing'])

  def wait(self):
    """Returns once the last save is on disk."""
    self._manager.wait_until_finished()


def abstract_state(state: Any, shardings: Any) -> Any:
  """Returns shapes, dtypes and shardings of a state, to restore into.

  Args:
    state: tree of arrays or shapes.
    shardings: tree of the same structure.
  """
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharding
    ),
    state,
    shardings,
  )


def _rank(metric: str, value: float) -> float:
  """Returns a number that is higher for the better value."""
  if math.isnan(value):
    return -math.inf
  return -value if metric.endswith('loss') else value
