"""The encoder: blocks of attention and MLP, each on a residual branch."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.models.attention import MultiHeadDotProductAttention
from vit_jax.models.blocks import apply_blocks
from vit_jax.models.mlp import MlpBlock
from vit_jax.models.positions import AddPositionEmbedding

Dtype = Any


class EncoderBlock(nn.Module):
  """Pre-norm attention and MLP, each on a residual branch."""

  num_heads: int
  mlp_dim: int
  gelu: str = 'tanh'
  dropout_rate: float = 0.0
  attention_dropout_rate: float = 0.0
  drop_path_rate: float = 0.0
  attention: str = 'auto'
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch tokens width'], *, train: bool
  ) -> Float[Array, 'batch tokens width']:
    types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    # One draw per example for the whole branch, kept ones scaled up (Huang et
    # al. 2016): dropout that is broadcast over tokens and width.
    drop_path = nn.Dropout(
      self.drop_path_rate, broadcast_dims=(1, 2), deterministic=not train
    )

    y = nn.LayerNorm(epsilon=1e-6, **types)(x)
    y = MultiHeadDotProductAttention(
      self.num_heads,
      dropout_rate=self.attention_dropout_rate,
      attention=self.attention,
      **types,
    )(y, train=train)
    y = nn.Dropout(self.dropout_rate, deterministic=not train)(y)
    x = x + drop_path(y)

    y = nn.LayerNorm(epsilon=1e-6, **types)(x)
    y = MlpBlock(
      self.mlp_dim, self.gelu, dropout_rate=self.dropout_rate, **types
    )(y, train=train)
    return x + drop_path(y)


class Encoder(nn.Module):
  """Position embedding, blocks, and a last norm."""

  num_layers: int
  num_heads: int
  mlp_dim: int
  gelu: str = 'tanh'
  position_embedding: str = 'learned'
  dropout_rate: float = 0.0
  attention_dropout_rate: float = 0.0
  drop_path_rate: float = 0.0
  attention: str = 'auto'
  remat: str = 'none'
  scan_layers: bool = False
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, 'batch tokens width'],
    grid: tuple[int, int],
    *,
    train: bool,
  ) -> Float[Array, 'batch tokens width']:
    types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    x = AddPositionEmbedding(
      self.position_embedding, self.param_dtype, name='posembed_input'
    )(x, grid)
    x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    make_block = functools.partial(
      EncoderBlock,
      num_heads=self.num_heads,
      mlp_dim=self.mlp_dim,
      gelu=self.gelu,
      dropout_rate=self.dropout_rate,
      attention_dropout_rate=self.attention_dropout_rate,
      attention=self.attention,
      **types,
    )
    depths = [i / max(1, self.num_layers - 1) for i in range(self.num_layers)]
    x = apply_blocks(
      self,
      make_block,
      [f'encoderblock_{i}' for i in range(self.num_layers)],
      x,
      drop_path_rates=[self.drop_path_rate * depth for depth in depths],
      train=train,
      remat=self.remat,
      scan_layers=self.scan_layers,
    )
    return nn.LayerNorm(epsilon=1e-6, name='encoder_norm', **types)(x)
