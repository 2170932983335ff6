"""The product of the layers' matrices, and what is discarded beforehand."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vit_jax import errors

Array = jax.Array | np.ndarray

# The products are cheap, and devices multiply float32 with fewer digits if let.
PRECISION = jax.lax.Precision.HIGHEST


def check_ratio(discard_ratio: float) -> None:
  """Raises ConfigError unless the ratio is in [0, 1)."""
  if not 0 <= discard_ratio < 1:
    raise errors.ConfigError(
      f'discard_ratio {discard_ratio} is not in [0, 1): it is the share of '
      'attention weights that are set to zero.'
    )


@jax.jit(static_argnums=(1, 2))
def discard(
  matrix: Float[Array, '*batch tokens tokens'], ratio: float, class_token: bool
) -> Float[jax.Array, '*batch tokens tokens']:
  """Sets the smallest entries of each matrix to zero.

  These are the int(ratio * tokens²) smallest ones. Of equal entries at the
  limit all are kept, so uniform attention stays uniform. What is taken from the
  class token, its column, is kept in any case.

  Args:
    matrix: [tokens, tokens], not negative; leading dimensions are kept.
    ratio: share of the entries, in [0, 1).
    class_token: whether the first token is one.
  """
  matrix = jnp.asarray(matrix)
  tokens = matrix.shape[-1]
  count = int(ratio * tokens**2)
  if not count:
    return matrix
  limit = _order_statistic(matrix.reshape(*matrix.shape[:-2], -1), count)
  kept = matrix >= limit[..., None, None]
  if class_token:
    kept |= jnp.arange(tokens) == 0
  return jnp.where(kept, matrix, 0)


def _order_statistic(values: jax.Array, k: int) -> jax.Array:
  """Returns the entry of [..., n] that k others precede in ascending order.

  Bisection: sorting would take longer than the model that gave the values.
  """
  # Floats that are not negative are ordered as their bits are, so 31 halvings
  # find the very value. `+ 0` makes a zero of a negative one.
  bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32) + 0, jnp.int32)

  def halve(i, found):  # The largest number that no more than k are below.
    larger = found | (1 << (30 - i))
    below = jnp.sum(bits < larger[..., None], axis=-1, dtype=jnp.int32)
    return jnp.where(below <= k, larger, found)

  found = jax.lax.fori_loop(0, 31, halve, jnp.zeros(bits.shape[:-1], jnp.int32))
  return jax.lax.bitcast_convert_type(found, jnp.float32)


def multiply(
  rolled: Float[jax.Array, '*batch tokens tokens'] | None,
  fused: Float[jax.Array, '*batch tokens tokens'],
) -> Float[jax.Array, '*batch tokens tokens']:
  """Returns the product of a layer's A, made of its W, and that of those below.

  Args:
    rolled: [tokens, tokens], or None for the first layer.
    fused: the W of the layer, [tokens, tokens], not negative.
  """
  # The half in 0.5 W + 0.5 I goes with the normalisation.
  if rolled is None:
    product = fused + jnp.eye(fused.shape[-1])
  else:
    product = jnp.matmul(fused, rolled, precision=PRECISION) + rolled
  return product / (1 + fused.sum(axis=-1, keepdims=True))


def output_row(
  layers: Sequence[Float[jax.Array, 'batch tokens tokens']],
  class_token: bool,
  *,
  normalise: bool = True,
) -> Float[jax.Array, 'batch tokens']:
  """Returns the class token's row, or the mean row, of the layers' product.

  From the last layer down it takes products of vectors and matrices only.

  Args:
    layers: the W of each, [batch, tokens, tokens], not negative.
    class_token: whether the first token is one.
    normalise: whether the rows of W + I are to sum to one.
  """
  batch, tokens, _ = layers[0].shape
  if class_token:
    row = jnp.zeros((batch, tokens)).at[:, 0].set(1)
  else:
    row = jnp.full((batch, tokens), 1 / tokens)
  for fused in reversed(layers):
    if normalise:
      row = row / (1 + fused.sum(axis=-1))
    row += jnp.einsum('bq,bqk->bk', row, fused, precision=PRECISION)
  return row
