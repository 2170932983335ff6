"""Multi-head attention: with weights to look at, or fused where that is faster.

Fused attention never holds the weights [batch, heads, tokens, tokens] whole,
so it is for where nobody asks for them.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Dtype = Any

# 'auto' is 'fused' where cuDNN has a kernel, and 'plain' elsewhere: on CPUs and
# TPUs what XLA makes of the plain operations is no slower.
ATTENTIONS = ('auto', 'plain', 'fused')

# Of cuDNN's kernel: before Ampere there is none.
_CUDNN_CAPABILITY = 8.0
_CUDNN_DTYPES = ('bfloat16', 'float16')
_CUDNN_MAX_HEAD_DIM = 128


def attention_weights(
  query: Float[Array, 'batch queries heads head_dim'],
  key: Float[Array, 'batch keys heads head_dim'],
) -> Float[Array, 'batch heads queries keys']:
  """Returns each query's distribution over keys.

  Args:
    query: [batch, queries, heads, head_dim].
    key: [batch, keys, heads, head_dim].

  Returns:
    [batch, heads, queries, keys] float32; rows sum to one (Vaswani et al.
    2017, eq. 1).
  """
  scale = query.shape[-1] ** -0.5  # Keeps the variance of the logits near one.
  logits = jnp.einsum('bqhd,bkhd->bhqk', query * scale, key)
  # bfloat16 has too few digits to sum hundreds of exponentials.
  return jax.nn.softmax(logits.astype(jnp.float32))


def fused_attention(
  query: Float[Array, 'batch queries heads head_dim'],
  key: Float[Array, 'batch keys heads head_dim'],
  value: Float[Array, 'batch keys heads head_dim'],
) -> Float[Array, 'batch queries heads head_dim']:
  """Returns what each query takes from the values, by cuDNN where it can.

  Args:
    query: [batch, queries, heads, head_dim].
    key: [batch, keys, heads, head_dim].
    value: the same shape.
  """
  return jax.nn.dot_product_attention(
    query,
    key,
    value,
    implementation='cudnn' if suits_cudnn(query) else 'xla',
  )


def suits_cudnn(query: jax.Array) -> bool:
  """Tells whether cuDNN has a kernel for these queries on this machine.

  Args:
    query: [batch, queries, heads, head_dim].
  """
  head_dim = query.shape[-1]
  if query.dtype not in _CUDNN_DTYPES or head_dim % 8:
    return False
  return head_dim <= _CUDNN_MAX_HEAD_DIM and _has_cudnn_kernels()


def _has_cudnn_kernels() -> bool:
  device = jax.devices()[0]
  # Only CUDA's devices tell; of others, ROCm's among them, there is no number.
  capability = getattr(device, 'compute_capability', '')
  if device.platform != 'gpu' or not capability.replace('.', '').isdigit():
    return False
  return float(capability) >= _CUDNN_CAPABILITY


class MultiHeadDotProductAttention(nn.Module):
  """Attention; sows `attention_weights` when intermediates are asked for.

  Flax's layer of the same name would do for training. This one gives way to
  look at the weights, in float32, at no cost for those who don't, and by
  `nn.intercept_methods` around `weigh` to reduce or change them on the way.

  Attributes:
    num_heads: they divide the width.
    dropout_rate: chance in [0, 1) that a weight is zeroed in training; if it
      can be, attention is plain.
    attention: one of `ATTENTIONS`. `weigh` is called for 'plain' in any case;
      for the others, where intermediates are asked for.
    dtype: of the computation.
    param_dtype: of the parameters.
  """

  num_heads: int
  dropout_rate: float = 0.0
  attention: str = 'auto'
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  def weigh(self, query: jax.Array, key: jax.Array) -> jax.Array:
    """Returns `attention_weights`; a method, so that it can be intercepted."""
    return attention_weights(query, key)

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'batch queries width'],
    read: Float[Array, 'batch keys width'] | None = None,
    *,
    train: bool,
  ) -> Float[Array, 'batch queries width']:
    """Returns what each token of `x` takes from those of `read`.

    Args:
      x: [batch, queries, width].
      read: [batch, keys, width], or None for `x` itself: self-attention.
      train: whether to drop weights.
    """
    width = x.shape[-1]
    read = x if read is None else read

    def project(name, x):  # [batch, tokens, width] -> [..., heads, dim]
      return nn.DenseGeneral(
        (self.num_heads, width // self.num_heads),
        kernel_init=nn.initializers.xavier_uniform(),
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=name,
      )(x)

    query = project('query', x)
    key, value = project('key', read), project('value', read)
    if self._is_fused(query, train):
      x = fused_attention(query, key, value)
    else:
      weights = self.weigh(query, key)
      self.sow('intermediates', 'attention_weights', weights)
      weights = weights.astype(value.dtype)
      weights = nn.Dropout(self.dropout_rate, deterministic=not train)(weights)
      x = jnp.einsum('bhqk,bkhd->bqhd', weights, value)
    return nn.DenseGeneral(
      width,
      axis=(-2, -1),
      kernel_init=nn.initializers.xavier_uniform(),
      dtype=self.dtype,
      param_dtype=self.param_dtype,
      name='out',
    )(x)

  def _is_fused(self, query: jax.Array, train: bool) -> bool:
    """Tells whether to do without the weights."""
    is_dropping = train and self.dropout_rate > 0
    is_watched = self.is_mutable_collection('intermediates')
    if self.attention == 'plain' or is_dropping or is_watched:
      return False
    return self.attention == 'fused' or suits_cudnn(query)
