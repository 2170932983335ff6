"""Reads the parameters of a run that hasn't finished, from its checkpoints."""

import contextlib
import functools
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from vit_jax import errors
from vit_jax.checkpoints.arrays import (
  DamagedArrayError,
  StoredArray,
  StoredFile,
)


@contextlib.contextmanager
def open_newest_state(run: pathlib.Path) -> Iterator[StoredFile]:
  """Opens the parameters in the newest checkpoint of a run directory.

  Raises:
    CheckpointNotFoundError: it has none.
    CheckpointError: the newest one can't be read.
  """
  # What Orbax hasn't finished has a longer name.
  steps = [int(p.name) for p in run.glob('checkpoints/*') if p.name.isdecimal()]
  if not steps:
    raise errors.CheckpointNotFoundError(
      f'{run} has neither a model.npz nor checkpoints. Expected the directory '
      'of a run (--workdir), or a weight file.'
    )
  path = run / 'checkpoints' / str(max(steps)) / 'state'
  try:
    shapes = _saved_shapes(path)
  except Exception as error:  # Orbax raises whatever it meets.
    raise errors.CheckpointError(
      f'{path}: the checkpoint can not be read ({errors.first_line(error)}). '
      'Remove that directory to take the checkpoint before it.'
    ) from error
  values, lock = functools.cache(lambda: _read(path, shapes)), threading.Lock()

  def load(key: str) -> np.ndarray:
    try:
      with lock:  # Orbax reads all at once.
        return np.asarray(values()[key])
    except Exception as error:  # As above.
      raise DamagedArrayError(errors.first_line(error)) from error

  yield StoredFile(
    str(path),
    {
      key: StoredArray(
        key,
        tuple(leaf.shape),
        np.dtype(leaf.dtype),
        functools.partial(load, key),
      )
      for key, leaf in shapes.items()
    },
  )


def _saved_shapes(path: pathlib.Path) -> dict[str, Any]:
  import orbax.checkpoint as ocp
  from flax import traverse_util

  metadata: Any = ocp.StandardCheckpointHandler().metadata(path.absolute())
  return traverse_util.flatten_dict(metadata.tree['params'], sep='/')


def _read(path: pathlib.Path, shapes: dict[str, Any]) -> dict[str, Any]:
  import jax
  import orbax.checkpoint as ocp
  from flax import traverse_util

  target = {
    'params': traverse_util.unflatten_dict(
      {
        key: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for key, leaf in shapes.items()
      },
      sep='/',
    )
  }
  with ocp.PyTreeCheckpointer() as checkpointer:
    tree = checkpointer.restore(
      path.absolute(),
      args=ocp.args.PyTreeRestore(
        target,
        restore_args=jax.tree.map(
          lambda leaf: ocp.RestoreArgs(np.ndarray, dtype=leaf.dtype), target
        ),
        partial_restore=True,
      ),
    )
  params: dict[str, Any] = tree['params']
  return traverse_util.flatten_dict(params, sep='/')
