"""The MLP that Vision Transformer and Mixer share, and its two GELUs."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

Dtype = Any

# Google's weights were trained with the tanh approximation, those of timm and
# transformers are run with the error function. Logits differ by some 2e-4.
GELUS = {
  'tanh': functools.partial(nn.gelu, approximate=True),
  'exact': functools.partial(nn.gelu, approximate=False),
}


class MlpBlock(nn.Module):
  """Dense, GELU, dense, over the last dimension."""

  mlp_dim: int
  gelu: str = 'tanh'
  dropout_rate: float = 0.0
  kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
  bias_init: nn.initializers.Initializer = nn.initializers.normal(stddev=1e-6)
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch tokens width'], *, train: bool
  ) -> Float[Array, 'batch tokens width']:
    width = x.shape[-1]

    def dense(features, x):
      return nn.Dense(
        features,
        kernel_init=self.kernel_init,
        bias_init=self.bias_init,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
      )(x)

    x = GELUS[self.gelu](dense(self.mlp_dim, x))
    x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    x = dense(width, x)
    return nn.Dropout(self.dropout_rate, deterministic=not train)(x)
