"""Reads and writes Google's `.npz` weight files.

The keys on disk are the paths of the parameter tree in the numbering of Flax's
first API, which the published files were written with. Renaming those few keys
is all that reading and writing do; fitting to a model is `adapt`'s work.
"""

import os
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
  flat = _rename_to_current(_without_optimizer(_read(os.fspath(path))))
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
  """
  flat = traverse_util.flatten_dict(dict(params), sep='/')
  arrays = {}
  for key, value in flat.items():
    value = np.asarray(value)
    if _GROUP_NORM_KEY.fullmatch(key):
      value = value.reshape(1, 1, 1, -1)
    arrays[_rename(key, _LEGACY_NAMES)] = value
  partial = f'{os.fspath(path)}.partial'
  with open(partial, 'wb') as file:
    np.savez(file, **arrays)
  os.replace(partial, path)


def _read(path: str) -> dict[str, np.ndarray]:
  """Returns the arrays of an `.npz` file, all unreadable ones in one error."""
  if not os.path.isfile(path):
    raise errors.CheckpointNotFoundError(
      f'No weight file at {path!r}. Expected an .npz file; see the README on '
      'where the published ones are.'
    )
  try:
    file = np.load(path, allow_pickle=False)
  except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
    raise errors.CheckpointError(
      f'{path}: not a readable .npz file ({error}). If it was downloaded, '
      'download it again.'
    ) from error
  if not isinstance(file, np.lib.npyio.NpzFile):
    raise errors.CheckpointError(
      f'{path}: holds a single array, expected an .npz archive of named arrays.'
    )
  arrays, problems = {}, []
  with file:
    for key in file.files:
      try:
        value = file[key]
      except (
        ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error
      ) as error:
        problems.append(f'  {key}: {error}')
        continue
      # numpy has no name for bfloat16 and stores it as two opaque bytes.
      if value.dtype == np.dtype('V2'):
        value = value.view(ml_dtypes.bfloat16)
      arrays[key] = value
  if problems:
    raise errors.CheckpointError(
      f'{path}: {len(problems)} arrays are damaged or not plain numbers; '
      'download or copy the file again:\n' + '\n'.join(problems)
    )
  return arrays


def _without_optimizer(flat: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  for prefix in _PREFIXES:
    if any(key.startswith(prefix) for key in flat):
      return {
        key.removeprefix(prefix): value
        for key, value in flat.items()
        if key.startswith(prefix)
      }
  return {k: v for k, v in flat.items() if not k.startswith('opt/')}


def _rename_to_current(flat: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  # `LayerNorm_1` is only a current name, so one block's keys tell the file's
  # age; a file that mixes both keeps its odd keys, to be reported as extra.
  if any('/MlpBlock_3/' in key for key in flat):
    return {_rename(key, _CURRENT_NAMES): flat[key] for key in flat}
  return flat


def _rename(key: str, names: Mapping[str, str]) -> str:
  match = _BLOCK_KEY.fullmatch(key)
  if not match:
    return key
  prefix, block, child, rest = match.groups()
  return f'{prefix or ""}{block}/{names.get(child, child)}/{rest}'
