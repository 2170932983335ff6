"""The classifier's head, the same after every kind of model."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float


def apply_head(
  model: Any, x: Float[Array, '... width']
) -> Float[Array, '... features']:
  """Returns logits, or `x` where the model has no head.

  Within a compact method of the model, whose head is called 'head'.

  Args:
    model: has `num_classes` (None for no head), `head_bias_init`, `dtype` and
      `param_dtype`. The head's kernel starts at zero.
    x: what the head reads.

  Returns:
    float32 [..., num_classes], or [..., width].
  """
  if model.num_classes is not None:
    x = nn.Dense(
      model.num_classes,
      kernel_init=nn.initializers.zeros,
      bias_init=nn.initializers.constant(model.head_bias_init),
      dtype=model.dtype,
      param_dtype=model.param_dtype,
      name='head',
    )(x)
  return x.astype(jnp.float32)
