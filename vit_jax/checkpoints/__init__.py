"""Weights: finding them, reading and writing files, fitting them to a model."""

from __future__ import annotations

import os
from typing import Any

from vit_jax.checkpoints import locate
from vit_jax.checkpoints.adapt import fit_params, resize_position_embedding
from vit_jax.checkpoints.npz import load_params, save_params

__all__ = [
  'fit_params',
  'load_params',
  'load_pretrained',
  'resize_position_embedding',
  'save_params',
]


def load_pretrained(
  name_or_path: str | os.PathLike,
  model: Any,
  image_size: int | tuple[int, int],
  *,
  directory: str = '.',
  fresh_head: bool = True,
) -> dict[str, Any]:
  """Returns parameters that fit `model` for images of `image_size`.

  Args:
    name_or_path: an `.npz` file, a run directory, or the name of a file in
      `directory` or the cache.
    model: a module from `create_model`.
    image_size: side in pixels, or (height, width).
    directory: where to look for a name.
    fresh_head: whether a head that doesn't fit is made afresh; False makes it
      an error, for those who want the file's own logits.

  Returns:
    Nested numpy arrays in the model's `param_dtype`: position embeddings
    resized, the head kept if it fits and zero otherwise.

  Raises:
    CheckpointNotFoundError: nothing is there; the text says where it looked.
    CheckpointError: the file is damaged or was made with another model.
  """
  import jax

  size = (image_size, image_size) if isinstance(image_size, int) else image_size
  path = locate.locate(name_or_path, directory)
  images = jax.ShapeDtypeStruct((1, *size, 3), 'float32')
  expected = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  return fit_params(
    load_params(path),
    expected,
    model.grid(size),
    head_bias_init=model.head_bias_init,
    fresh_head=fresh_head,
    source=path,
  )
