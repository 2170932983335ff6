"""Weight files of any container, under our names."""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vit_jax import errors, whole_files
from vit_jax.checkpoints import names as file_names
from vit_jax.checkpoints.arrays import StoredFile, is_float
from vit_jax.checkpoints.names import heads
from vit_jax.checkpoints.npz import open_npz, write_npz
from vit_jax.checkpoints.run_state import open_newest_state
from vit_jax.checkpoints.safetensors import (
  open_safetensors,
  refuse_pickle,
  write_safetensors,
)

# Suffix -> the names that such a file can have, the usual ones first.
_NAMES = {
  '.npz': ('google',),
  '.safetensors': ('timm', 'transformers', 'google'),
}
_NUM_FIRST_BYTES = 4096  # Enough to tell what a file is.


@contextlib.contextmanager
def open_file(path: str | os.PathLike) -> Iterator[StoredFile]:
  """Opens a weight file, whose content tells what it is.

  Args:
    path: an `.npz` or `.safetensors` file, or a run directory, of which the
      `model.npz` is taken, or, before it is there, the newest checkpoint.

  Raises:
    CheckpointNotFoundError: there is none of these.
    CheckpointError: it is none of these, or damaged.
  """
  path = os.fspath(path)
  if os.path.isdir(path):
    exported = pathlib.Path(path) / 'model.npz'
    if not exported.is_file():
      with open_newest_state(pathlib.Path(path)) as stored:
        yield stored
      return
    path = str(exported)
  if not os.path.isfile(path):
    raise errors.CheckpointNotFoundError(
      f'No weight file at {path!r}. Expected an .npz or .safetensors file or a '
      'run directory; docs/checkpoints.md says where the published ones are.'
    )
  first_bytes = _first_bytes(path)
  refuse_pickle(first_bytes, path)
  is_safetensors = path.endswith('.safetensors') or (
    not path.endswith('.npz') and first_bytes[8:9] == b'{'
  )
  with (open_safetensors if is_safetensors else open_npz)(path) as stored:
    yield stored


@contextlib.contextmanager
def open_weights(
  path: str | os.PathLike,
  num_heads: int | None = None,
  num_patches: int | None = None,
) -> Iterator[StoredFile]:
  """Opens a weight file and gives its arrays our names and shapes.

  Args:
    path: as for `open_file`.
    num_heads: for files that don't say it; None takes it from the width, as
      published models have it.
    num_patches: of the model that the weights are for, which tells whether a
      file has a slot for the class token among the position embeddings; None
      tells it by what is a square.

  Raises:
    CheckpointNotFoundError: there is none.
    CheckpointError: it is damaged, or has keys that no family of names has.
  """
  with open_file(path) as stored:
    arrays = file_names.to_ours(
      stored.arrays,
      num_heads=num_heads,
      num_patches=num_patches,
      metadata=stored.metadata,
      source=stored.path,
    )
    yield StoredFile(stored.path, arrays, stored.metadata)


def write_file(
  arrays: Mapping[str, Any], path: str | os.PathLike, names: str | None = None
) -> None:
  """Writes a weight file, which appears whole or not at all.

  The same arrays give the same bytes.

  Args:
    arrays: by our names.
    path: ends in `.npz` or `.safetensors`.
    names: 'google', 'timm' or 'transformers'; None for the usual ones of the
      container: Google's in `.npz`, timm's in `.safetensors`.

  Raises:
    CheckpointError: a value is not an array of floating-point numbers, the
      names have none for it or none in that container, or the file can't be
      written.
  """
  path = os.fspath(path)
  suffix = pathlib.Path(path).suffix
  names = _names_for(suffix, names, path)
  values = _as_floats(arrays, path)
  renamed = file_names.from_ours(values, names)
  try:
    with (
      whole_files.replacing(pathlib.Path(path)) as partial,
      partial.open('wb') as file,
    ):
      if suffix == '.npz':
        write_npz(renamed, file)
      else:
        write_safetensors(renamed, file, heads.to_metadata(values))
  except OSError as error:
    raise errors.CheckpointError(
      f'{path}: the weights can not be written '
      f'({error.strerror or error}). Expected a directory that is there, with '
      'room on its disk; make some or write elsewhere.'
    ) from error


def _names_for(suffix: str, names: str | None, path: str) -> str:
  """Returns the names to write, which are those that the container can have."""
  if suffix not in _NAMES:
    raise errors.CheckpointError(
      f'{path}: not written, as the name says of no format. Expected one that '
      f'ends in {" or ".join(_NAMES)}.'
    )
  names = names or _NAMES[suffix][0]
  if names not in _NAMES[suffix] and names in file_names.WRITERS:
    raise errors.CheckpointError(
      f'{path}: not written, as with the names of {names} it would not say how '
      'many attention heads there are. Write them to a .safetensors file.'
    )
  return names


def _as_floats(arrays: Mapping[str, Any], path: str) -> dict[str, np.ndarray]:
  values = {key: np.asarray(value) for key, value in arrays.items()}
  odd = [
    f'{key} is a {type(arrays[key]).__name__} of {value.dtype}'
    for key, value in values.items()
    if not is_float(value.dtype)
  ]
  if odd or not values:
    raise errors.CheckpointError(
      f'{path}: not written, {"; ".join(odd) or "there is nothing to write"}. '
      'Expected arrays of floating-point numbers.'
    )
  return values


def _first_bytes(path: str) -> bytes:
  with open(path, 'rb') as file:
    return file.read(_NUM_FIRST_BYTES)
