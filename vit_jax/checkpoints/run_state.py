"""Reads the parameters of a run that hasn't finished, from its checkpoints."""

import contextlib
import functools
import pathlib
import re
import threading
from collections.abc import Iterator, Mapping

import numpy as np

from vit_jax import errors
from vit_jax.checkpoints.arrays import (
  DamagedArrayError,
  StoredArray,
  StoredFile,
)
from vit_jax.checkpoints.record import read_record

# Blocks that are scanned have one array for all; the models' names for them.
_STACKED = re.compile(r'(.*\b(?:encoderblock|MixerBlock))/(.+)')
_MAX_LAYERS = 1_000  # What claims more is damage.


@contextlib.contextmanager
def open_newest_state(run: pathlib.Path) -> Iterator[StoredFile]:
  """Opens the parameters in the newest checkpoint of a run directory.

  They are in the published layout, also where the state has blocks stacked.

  Raises:
    CheckpointNotFoundError: it has none.
    CheckpointError: the newest one can't be read, or, as soon as its arrays
      are, it is not what was saved.
  """
  # What Orbax hasn't finished has a longer name.
  steps = [int(p.name) for p in run.glob('checkpoints/*') if p.name.isdecimal()]
  if not steps:
    raise errors.CheckpointNotFoundError(
      f'{run} has neither a model.npz nor checkpoints. Expected the directory '
      'of a run (--workdir), or a weight file.'
    )
  from vit_jax.checkpoints import saved_params  # It imports JAX.

  path = run / 'checkpoints' / str(max(steps)) / 'state'
  try:
    record = read_record(path.parent)
    shapes = saved_params.shapes(path, record)
  except Exception as error:  # Orbax raises whatever it meets.
    raise errors.CheckpointError(
      f'{path}: the checkpoint can not be read ({errors.first_line(error)}). '
      'Move that directory away to take the checkpoint before it.'
    ) from error
  values = functools.cache(lambda: saved_params.read(path, record, shapes))
  lock = threading.Lock()

  def load(key: str) -> np.ndarray:
    try:
      with lock:  # Orbax reads all at once.
        array = np.asarray(values()[key])
      saved_params.check(record, key, array)
      return array
    except Exception as error:  # As above.
      raise DamagedArrayError(errors.first_line(error)) from error

  arrays = {
    key: StoredArray(
      key, tuple(leaf.shape), np.dtype(leaf.dtype), functools.partial(load, key)
    )
    for key, leaf in shapes.items()
  }
  yield StoredFile(str(path), dict(_by_layer(arrays, path)))


def _by_layer(
  arrays: Mapping[str, StoredArray], path: pathlib.Path
) -> Iterator[tuple[str, StoredArray]]:
  """Yields names and arrays, one a layer where one array is of all layers."""
  for key, array in arrays.items():
    match = _STACKED.fullmatch(key)
    if not match:
      yield key, array
      continue
    depth = array.shape[0] if array.shape else 0
    if not 0 < depth <= _MAX_LAYERS:
      raise errors.CheckpointError(
        f'{path}: {key} has the shape {array.shape}, expected the number of '
        f'layers first, from 1 to {_MAX_LAYERS:,}. Move that directory away to '
        'take the checkpoint before it.'
      )
    for i in range(depth):
      yield f'{match[1]}_{i}/{match[2]}', array.map(lambda x, i=i: x[i])
