"""The parameters in one checkpoint of a run, without its moments."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util

from vit_jax.checkpoints import leftovers, packing
from vit_jax.checkpoints.fingerprint import fingerprints, shape_of
from vit_jax.checkpoints.record import DamagedError, Record

_FIELD = 'params/'  # Of the state.


def shapes(path: pathlib.Path, record: Record) -> dict[str, Any]:
  """Returns `jax.ShapeDtypeStruct`s by the names of the parameters.

  Args:
    path: the state in a checkpoint.
    record: what lies beside it.

  Raises:
    DamagedError: it was saved at another step; else whatever Orbax raises.
  """
  if record.step not in (None, int(path.parent.name)):
    raise DamagedError(f'it is of step {record.step}')
  # Also where the record knows: it can't be read where the arrays can't.
  metadata: Any = ocp.StandardCheckpointHandler().metadata(path.absolute())
  if record.packed and record.arrays:
    return {
      name.removeprefix(_FIELD): shape_of(fingerprint)
      for name, fingerprint in record.arrays.items()
      if name.startswith(_FIELD)
    }
  params: dict[str, Any] = metadata.tree['params']
  leaves: dict[str, Any] = traverse_util.flatten_dict(params, sep='/')
  return {
    name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    for name, leaf in leaves.items()
  }


def read(
  path: pathlib.Path, record: Record, shapes: Mapping[str, Any]
) -> dict[str, Any]:
  """Returns the parameters as arrays on the host; raises whatever Orbax does.

  Args:
    path: the state in a checkpoint.
    record: what lies beside it.
    shapes: as the function of that name gave them, of all parameters.
  """
  leftovers.drop()
  target = {'params': traverse_util.unflatten_dict(shapes, sep='/')}
  contents = {
    key: names
    for key, names in (record.packed or {}).items()
    if names[0].startswith(_FIELD)
  }
  saved = packing.packed_target(target, contents)
  with ocp.PyTreeCheckpointer() as checkpointer:
    tree = checkpointer.restore(
      path.absolute(),
      args=ocp.args.PyTreeRestore(
        saved,
        restore_args=jax.tree.map(
          lambda leaf: ocp.RestoreArgs(np.ndarray, dtype=leaf.dtype), saved
        ),
        partial_restore=True,
      ),
    )
  params = packing.unpack(tree, contents, target)['params']
  return traverse_util.flatten_dict(params, sep='/')


def check(record: Record, name: str, array: np.ndarray) -> None:
  """Raises DamagedError where a parameter is not what was saved."""
  if record.arrays is None:
    return
  found = fingerprints({name: array})[name]
  if found != record.arrays.get(f'{_FIELD}{name}'):
    raise DamagedError('it is not what was saved')
