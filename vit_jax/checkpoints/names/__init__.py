"""What others call the parameters: four families of names, told by their keys.

Each module has `matches(keys)` and `to_ours(arrays)`, and those in `WRITERS`
have `from_ours(arrays)`. Ours are the paths of the Flax parameter tree, such as
'Transformer/encoderblock_0/LayerNorm_0/scale'.
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from vit_jax import errors
from vit_jax.checkpoints.arrays import StoredArray
from vit_jax.checkpoints.names import (
  big_vision,
  google,
  heads,
  timm,
  transformers,
)

# The first that matches is taken.
READERS: dict[str, ModuleType] = {
  'transformers': transformers,
  'timm': timm,
  'big_vision': big_vision,
  'google': google,
}
WRITERS: dict[str, ModuleType] = {
  'google': google,
  'timm': timm,
  'transformers': transformers,
}
# Training states keep the weights below one of these, and what else they have
# is none.
_PREFIXES = ('opt/target/', 'params/')


def find_names(arrays: Mapping[str, StoredArray], source: str) -> str:
  """Returns which of `READERS` the keys of a file belong to.

  Args:
    arrays: from `without_optimizer`.
    source: the file, for the text of an error.

  Raises:
    CheckpointError: to none.
  """
  for name, module in READERS.items():
    if module.matches(arrays):
      return name
  shown = ', '.join(sorted(arrays)[:3]) or 'no arrays'
  raise errors.CheckpointError(
    f'{source}: not the weights of a Vision Transformer, a hybrid or a Mixer '
    f'(it has {shown}). Expected keys as Google, big_vision, timm or '
    'transformers name them.'
  )


def to_ours(
  arrays: Mapping[str, StoredArray],
  *,
  num_heads: int | None,
  metadata: Mapping[str, str],
  source: str,
  num_patches: int | None = None,
) -> dict[str, StoredArray]:
  """Returns the arrays of a file under our names and in our shapes.

  What has no place in our models keeps its name. No values are read.

  Args:
    arrays: by the keys of the file.
    num_heads: for files that fuse the heads, in which their number can't be
      seen, and don't say it in their metadata; None takes it from the width, as
      published models have it.
    metadata: of the file.
    source: the file, for the text of an error.
    num_patches: of the model that the arrays are for, which tells whether the
      class token has a slot among the positions of the file; None tells it by
      what is a square.

  Raises:
    CheckpointError: keys of no family, or of two ages at once.
  """
  weights = without_optimizer(arrays)
  module = READERS[find_names(weights, source)]
  said = heads.from_metadata(metadata, source)
  arguments: dict[str, Any] = {
    'num_heads': said or num_heads,
    'source': source,
    'num_patches': num_patches,
  }
  if module is timm and said:  # A file of ours always has the slot.
    arguments['has_class_slot'] = True
  return module.to_ours(weights, **arguments)


def from_ours(
  arrays: Mapping[str, np.ndarray], names: str
) -> dict[str, np.ndarray]:
  """Returns the arrays as the family called `names` has them.

  Args:
    arrays: by our names.
    names: one of `WRITERS`.

  Raises:
    CheckpointError: there is no such family, or it lacks a name for an array.
  """
  if names not in WRITERS:
    raise errors.CheckpointError(
      errors.unknown_name('family of names', names, WRITERS)
    )
  return WRITERS[names].from_ours(arrays)


def without_optimizer(
  arrays: Mapping[str, StoredArray],
) -> dict[str, StoredArray]:
  """Returns the weights alone, without the prefix that a state gives them."""
  for prefix in _PREFIXES:
    if any(key.startswith(prefix) for key in arrays):
      return {
        key.removeprefix(prefix): value
        for key, value in arrays.items()
        if key.startswith(prefix)
      }
  return {k: v for k, v in arrays.items() if not k.startswith('opt/')}
