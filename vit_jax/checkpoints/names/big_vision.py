"""The names in big_vision's `.npz` files, where they differ from Google's.

Blocks are named as ours are, in one of three layouts: one entry a block, all
blocks stacked by a scan, or, in old files, the first API's numbering. The
position embedding has been in three places, and has had a class slot or none.
Mixers, and models with none of what is renamed here, have Google's names.
"""

import dataclasses
import math
import re
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from vit_jax import errors
from vit_jax.checkpoints.arrays import StoredArray, by_name
from vit_jax.checkpoints.names import google

_IMAGE_TOWER = 'img/'
_STACK = 'Transformer/encoderblock/'
# Newest last; the first two have been Google's and big_vision's before 2022.
_POSITION_KEYS = (
  'Transformer/posembed_input/pos_embedding',
  'Transformer/pos_embedding',
  'pos_embedding',
)
# While ViT-G was made, what is `MAPHead_0/...` now stood at the top.
_INLINED_HEAD = re.compile(
  r'(MultiHeadDotProductAttention|LayerNorm|MlpBlock)_\d+/(.+)'
)
_MAX_LAYERS = 1_000


def matches(keys: Collection[str]) -> bool:
  """Whether these are the keys of such a file."""
  names = {key.removeprefix(_IMAGE_TOWER) for key in keys}
  return any(
    key.startswith((_IMAGE_TOWER, _STACK)) for key in keys
  ) or not names.isdisjoint({*_POSITION_KEYS[1:], 'probe'})


def to_ours(
  arrays: Mapping[str, StoredArray], *, num_heads: int | None, source: str
) -> dict[str, StoredArray]:
  """Returns the arrays under the names and in the shapes of the models.

  Of a file with several towers, the image's is taken: the others are another
  model's.

  Args:
    arrays: by the keys of the file, those of the weights alone.
    num_heads: not needed, as the file says it.
    source: the file, for the text of an error.

  Raises:
    CheckpointError: stacked blocks of different numbers, or an array is there
      twice, under its old and its new name.
  """
  if any(key.startswith(_IMAGE_TOWER) for key in arrays):
    arrays = {
      key.removeprefix(_IMAGE_TOWER): array
      for key, array in arrays.items()
      if key.startswith(_IMAGE_TOWER)
    }
  entries = [*_unstacked(arrays, source)]
  if 'probe' in arrays:
    entries = [(_inside_head(name), array) for name, array in entries]
  flat = google.to_ours(
    by_name(entries, source), num_heads=num_heads, source=source
  )
  _move_position_embedding(flat, source)
  return flat


def _unstacked(
  arrays: Mapping[str, StoredArray], source: str
) -> Iterator[tuple[str, StoredArray]]:
  """Yields names and arrays, one a block where all blocks are in one array."""
  depths = {
    key: array.shape[0] if array.shape else 0
    for key, array in arrays.items()
    if key.startswith(_STACK)
  }
  depth = max(depths.values(), default=1)
  if {*depths.values()} - {depth} or not 0 < depth <= _MAX_LAYERS:
    shown = '\n'.join(f'  {key}: {arrays[key].shape}' for key in depths)
    raise errors.CheckpointError(
      f'{source}: expected the stacked blocks to be of one number, from 1 to '
      f'{_MAX_LAYERS}, their first dimension, found:\n{shown}'
    )
  for key, array in arrays.items():
    if key not in depths:
      yield key, array
      continue
    for i in range(depth):
      name = f'Transformer/encoderblock_{i}/{key.removeprefix(_STACK)}'
      yield name, array.map(lambda x, i=i: x[i])


def _inside_head(name: str) -> str:
  if name == 'probe':
    return 'MAPHead_0/probe'
  match = _INLINED_HEAD.fullmatch(name)
  return f'MAPHead_0/{match[1]}_0/{match[2]}' if match else name


def _move_position_embedding(flat: dict[str, StoredArray], source: str) -> None:
  """Puts the position embedding where the models have it, with its slot."""
  found = [key for key in _POSITION_KEYS if key in flat]
  if len(found) > 1:
    raise errors.CheckpointError(
      f'{source}: expected one position embedding, found '
      f'{" and ".join(found)}; remove those that are not the newest.'
    )
  for key in found:
    array = flat.pop(key)
    if len(array.shape) == 3:
      # A grid is square, so that one more is the class token's slot.
      has_slot = array.shape[1] > 1 and _is_square(array.shape[1] - 1)
      if 'cls' in flat and not has_slot:
        array = _with_empty_slot(array)
      elif 'cls' not in flat and has_slot:
        array = array.map(lambda x: x[:, 1:])
    flat[_POSITION_KEYS[0]] = array


def _with_empty_slot(array: StoredArray) -> StoredArray:
  """Returns the embedding with zeros before it.

  Nothing is added to the class token, which these models prepend afterwards.
  """
  batch, tokens, width = array.shape

  def with_slot(values: np.ndarray) -> np.ndarray:
    slot = np.zeros((batch, 1, width), array.dtype)
    return np.concatenate([slot, array.view(values)], axis=1)

  # Not by `map`, which would make one to see its shape.
  return dataclasses.replace(
    array, shape=(batch, tokens + 1, width), view=with_slot
  )


def _is_square(number: int) -> bool:
  return math.isqrt(number) ** 2 == number
