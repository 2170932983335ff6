"""Maps over the patches of an image: rows of token-by-token matrices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vit_jax import errors
from vit_jax.models import resnet

Array = jax.Array | np.ndarray


def check_index(kind: str, index: int, size: int) -> int:
  """Returns `index` counted from the front; negative ones are from the end.

  Args:
    kind: what is counted, such as 'layer'.
    index: -size to size - 1.
    size: how many there are.

  Raises:
    ConfigError: there is no such one; the text has the valid range.
  """
  if not -size <= index < size:
    raise errors.ConfigError(
      f'There is no {kind} {index}: valid are 0 to {size - 1} (or {-size} to '
      '-1, counted from the end).'
    )
  return int(index) % size


def has_class_token(tokens: int, grid: tuple[int, int]) -> bool:
  """Tells by their number whether tokens are more than the grid's patches.

  Args:
    tokens: rows * columns, or one more.
    grid: (rows, columns) of patches, as `model.grid(image_size)` gives it.

  Raises:
    ConfigError: the tokens are those of another grid.
  """
  rows, columns = grid
  if min(rows, columns) < 1 or tokens - rows * columns not in (0, 1):
    raise errors.ConfigError(
      f'{tokens} tokens are not those of {rows} by {columns} patches, which '
      f'are {rows * columns}, or {rows * columns + 1} with a class token. '
      'Take the grid from model.grid((height, width)) of the images.'
    )
  return tokens > rows * columns


def token_size(model: Any) -> tuple[int, int]:
  """Returns (height, width) in pixels from one token to the next."""
  stride = 1
  if getattr(model, 'resnet_num_layers', None) is not None:
    stride = resnet.stem_stride(model.resnet_num_layers)
  return model.patch_size[0] * stride, model.patch_size[1] * stride


def class_token_map(
  matrix: Float[Array, '*batch tokens tokens'], grid: tuple[int, int]
) -> Float[jax.Array, '*batch rows columns']:
  """Returns what the class token takes from each patch.

  Where there is no class token, it is what the patches take on average, as a
  model that averages or pools them has no token to ask. Which of the two it is
  shows in the number of tokens.

  Args:
    matrix: [tokens, tokens], weights of a head or a rollout; leading dimensions
      are kept.
    grid: (rows, columns) of patches.

  Returns:
    [rows, columns], not normalised.

  Raises:
    ConfigError: the tokens are those of another grid.
  """
  matrix = jnp.asarray(matrix)
  class_token = has_class_token(matrix.shape[-1], grid)
  return row_map(matrix[..., 0, :] if class_token else matrix.mean(-2), grid)


def row_map(
  row: Float[jax.Array, '*batch tokens'], grid: tuple[int, int]
) -> Float[jax.Array, '*batch rows columns']:
  """Returns a row of a matrix without the class token, as a map.

  Args:
    row: [tokens]; leading dimensions are kept.
    grid: (rows, columns) of patches.

  Raises:
    ConfigError: the tokens are those of another grid.
  """
  first = int(has_class_token(row.shape[-1], grid))
  return row[..., first:].reshape(*row.shape[:-1], *grid)


def patch_map(
  matrix: Float[Array, '*batch tokens tokens'],
  grid: tuple[int, int],
  patch: tuple[int, int],
) -> Float[jax.Array, '*batch rows columns']:
  """Returns what the patch at (row, column) takes from each patch.

  Args:
    matrix: [tokens, tokens], weights of a head or a rollout; leading dimensions
      are kept.
    grid: (rows, columns) of patches.
    patch: its (row, column); negative ones count from the end.

  Returns:
    [rows, columns], not normalised. What the patch takes from the class token
    is left out.

  Raises:
    ConfigError: the tokens are those of another grid, or there is no such
      patch.
  """
  matrix = jnp.asarray(matrix)
  first = int(has_class_token(matrix.shape[-1], grid))
  row = check_index('row', patch[0], grid[0])
  column = check_index('column', patch[1], grid[1])
  return row_map(matrix[..., first + row * grid[1] + column, :], grid)


def raw_map(
  weights: Float[Array, 'layers heads tokens tokens'],
  grid: tuple[int, int],
  layer: int = -1,
  head: int | None = None,
  patch: tuple[int, int] | None = None,
) -> Float[jax.Array, 'rows columns']:
  """Returns one row of one image's weights as a map.

  Args:
    weights: [layers, heads, tokens, tokens] of one image.
    grid: (rows, columns) of patches.
    layer: which; negative ones count from the end.
    head: which; None is the average of all.
    patch: the (row, column) that asks; None is the class token, or the average
      of all patches where there is none.

  Returns:
    [rows, columns], not normalised.

  Raises:
    ConfigError: there is no such layer, head or patch, or the tokens are those
      of another grid.
  """
  weights = jnp.asarray(weights)
  matrix = weights[check_index('layer', layer, weights.shape[0])]
  if head is None:
    matrix = matrix.mean(axis=0)
  else:
    matrix = matrix[check_index('head', head, weights.shape[1])]
  if patch is None:
    return class_token_map(matrix, grid)
  return patch_map(matrix, grid, patch)
