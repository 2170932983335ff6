"""The class token's slot in a position embedding, which some files leave out.

The models here have it wherever they have a class token.
"""

import dataclasses
import math

import numpy as np

from vit_jax.checkpoints.arrays import StoredArray


def has_class_slot(
  num_slots: int, num_patches: int | None, *, if_unclear: bool
) -> bool:
  """Returns whether one of the slots is the class token's.

  Args:
    num_slots: of a position embedding.
    num_patches: of the model that it is for, which tells it where the file was
      made for as many; else it is told by which of the two leaves a square.
    if_unclear: the result where neither does.
  """
  if num_patches is not None and num_slots - num_patches in (0, 1):
    return num_slots > num_patches
  if _is_square(num_slots):
    return False
  return if_unclear or _is_square(num_slots - 1)


def with_empty_slot(positions: StoredArray) -> StoredArray:
  """Returns a position embedding with zeros before it.

  Nothing is added to the class token, which such models prepend afterwards. One
  that has no numbers stays as it is: its width may be anything.
  """
  if not positions.size:
    return positions
  batch, num_slots, width = positions.shape
  # Not by `map`, which would make one to see its shape.
  return dataclasses.replace(
    positions,
    shape=(batch, num_slots + 1, width),
    view=lambda x: np.pad(positions.view(x), [(0, 0), (1, 0), (0, 0)]),
  )


def _is_square(number: int) -> bool:
  return math.isqrt(max(number, 0)) ** 2 == number
