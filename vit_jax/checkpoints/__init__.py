"""Weights: finding them, reading and writing files, fitting them to a model."""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax import errors

__all__ = ['load_params', 'load_pretrained', 'locate_weights', 'save_params']

_TRANSFORMER = 'spatial_transformer/'

# Imports are inside, as JAX takes a second to load, and looking into a file
# needs none of it.


def load_params(
  path: str | os.PathLike, *, num_heads: int | None = None
) -> dict[str, Any]:
  """Reads a weight file into the model's names and shapes, nothing adapted.

  Args:
    path: a local `.npz` or `.safetensors` file with Google's, big_vision's,
      timm's or transformers' names, with or without optimiser state around the
      weights, or a run directory.
    num_heads: attention heads, for a file that doesn't say it and a width that
      no published model has.

  Returns:
    The nested parameter dict, numpy arrays in the dtype of the file.

  Raises:
    CheckpointNotFoundError: there is no such file.
    CheckpointError: the file is damaged, or not one of these; the text lists
      all keys that are NaN, infinite or unreadable.
  """
  from flax import traverse_util

  from vit_jax.checkpoints import arrays, files

  with files.open_weights(path, num_heads) as stored:
    values = arrays.read_arrays(stored.arrays, stored.path)
  return traverse_util.unflatten_dict(values, sep='/')


def save_params(
  params: Mapping[str, Any],
  path: str | os.PathLike,
  *,
  names: str | None = None,
) -> None:
  """Writes a weight file that `load_params` reads back to the same bits.

  An `.npz` has Google's layout, which the original and timm load; a
  `.safetensors` has timm's names or transformers'.

  Args:
    params: the nested parameter dict of a model.
    path: where to write; ends in `.npz` or `.safetensors`. The file appears
      whole or not at all.
    names: 'google', 'timm' or 'transformers'; None for the container's own.

  Raises:
    CheckpointError: a value is not an array of floating-point numbers, the
      names have none for it, or the file can't be written.
  """
  from flax import traverse_util

  from vit_jax.checkpoints import files

  flat = traverse_util.flatten_dict(dict(params), sep='/')
  files.write_file(flat, path, names)


def load_pretrained(
  name_or_path: str | os.PathLike,
  model: Any,
  image_size: int | tuple[int, int],
  *,
  directory: str = '.',
  fresh_head: bool = True,
  offline: bool | None = None,
  shardings: Any = None,
) -> dict[str, Any]:
  """Returns parameters that fit `model` for images of `image_size`.

  Args:
    name_or_path: a weight file, a run directory, an address (`https://...`,
      `gs://...`, `hf://OWNER/REPO[/FILE][@REVISION]`), or the name of a
      published model or file, such as 'ViT-B_16' or 'augreg/B_16'.
    model: a module from `create_model`.
    image_size: side in pixels, or (height, width).
    directory: where to look for a name: a directory, a file, an address, an
      upstream ('sam') or published weights ('sam/ViT-B_16'). With '.', a
      relative name may be a path.
    fresh_head: whether a head that doesn't fit is made afresh; False makes it
      an error, for those who want the file's own logits.
    offline: whether nothing may be downloaded; None for what `VIT_JAX_OFFLINE`
      says.
    shardings: a tree like the parameters, of `jax.sharding.Sharding`s. Each
      array is put there as soon as it is read, so that the host never holds
      them all.

  Returns:
    Nested arrays in the model's `param_dtype`, numpy's without `shardings`:
    position embeddings resized, the head kept if it fits and zero otherwise.

  Raises:
    CheckpointNotFoundError: nothing is there; the text says where it looked.
    CheckpointError: the file is damaged or was made with another model.
    ConfigError: `image_size` is none.
  """
  import jax
  from flax import traverse_util

  from vit_jax.checkpoints import adapt, arrays, files, locate

  size = _height_and_width(image_size)
  path = locate.locate(name_or_path, directory, offline=offline)
  expected = expected_shapes(model, size)
  places: dict[str, Any] = traverse_util.flatten_dict(shardings or {}, sep='/')

  def convert(name, value):
    value = arrays.cast(value, expected[name].dtype)
    if not shardings:
      return value
    # Each process places its own shards; `device_put` would have all processes
    # compare theirs, and they read in different orders.
    return jax.make_array_from_callback(
      value.shape, places[name], lambda index: value[index]
    )

  grid = model.grid(size)
  num_heads = getattr(model, 'num_heads', None)  # A Mixer has none.
  with files.open_weights(
    path, num_heads, num_patches=grid[0] * grid[1]
  ) as stored:
    arrays_in_file = dict(stored.arrays)
    if fresh_head:
      arrays_in_file |= _fresh_transformer(arrays_in_file, model, size)
    fitted = adapt.fit_arrays(
      arrays_in_file,
      expected,
      grid,
      head_bias_init=model.head_bias_init,
      fresh_head=fresh_head,
      source=stored.path,
    )
    params = arrays.read_arrays(fitted, stored.path, convert)
    adapt.warn_of_zero_head(fitted, params, stored.path)
  return traverse_util.unflatten_dict(params, sep='/')


def _fresh_transformer(
  stored: Mapping[str, Any], model: Any, size: tuple[int, int]
) -> dict[str, Any]:
  """Returns a transformer that changes nothing yet, if the model lacks its own.

  Weights that were trained without one are fine-tuned behind a new one.

  Args:
    stored: arrays of the file, by our names.
    model: that they are for.
    size: (height, width) of its images.
  """
  missing = {
    key for key in expected_shapes(model, size) if key.startswith(_TRANSFORMER)
  }
  if not missing or any(key.startswith(_TRANSFORMER) for key in stored):
    return {}
  import jax
  from flax import traverse_util

  from vit_jax.checkpoints.arrays import StoredArray

  images = np.zeros((1, *size, 3), np.float32)

  @jax.jit  # Of all that `init` makes, no more than what is returned.
  def init():
    params = model.init(jax.random.key(0), images)['params']
    flat = traverse_util.flatten_dict(params, sep='/')
    return {key: flat[key] for key in missing}

  return {
    key: StoredArray.of(np.asarray(value)) for key, value in init().items()
  }


def _height_and_width(image_size: Any) -> tuple[int, int]:
  """Returns (height, width) of a side or a pair, which may be numpy's."""
  try:
    pair = (image_size, image_size) if np.ndim(image_size) == 0 else image_size
    height, width = map(operator.index, pair)
  except (TypeError, ValueError):
    height = width = 0
  if min(height, width) < 1:
    raise errors.ConfigError(
      f'image_size is {image_size!r}, expected a number of pixels or (height, '
      'width).'
    )
  return height, width


def locate_weights(config: Any) -> str:
  """Returns the path of the weights that a config starts from.

  Args:
    config: with `pretrained_dir`, `offline`, `model_or_filename` and
      `model.model_name`, as `configs/common.py` defines them.

  Raises:
    CheckpointNotFoundError: nothing is there; the text says where it looked.
  """
  from vit_jax.checkpoints import augreg, locate

  name = augreg.weights_name(config)
  offline = config.offline or None  # False leaves it to the environment.
  return locate.locate(name, config.pretrained_dir, offline=offline)


# Tracing a model takes longer than reading its file.
@functools.lru_cache(maxsize=8)
def expected_shapes(model: Any, image_size: tuple[int, int]) -> dict[str, Any]:
  """Returns shapes and dtypes of a model's parameters by name."""
  import jax
  from flax import traverse_util

  images = jax.ShapeDtypeStruct((1, *image_size, 3), 'float32')
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  return traverse_util.flatten_dict(shapes, sep='/')
