"""Steps back to the newest checkpoint that is whole; damaged ones are kept."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from vit_jax import errors
from vit_jax.checkpoints.record import DamagedError
from vit_jax.checkpoints.restore import read_state
from vit_jax.checkpoints.standing import Standing

_NOTES = '_CHECKPOINT_METADATA'  # Orbax's, in the directory of each step.


def newest_whole(
  directory: pathlib.Path, steps: Sequence[int], target: Any
) -> tuple[tuple[int, Any, Standing], dict[int, str]]:
  """Reads the first checkpoint of `steps` that is what was saved.

  Args:
    directory: of the checkpoints.
    steps: that are there, the newest first; at least one.
    target: tree of `jax.ShapeDtypeStruct`s with shardings.

  Returns:
    (step, state, standing), and what is wrong with those before it, by step.

  Raises:
    CheckpointError: none is whole, or the first that is can't be read or is of
      another model or optimiser.
  """
  damages: dict[int, str] = {}
  for step in steps:
    try:
      return (step, *read_state(directory / str(step), target)), damages
    except DamagedError as error:
      damages[step] = str(error)
  # They stay where they are: without them, a restart would begin at step 1.
  raise errors.CheckpointError(
    f'{directory}: no checkpoint is whole:\n'
    + ''.join(f'  {step}: {text}\n' for step, text in damages.items())
    + 'Put a copy of one back, or begin anew: move that directory away, or '
    'name another one, --workdir=DIR.'
  )


def move_aside(
  directory: pathlib.Path, damages: Mapping[int, str], good_step: int
) -> None:
  """Renames damaged checkpoints to `STEP.corrupt`, and says so.

  Args:
    directory: of the checkpoints.
    damages: what is wrong with them, by step.
    good_step: which the run goes on from.

  Raises:
    OSError: they can't be renamed.
  """
  if jax.process_index() == 0:
    for step, text in damages.items():
      path = directory / str(step)
      aside = path.rename(_free_name(path))
      logging.warning(
        '%s is damaged: %s. It is %s now, and the run goes on from step %d.',
        path,
        text,
        aside.name,
        good_step,
      )
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('damaged checkpoints are aside')


def set_damaged_notes_aside(directory: pathlib.Path) -> None:
  """Renames Orbax's own notes where they are damaged, and says so.

  Nothing is restored from them, but Orbax reads them, and opens no checkpoint
  of a directory where those of one are damaged.

  Args:
    directory: of the checkpoints.

  Raises:
    OSError: they can't be renamed.
  """
  # One process alone: another might read what is being renamed.
  if jax.process_index() == 0:
    names = ocp.path.step.standard_name_format()
    for notes in directory.glob(f'*/{_NOTES}'):
      if not notes.parent.name.isdecimal():
        continue
      try:
        _ = names.find_step(directory, int(notes.parent.name)).commit_timestamp
      except OSError:
        raise
      except Exception:  # Of damage it raises many kinds.
        aside = notes.rename(_free_name(notes))
        logging.warning(
          "%s is damaged. It is %s now; of Orbax's notes nothing is restored.",
          notes,
          aside.name,
        )
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('damaged notes are aside')


def _free_name(path: pathlib.Path) -> pathlib.Path:
  """Returns 7.corrupt for 7, or, where that is taken, 7.corrupt2 and so on."""
  for count in itertools.count(1):
    suffix = '.corrupt' if count == 1 else f'.corrupt{count}'
    free = path.with_name(path.name + suffix)
    if not free.exists():
      return free
  raise AssertionError('unreachable')
