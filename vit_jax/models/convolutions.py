"""Convolutions that are each followed by a pooling by 2 and a ReLU."""

from typing import Any

import flax.linen as nn
import jax
from jaxtyping import Array, Float


def apply_convolutions(
  x: Float[Array, 'batch height width channels'],
  features: tuple[int, ...],
  kernel_size: int,
  **types: Any,
) -> Float[Array, 'batch rows columns features']:
  """Adds 'conv_0', 'conv_1' and so on to the module that calls it.

  Args:
    x: images; each pooling leaves out the last row or column of an odd number.
    features: of each convolution.
    kernel_size: their side; padding keeps the size.
    **types: `dtype` and `param_dtype`.
  """
  for i, outputs in enumerate(features):
    kernel = (kernel_size, kernel_size)
    x = nn.Conv(outputs, kernel, name=f'conv_{i}', **types)(x)
    x = nn.relu(_max_pool(x))
  return x


def _max_pool(x: jax.Array) -> jax.Array:
  """Returns the largest of each two by two, as `nn.max_pool` does.

  The gradient of that takes most of a step's time on a CPU; this one a third.
  """
  batch, height, width, features = x.shape
  x = x[:, : height // 2 * 2, : width // 2 * 2]
  shape = (batch, height // 2, 2, width // 2, 2, features)
  return x.reshape(shape).max(axis=(2, 4))
