"""The names in big_vision's `.npz` files, where they differ from Google's.

Blocks are named as ours are, in one of three layouts: one entry a block, all
blocks stacked by a scan, or, in old files, the first API's numbering. The
position embedding has been in three places, and has had a class slot or none.
Mixers, and models with none of what is renamed here, have Google's names.
"""

import re
from collections.abc import Collection, Iterator, Mapping

from vit_jax import errors
from vit_jax.checkpoints.arrays import StoredArray, by_name
from vit_jax.checkpoints.names import google, slots

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
# ViT-22B has 48 blocks, of 16 arrays each.
_MAX_LAYERS = 200
_MAX_BLOCK_ARRAYS = 20_000


def matches(keys: Collection[str]) -> bool:
  """Whether these are the keys of such a file."""
  names = {key.removeprefix(_IMAGE_TOWER) for key in keys}
  return any(
    key.startswith((_IMAGE_TOWER, _STACK)) for key in keys
  ) or not names.isdisjoint({*_POSITION_KEYS[1:], 'probe'})


def to_ours(
  arrays: Mapping[str, StoredArray],
  *,
  num_heads: int | None,
  source: str,
  num_patches: int | None = None,
) -> dict[str, StoredArray]:
  """Returns the arrays under the names and in the shapes of the models.

  Of a file with several towers, the image's is taken: the others are another
  model's.

  Args:
    arrays: by the keys of the file, those of the weights alone.
    num_heads: not needed, as the file says it.
    source: the file, for the text of an error.
    num_patches: of the model that they are for, which tells whether the class
      token has a slot; None tells it by what is a square.

  Raises:
    CheckpointError: stacked blocks of different or absurd numbers, or an array
      is there twice, under its old and its new name.
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
  _move_position_embedding(flat, num_patches, source)
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
  # An array without numbers takes no bytes, and could claim any depth.
  if (
    {*depths.values()} - {depth}
    or not 0 < depth <= _MAX_LAYERS
    or not all(arrays[key].size for key in depths)
    or depth * len(depths) > _MAX_BLOCK_ARRAYS
  ):
    shown = [f'  {key}: {arrays[key].shape}' for key in depths]
    more = [f'  and {len(shown) - 20} more'] * (len(shown) > 20)
    raise errors.CheckpointError(
      f'{source}: expected the stacked blocks to be of one number, from 1 to '
      f'{_MAX_LAYERS}, their first dimension, in at most '
      f'{_MAX_BLOCK_ARRAYS:,} arrays of some numbers; found:\n'
      + '\n'.join([*shown[:20], *more])
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


def _move_position_embedding(
  flat: dict[str, StoredArray], num_patches: int | None, source: str
) -> None:
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
      has_slot = slots.has_class_slot(
        array.shape[1], num_patches, if_unclear=False
      )
      if 'cls' in flat and not has_slot:
        array = slots.with_empty_slot(array)
      elif 'cls' not in flat and has_slot:
        array = array.map(lambda x: x[:, 1:])
    flat[_POSITION_KEYS[0]] = array
