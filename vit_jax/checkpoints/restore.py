"""Reads one training state and makes sure that it is what was saved."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from vit_jax import errors
from vit_jax.checkpoints import leftovers, packing
from vit_jax.checkpoints.fingerprint import fingerprints, named_leaves, spec
from vit_jax.checkpoints.reasons import is_damage, reason_of
from vit_jax.checkpoints.record import DamagedError, Record, read_record
from vit_jax.checkpoints.standing import Standing

_MAX_NAMED = 5  # Arrays that differ; as a rule all do.


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


def read_state(checkpoint: pathlib.Path, target: Any) -> tuple[Any, Standing]:
  """Reads a checkpoint and compares it with its fingerprints.

  All processes call it, and either all return or all raise the same kind.

  Args:
    checkpoint: the directory of a step.
    target: tree of `jax.ShapeDtypeStruct`s with shardings.

  Returns:
    The state, on the devices that `target` says, and the standing.

  Raises:
    DamagedError: it is not what was saved.
    CheckpointError: it is of another model or optimiser, or can't be read for
      a reason that says nothing of it, such as memory that is full.
  """
  record, state = _on_all_processes(lambda: _read(checkpoint, target))
  if record.arrays is not None:
    wrong = differing_names(record.arrays, fingerprints(state))
    if wrong:
      raise DamagedError(f'not what was saved: {_listed(wrong)}')
  return state, record.standing


def differing_names(
  one: Mapping[str, str], other: Mapping[str, str]
) -> list[str]:
  """Returns the keys, sorted, whose values are not the same in both."""
  return [
    name for name in sorted({*one, *other}) if one.get(name) != other.get(name)
  ]


def _read(checkpoint: pathlib.Path, target: Any) -> tuple[Record, Any]:
  """Does what `read_state` says for this process, but for the comparison."""
  try:
    record = read_record(checkpoint)
    _check_fit(checkpoint, record, target)
    if record.step not in (None, int(checkpoint.name)):
      raise DamagedError(f'it is of step {record.step}')
    return record, _read_arrays(checkpoint.absolute() / 'state', record, target)
  except (DamagedError, errors.CheckpointError):
    raise
  except Exception as error:  # Orbax raises whatever it meets.
    if is_damage(error):
      raise DamagedError(reason_of(error)) from error
    raise errors.CheckpointError(
      f'{checkpoint}: the checkpoint can not be read '
      f'({reason_of(error)}), for a reason that need not be damage. '
      'Once it can, the same command goes on from it.'
    ) from error


def _read_arrays(path: pathlib.Path, record: Record, target: Any) -> Any:
  leftovers.drop()
  # Not by the manager, whose processes would wait for one that failed.
  handler = ocp.StandardCheckpointHandler()
  contents, saved = record.packed, target
  if contents is not None:
    saved = packing.packed_target(target, contents)
  try:
    state = handler.restore(path, args=ocp.args.StandardRestore(saved))
  finally:
    handler.close()
  if contents is not None:
    state = packing.unpack(state, contents, target)
  return jax.block_until_ready(state)


def _check_fit(checkpoint: pathlib.Path, record: Record, target: Any) -> None:
  """Raises CheckpointError where what was saved are other arrays.

  Orbax would cast a dtype in silence, and a shape looks like damage there.
  """
  if record.arrays is not None:
    found = {k: v.rpartition(' ')[0] for k, v in record.arrays.items()}
  else:
    try:
      metadata = ocp.StandardCheckpointHandler().metadata(
        checkpoint.absolute() / 'state'
      )
      found = _specs(metadata.tree)
    except Exception:  # Damage, whatever Orbax makes of it; reading tells.
      return
  wanted = _specs(target)
  lines = [
    f'  {name}: {found.get(name, "nothing")} there, '
    f'{wanted.get(name, "nothing")} now'
    for name in differing_names(found, wanted)
  ]
  if lines:
    more = len(lines) - _MAX_NAMED
    raise errors.CheckpointError(
      f'{checkpoint}: the checkpoint is whole, but of another model or '
      'optimizer:\n'
      + '\n'.join(lines[:_MAX_NAMED])
      + (f'\n  and {more} more' if more > 0 else '')
      + '\nContinue it with the settings and the version of this package that '
      'it was saved with, or name another directory: --workdir=DIR.'
    )


def _specs(tree: Any) -> dict[str, str]:
  return {name: spec(leaf) for name, leaf in named_leaves(tree)}


def _listed(names: list[str]) -> str:
  more = len(names) - _MAX_NAMED
  listed = ', '.join(names[:_MAX_NAMED])
  return listed + (f' and {more} more' if more > 0 else '')


def _on_all_processes(read: Callable[[], Any]) -> Any:
  """Returns `read()`, or raises where it does on any process.

  Each reads its own part, and what one finds must be known to all before they
  begin what they do together.
  """
  error = result = None
  try:
    result = read()
  except (DamagedError, errors.CheckpointError) as raised:
    error = raised
  if jax.process_count() > 1:
    kind = {type(None): 0, DamagedError: 1}.get(type(error), 2)
    kinds = multihost_utils.process_allgather(np.int32(kind))
    worst = int(kinds.max())
    if worst > kind:
      text = f'process {int(kinds.argmax())} can not read its part'
      error = DamagedError(text) if worst == 1 else errors.CheckpointError(text)
  if error is not None:
    raise error
  return result
