"""Training states on disk by Orbax; the newest and the best are kept."""

import contextlib
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

from vit_jax import errors
from vit_jax.checkpoints import fallback, leftovers, packing, record, room
from vit_jax.checkpoints.fingerprint import fingerprints
from vit_jax.checkpoints.reasons import reason_of
from vit_jax.checkpoints.restore import abstract_state, read_state
from vit_jax.checkpoints.retention import Retention
from vit_jax.checkpoints.standing import Standing

__all__ = ['Standing', 'StateCheckpoints', 'abstract_state']


class StateCheckpoints:
  """The checkpoints of one run.

  Use it as a context manager: leaving it waits for the last save, also when an
  exception is on its way.

  Args:
    directory: created if it isn't there.
    keep: how many of the newest to keep.
    best_metric: name of the metric whose best checkpoint is kept too, by the
      `Standing` that is saved or was restored; None for none.
    settings: of the run, plain values, which are saved beside each state.
    is_held: whether the run's directory is still its own; None doesn't ask.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    keep: int,
    best_metric: str | None,
    *,
    settings: Mapping[str, Any] | None = None,
    is_held: Callable[[], bool] | None = None,
  ):
    self._settings = settings
    self._is_held = is_held
    self._retention = Retention(keep, with_best=bool(best_metric))
    self._directory = directory
    leftovers.drop()
    _remove_unfinished(directory)
    with self._writing():
      fallback.set_damaged_notes_aside(directory)
      self._manager = ocp.CheckpointManager(
        directory.absolute(),
        options=ocp.CheckpointManagerOptions(
          preservation_policy=self._retention.policy(),
          enable_async_checkpointing=True,
        ),
        item_names=('state', record.ITEM),
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
      CheckpointError: the save before this one failed, or this one can't start,
        or the directory is another run's by now.
    """
    self._retention.best_step = standing.best_step
    tree, contents = packing.pack(state)
    content = record.Record(
      step, standing, fingerprints(state), self._settings, contents
    )
    with self._writing():
      self._check_present()
      saved = self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(tree),
          standing=ocp.args.JsonSave(content.to_json()),
        ),
        custom_metadata=dict(metrics) if metrics else None,
      )
    if not saved:  # As Orbax does, in silence, of a step before the newest.
      raise errors.CheckpointError(
        f'{self._directory}: step {step} can not be saved, as step '
        f'{self.latest_step()} is there. Is another run writing here?'
      )

  def restore_newest(self, target: Any) -> tuple[int, Any, Standing] | None:
    """Reads the newest checkpoint that is what was saved.

    Newer ones, which are damaged, are moved aside as `STEP.corrupt`, and a
    warning says so. Where none is whole, nothing is moved.

    Args:
      target: tree of `jax.ShapeDtypeStruct`s with shardings.

    Returns:
      The step, the state, on the devices that `target` says, and the standing;
      None where there are no checkpoints.

    Raises:
      CheckpointError: none is whole, or the newest that is can't be read or is
        of another model or optimiser; the text says which.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    if not steps:
      return None
    found, damages = fallback.newest_whole(self._directory, steps, target)
    if damages:
      with self._writing():
        fallback.move_aside(self._directory, damages, found[0])
        self._manager.reload()  # It has a list of the steps.
    self._retention.best_step = found[2].best_step
    return found

  def restore(self, step: int, target: Any) -> tuple[Any, Standing]:
    """Reads one checkpoint.

    Args:
      step: one that was saved.
      target: tree of `jax.ShapeDtypeStruct`s with shardings.

    Returns:
      The state, on the devices that `target` says, and the standing.

    Raises:
      CheckpointError: it is damaged, can't be read or is of another model or
        optimiser; the text says which.
    """
    path = self._directory / str(step)
    try:
      return read_state(path, target)
    except record.DamagedError as error:
      raise errors.CheckpointError(
        f'{path}: the checkpoint is damaged ({error}). Put back a copy of it, '
        'or take the newest one: scripts/convert_checkpoint.py writes the '
        'weights of a run that has no model.npz.'
      ) from error

  def settings(self, step: int) -> Mapping[str, Any] | None:
    """Returns the settings that a checkpoint was saved with.

    Args:
      step: one that was restored.

    Returns:
      Plain values; None where an earlier version of this package, which didn't
      note them, saved it.
    """
    return record.read_record(self._directory / str(step)).settings

  def check_room(self, target: Any) -> None:
    """Finds out before the first save whether the disk has room.

    Args:
      target: the state as `jax.ShapeDtypeStruct`s.

    Raises:
      CheckpointError: not even for one checkpoint.
    """
    # One more than are kept, as the oldest goes when the newest is whole.
    num_more = self._retention.num_kept + 1 - len(self._manager.all_steps())
    room.check_room(self._directory, target, num_more)

  def wait(self):
    """Returns once the last save is on disk.

    Raises:
      CheckpointError: it isn't, because the disk is full or the like.
    """
    with self._writing():
      self._manager.wait_until_finished()
      self._check_present()

  def check_present(self) -> None:
    """Finds out whether the directory is still this run's.

    Raises:
      CheckpointError: it is gone, or is another run's by now.
    """
    with self._writing():
      self._check_present()

  def _check_present(self) -> None:
    # Orbax would make it again, and the run's other files would be missing.
    if not self._directory.is_dir():
      raise FileNotFoundError('the directory is gone')
    if self._is_held is not None and not self._is_held():
      raise errors.CheckpointError(
        f'{self._directory.parent} was replaced while this run was writing '
        'there: run.lock is gone, or is of another run. This one has stopped '
        'and left what is there alone. Name another directory: --workdir=DIR.'
      )

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except errors.CheckpointError:
      raise
    except Exception as error:  # Full disks come as several kinds.
      # What is raised then is about some file that was not found again.
      gone = '' if self._directory.is_dir() else 'the directory is gone'
      raise errors.CheckpointError(
        f'{self._directory}: a checkpoint can not be written '
        f'({gone or reason_of(error)}). Once it can, the same command goes on '
        'from the last one that is whole.'
      ) from error


def _remove_unfinished(directory: pathlib.Path) -> None:
  """Removes what saves that were cut short have left.

  Orbax would do it in a thread that a process which ends early doesn't wait
  for, and whose traceback is then the last thing that is seen.
  """
  if jax.process_index() == 0:
    for path in directory.glob('*.orbax-checkpoint-tmp*'):
      shutil.rmtree(path, ignore_errors=True)
