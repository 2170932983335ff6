"""The names in Google's published `.npz` files, of all their ages.

The keys are the paths of the parameter tree in the numbering of Flax's first
API, which the files were written with. Renaming those few keys is all.
"""

import re
from collections.abc import Collection, Mapping

import numpy as np

from vit_jax.checkpoints.arrays import StoredArray, by_name

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


def matches(keys: Collection[str]) -> bool:
  """Whether these are the keys of such a file."""
  return any('/' in key for key in keys)


def to_ours(
  arrays: Mapping[str, StoredArray],
  *,
  num_heads: int | None,
  source: str,
  num_patches: int | None = None,
) -> dict[str, StoredArray]:
  """Returns the arrays under the names and in the shapes of the models.

  Args:
    arrays: by the keys of the file, those of the weights alone.
    num_heads: not needed, as the file says it.
    source: the file, for the text of an error.
    num_patches: not needed, as these files always have the class token's slot.

  Raises:
    CheckpointError: an array is there twice, under its old and its new name.
  """
  del num_heads, num_patches
  return {
    key: array.map(lambda x: x.reshape(-1))
    if _GROUP_NORM_KEY.fullmatch(key) and array.shape[:-1] == (1, 1, 1)
    else array
    for key, array in _rename_to_current(arrays, source).items()
  }


def from_ours(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the arrays as the original and timm load them."""
  return {
    _rename(key, _LEGACY_NAMES): value.reshape(1, 1, 1, -1)
    if _GROUP_NORM_KEY.fullmatch(key)
    else value
    for key, value in arrays.items()
  }


def _rename_to_current(
  arrays: Mapping[str, StoredArray], source: str
) -> Mapping[str, StoredArray]:
  # Only the first API has an `MlpBlock_3`, so one such key tells the file's
  # age. Whatever else is odd keeps its name, to be reported as extra.
  if not any('/MlpBlock_3/' in key for key in arrays):
    return arrays
  return by_name(
    ((_rename(key, _CURRENT_NAMES), stored) for key, stored in arrays.items()),
    source,
  )


def _rename(key: str, names: Mapping[str, str]) -> str:
  match = _BLOCK_KEY.fullmatch(key)
  if not match:
    return key
  prefix, block, child, rest = match.groups()
  return f'{prefix or ""}{block}/{names.get(child, child)}/{rest}'
