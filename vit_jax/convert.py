"""Writes a weight file in another format, and tells them apart."""

from __future__ import annotations

import functools
import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vit_jax import checkpoints, errors, models
from vit_jax.inspection import Description

_SUFFIXES = ('.npz', '.safetensors')
_FREE_GRID = 4  # Patches a side, where a file was made for no number of them.


def target_file(
  out: str | os.PathLike, source: str | os.PathLike, *, overwrite: bool
) -> pathlib.Path:
  """Returns the file to write, whose directory is made.

  Args:
    out: ends in `.npz` or `.safetensors`; a directory, there or not, gets a
      `model.npz`, which is what is taken of a run directory.
    source: what is converted.
    overwrite: whether the file may be there already.

  Raises:
    CheckpointError: it may not be written.
  """
  path = pathlib.Path(out).expanduser()
  if path.is_dir() or not path.suffix or os.fspath(out).endswith(os.sep):
    path = path / 'model.npz'
  elif path.suffix not in _SUFFIXES:
    raise errors.CheckpointError(
      f'{out}: {path.suffix!r} is no format to write. Expected a name that '
      f'ends in {" or ".join(_SUFFIXES)}, or a directory, with a {os.sep!r} at '
      'its end if it is not there yet.'
    )
  if path.exists() and path.samefile(source):
    raise errors.CheckpointError(
      f'{path} is the file that is to be converted. Write to another one.'
    )
  if path.exists() and not overwrite:
    raise errors.CheckpointError(
      f'{path} is there already. Write to another file, or over it with '
      '--overwrite.'
    )
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.CheckpointError(
      f'{path}: its directory can not be made ({error.strerror}). Write '
      'elsewhere.'
    ) from error
  return path


def compared_models(found: Description) -> dict[str, Any]:
  """Returns the models that a file is of, by what they give.

  Returns:
    {'logits': model} or, of a file without a head, {'features': model}; both
    where the head may be all zeros, as its logits say nothing of the weights
    before it.
  """
  heads = {'logits': found.num_classes, 'features': None}
  if found.num_classes is None:
    del heads['logits']
  elif found.zero_head is False:
    del heads['features']
  config = found.model_config()
  return {
    what: models.create_model(config, num_classes)
    for what, num_classes in heads.items()
  }


def comparison_size(found: Description) -> tuple[int, int]:
  """Returns (height, width) in pixels at which nothing has to be resized."""
  if found.image_size:
    return found.image_size
  height, width = found.stride
  if found.num_patches:  # No square: in a row is as good as any other way.
    return height, width * found.num_patches
  return height * _FREE_GRID, width * _FREE_GRID


def outputs(
  path: str | os.PathLike, modules: Mapping[str, Any], size: tuple[int, int]
) -> dict[str, np.ndarray]:
  """Returns what the weights in a file make of two random images.

  Args:
    path: a weight file or a run directory.
    modules: by the name of what they give.
    size: (height, width) of the images in pixels.

  Raises:
    CheckpointError: the file is damaged or doesn't fit the models.
  """
  rng = np.random.default_rng(0)
  images = rng.uniform(-1, 1, (2, *size, 3)).astype(np.float32)
  return {
    name: np.asarray(
      _jitted_apply()(
        model,
        checkpoints.load_pretrained(path, model, size, fresh_head=False),
        images,
      )
    )
    for name, model in modules.items()
  }


def largest_difference(
  found: np.ndarray, wanted: np.ndarray
) -> tuple[float, float]:
  """Returns the largest difference, as it is and over the largest value.

  It is infinite where the two have another number of values.
  """
  if found.shape != wanted.shape:
    return math.inf, math.inf
  difference = float(np.abs(found - wanted).max())
  return difference, difference / (float(np.abs(wanted).max()) or 1.0)


@functools.cache
def _jitted_apply() -> Callable[..., Any]:
  import jax

  def apply(model, params, images):
    return model.apply({'params': params}, images, train=False)

  return jax.jit(apply, static_argnums=0)
