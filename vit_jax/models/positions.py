"""How tokens are told where they are: a learned embedding, or sines."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

Dtype = Any

POSITION_EMBEDDINGS = ('learned', 'sincos2d')


def sincos2d(
  grid: tuple[int, int], width: int
) -> Float[Array, 'patches width']:
  """Returns a fixed embedding of each patch's row and column.

  Beyer et al. 2022 (arXiv 2205.01580), as in MoCo v3: a quarter of the width
  each for the sines and cosines of the column, then of the row, at frequencies
  that fall geometrically from 1 to 1/10000.

  Args:
    grid: (rows, columns) of patches.
    width: of a token; a multiple of 4.

  Returns:
    [rows * columns, width] float32, row after row.
  """
  quarter = width // 4
  exponent = jnp.arange(quarter, dtype=jnp.float32) / max(1, quarter - 1)
  omega = 10_000.0**-exponent
  rows, columns = (jnp.arange(size, dtype=jnp.float32) for size in grid)
  y = jnp.repeat(rows, grid[1])[:, None] * omega
  x = jnp.tile(columns, grid[0])[:, None] * omega
  waves = [jnp.sin(x), jnp.cos(x), jnp.sin(y), jnp.cos(y)]
  return jnp.concatenate(waves, axis=1)


class AddPositionEmbedding(nn.Module):
  """Adds to every token, first of all the class token's where there is one.

  Attributes:
    kind: 'learned', a parameter that has a slot for the class token as well, or
      'sincos2d', which has no parameter and leaves the class token as it is.
    param_dtype: of the parameter.
  """

  kind: str = 'learned'
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch tokens width'], grid: tuple[int, int]
  ) -> Float[Array, 'batch tokens width']:
    if self.kind == 'sincos2d':
      embedding = sincos2d(grid, x.shape[-1])
      class_slots = x.shape[1] - len(embedding)
      embedding = jnp.pad(embedding, ((class_slots, 0), (0, 0)))[None]
    else:
      embedding = self.param(
        'pos_embedding',
        nn.initializers.normal(stddev=0.02),
        (1, *x.shape[1:]),
        self.param_dtype,
      )
    return x + embedding.astype(x.dtype)
