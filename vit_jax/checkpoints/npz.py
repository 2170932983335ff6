"""Reads and writes Google's `.npz` weight files.

The keys on disk are the paths of the parameter tree in the numbering of Flax's
first API, which the published files were written with. Renaming those few keys
is all that reading and writing do; fitting to a model is `adapt`'s work.
"""

import contextlib
import os
import pathlib
import re
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
from flax import traverse_util

from vit_jax import errors

# Inside an encoder block, first-API numbering -> current numbering. The first
# API counted all children together, the current one counts each class.
_CURRENT_NAMES = {
  'LayerNorm_0': 'LayerNorm_0',
  'MultiHeadDotProductAttention_1': 'MultiHeadDotProductAttention_0',
  'LayerNorm_2': 'LayerNorm_1',
  'MlpBlock_3': 'MlpBlock_0',
}
_LEGACY_NAMES = {new: old for old, new in _CURRENT_NAMES.items()}
_BLOCK_KEY = re.compile(r'(.*/)?(encoderblock_\d+)/([^/]+)/(.+)')
_GROUP_NORM_KEY = re.compile(r'(.*/)?gn(\d+|_root|_proj)/(scale|bias)')
# Training states keep the weights below one of these.
_PREFIXES = ('opt/target/', 'params/')
# What a flipped or missing byte surfaces as, depending on where it is.
_DAMAGE = (
  ValueError,
  OSError,
  EOFError,
  RuntimeError,
  MemoryError,
  zipfile.BadZipFile,
  zlib.error,
)


def load_params(path: str | os.PathLike) -> dict[str, Any]:
  """Reads a weight file into the model's names and shapes, nothing adapted.

  Args:
    path: a local `.npz` file: a published one, one with optimiser state around
      the weights, or one from `save_params`.

  Returns:
    The nested parameter dict, numpy arrays in the dtype of the file.

  Raises:
    CheckpointNotFoundError: there is no such file.
    CheckpointError: the file is not a readable `.npz` of plain arrays.
  """
  path = os.fspath(path)
  flat = _rename_to_current(_without_optimizer(_read(path)), path)
  flat = {
    key: value.reshape(-1)
    if _GROUP_NORM_KEY.fullmatch(key) and value.shape[:-1] == (1, 1, 1)
    else value
    for key, value in flat.items()
  }
  return traverse_util.unflatten_dict(flat, sep='/')


def save_params(params: Mapping[str, Any], path: str | os.PathLike) -> None:
  """Writes parameters in Google's layout, which the original and timm load.

  The file appears whole or not at all, and `load_params` gives back the same
  bits.

  Args:
    params: the nested parameter dict of a ViT or hybrid.
    path: where to write; the name should end in `.npz`.

  Raises:
    CheckpointError: a value is not an array of numbers, or the file can't be
      written.
  """
  flat = traverse_util.flatten_dict(dict(params), sep='/')
  arrays = {}
  for key, value in flat.items():
    value = np.asarray(value)
    if value.dtype.hasobject:
      raise errors.CheckpointError(
        f'{os.fspath(path)}: not written, {key} is a '
        f'{type(flat[key]).__name__}, expected an array of numbers.'
      )
    if _GROUP_NORM_KEY.fullmatch(key):
      value = value.reshape(1, 1, 1, -1)
    arrays[_rename(key, _LEGACY_NAMES)] = value
  partial = f'{os.fspath(path)}.partial'
  try:
    with open(partial, 'wb') as file:
      np.savez(file, **arrays)
    os.replace(partial, path)
  except OSError as error:
    raise errors.CheckpointError(
      f'{os.fspath(path)}: the weights can not be written '
      f'({error.strerror or error}). Expected a directory that is there, with '
      'room on its disk; make some or write elsewhere.'
    ) from error
  finally:  # A full disk must not be left fuller.
    with contextlib.suppress(OSError):
      pathlib.Path(partial).unlink(missing_ok=True)


def _read(path: str) -> dict[str, np.ndarray]:
  """Returns the arrays of an `.npz` file, all unreadable ones in one error."""
  if not os.path.isfile(path):
    raise errors.CheckpointNotFoundError(
      f'No weight file at {path!r}. Expected an .npz file; see the README on '
      'where the published ones are.'
    )
  arrays, problems = {}, []
  try:
    with open(path, 'rb') as file:  # np.load leaves a damaged one open.
      archive = np.load(file, allow_pickle=False)
      is_archive = isinstance(archive, np.lib.npyio.NpzFile)
      for key in archive.files if is_archive else ():
        value = _read_array(archive, key)
        if isinstance(value, np.ndarray):
          arrays[key] = value
        else:
          problems.append(f'  {key}: {value}')
  except _DAMAGE as error:
    raise errors.CheckpointError(
      f'{path}: not a readable .npz file ({error}). If it was downloaded, '
      'download it again.'
    ) from error
  if not is_archive:
    raise errors.CheckpointError(
      f'{path}: holds a single array, expected an .npz archive of named arrays.'
    )
  if problems:
    raise errors.CheckpointError(
      f'{path}: {len(problems)} arrays are damaged or not plain numbers; '
      'download or copy the file again:\n' + '\n'.join(problems)
    )
  return arrays


def _read_array(archive: Any, key: str) -> np.ndarray | str:
  """Returns an array, or what is wrong with it."""
  try:
    value = archive[key]
  except _DAMAGE as error:
    return str(error)
  if not isinstance(value, np.ndarray):  # Any zip file gets this far.
    return 'not an array'
  # numpy has no name for bfloat16 and stores it as two opaque bytes.
  if value.dtype == np.dtype('V2'):
    return value.view(ml_dtypes.bfloat16)
  return value


def _without_optimizer(flat: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  for prefix in _PREFIXES:
    if any(key.startswith(prefix) for key in flat):
      return {
        key.removeprefix(prefix): value
        for key, value in flat.items()
        if key.startswith(prefix)
      }
  return {k: v for k, v in flat.items() if not k.startswith('opt/')}


def _rename_to_current(
  flat: dict[str, np.ndarray], path: str
) -> dict[str, np.ndarray]:
  # Only the first API has an `MlpBlock_3`, so one such key tells the file's
  # age. Whatever else is odd keeps its name, to be reported as extra.
  if not any('/MlpBlock_3/' in key for key in flat):
    return flat
  old_names, twice = {}, []
  for key in flat:
    name = _rename(key, _CURRENT_NAMES)
    if name in old_names:
      twice.append(f'  {old_names[name]} and {key}')
    old_names[name] = key
  if twice:
    raise errors.CheckpointError(
      f'{path}: expected one array for each parameter, found two, under the '
      'legacy and the current name; remove one of each:\n' + '\n'.join(twice)
    )
  return {name: flat[key] for name, key in old_names.items()}


def _rename(key: str, names: Mapping[str, str]) -> str:
  match = _BLOCK_KEY.fullmatch(key)
  if not match:
    return key
  prefix, block, child, rest = match.groups()
  return f'{prefix or ""}{block}/{names.get(child, child)}/{rest}'
