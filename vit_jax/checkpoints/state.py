"""Training states on disk by Orbax; the newest and the best are kept."""

import contextlib
import dataclasses
import math
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from vit_jax import errors

_MAX_NAMED = 5  # Arrays that differ; as a rule all do.


@dataclasses.dataclass(frozen=True)
class Standing:
  """How a run stands at evaluations: what resuming needs beside the state.

  Attributes:
    best_value: the best metric so far, None before the first that is a number.
    best_step: the first step that had it.
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
    if _is_better(metric, value, self.best_value):
      return Standing(value, step)
    num_stale = self.num_stale + 1
    return dataclasses.replace(
      self,
      num_stale=num_stale,
      stopped_early=0 < patience <= num_stale,
    )


@dataclasses.dataclass
class _KeepBest:
  """Tells Orbax to keep the checkpoint that `Standing` calls the best.

  Orbax's own policy for that forgets the metrics when a run is continued.
  """

  step: int | None = None

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> Sequence[bool]:
    del context
    return [checkpoint.step == self.step for checkpoint in checkpoints]


class StateCheckpoints:
  """The checkpoints of one run.

  Use it as a context manager: leaving it waits for the last save, also when an
  exception is on its way.

  Args:
    directory: created if it isn't there.
    keep: how many of the newest to keep.
    best_metric: name of the metric whose best checkpoint is kept too, by the
      `Standing` that is saved or was restored; None for none.
  """

  def __init__(
    self, directory: pathlib.Path, keep: int, best_metric: str | None
  ):
    self._best = _KeepBest()
    keepers: list[Any] = [policies.LatestN(keep)]
    if best_metric:
      keepers.append(self._best)
    self._directory = directory
    _remove_leftovers(directory)
    self._manager = ocp.CheckpointManager(
      directory.absolute(),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(keepers),
        enable_async_checkpointing=True,
      ),
      item_names=('state', 'standing'),
    )

  def __enter__(self) -> 'StateCheckpoints':
    return self

  def __exit__(self, *_):
    with self._writing():
      # It waits, without which the last save is lost and the exit code is 0.
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
      metrics: of an evaluation at this step, if there was one; for whoever
        looks into the checkpoint.

    Raises:
      CheckpointError: the save before this one failed, or this one can't start.
    """
    self._best.step = standing.best_step
    with self._writing():
      saved = self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state),
          standing=ocp.args.JsonSave(dataclasses.asdict(standing)),
        ),
        custom_metadata=dict(metrics) if metrics else None,
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
      CheckpointError: the files are damaged, or whole but of another model or
        optimiser; the text says which.
    """
    path = self._directory / str(step)
    _check_fit(path, target)
    args = ocp.args.Composite(
      state=ocp.args.StandardRestore(target), standing=ocp.args.JsonRestore()
    )
    try:
      items = self._manager.restore(step, args=args)
      standing = Standing(**items['standing'])
    except Exception as error:  # Orbax raises bare ones for truncated files.
      raise errors.CheckpointError(
        f'{path}: the checkpoint can not be read '
        f'({errors.first_line(error)}). Remove that directory to continue from '
        'the checkpoint before it.'
      ) from error
    self._best.step = standing.best_step
    return items['state'], standing

  def wait(self):
    """Returns once the last save is on disk.

    Raises:
      CheckpointError: it isn't, because the disk is full or the like.
    """
    with self._writing():
      self._manager.wait_until_finished()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except Exception as error:  # Full disks come as several kinds.
      raise errors.CheckpointError(
        f'{self._directory}: a checkpoint can not be written '
        f'({errors.first_line(error)}). Once it can, the same command goes on '
        'from the last one that is whole.'
      ) from error


def _remove_leftovers(directory: pathlib.Path) -> None:
  """Removes what saves that were cut short have left.

  Orbax would do it in a thread that a process which ends early doesn't wait
  for, and whose traceback is then the last thing that is seen.
  """
  if jax.process_index() == 0:
    for path in directory.glob('*.orbax-checkpoint-tmp*'):
      shutil.rmtree(path, ignore_errors=True)


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


def _check_fit(path: pathlib.Path, target: Any) -> None:
  """Raises CheckpointError where what was saved are other arrays.

  Orbax would cast a dtype in silence, and a shape looks like damage there.
  """
  try:
    metadata = ocp.StandardCheckpointHandler().metadata(
      path.absolute() / 'state'
    )
    found = _arrays(metadata.tree)
  except Exception:  # Damage, whatever Orbax makes of it; reading tells.
    return
  wanted = _arrays(target)
  differing = [
    f'  {name}: {found.get(name, "nothing")} there, '
    f'{wanted.get(name, "nothing")} now'
    for name in sorted({*found, *wanted})
    if found.get(name) != wanted.get(name)
  ]
  if differing:
    more = len(differing) - _MAX_NAMED
    raise errors.CheckpointError(
      f'{path}: the checkpoint is whole, but of another model or optimizer:\n'
      + '\n'.join(differing[:_MAX_NAMED])
      + (f'\n  and {more} more' if more > 0 else '')
      + '\nContinue it with the settings and the version of this package that '
      'it was saved with, or name another directory: --workdir=DIR.'
    )


def _arrays(tree: Any) -> dict[str, str]:
  """Returns {'params/head/bias': 'float32[10]', ...}."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    # Orbax gives fields as keys, so only the names can be compared.
    jax.tree_util.keystr(path, simple=True, separator='/'): (
      f'{np.dtype(leaf.dtype)}{[*leaf.shape]}'
    )
    for path, leaf in leaves
    if hasattr(leaf, 'shape')
  }


def _is_better(metric: str, value: float, best: float | None) -> bool:
  """Whether `value` beats `best`; of a loss, lower does. NaN beats nothing."""
  if math.isnan(value) or best is None:
    return not math.isnan(value)
  return value < best if metric.endswith('loss') else value > best
