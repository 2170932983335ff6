"""The Vision Transformer: Dosovitskiy et al. 2021, arXiv 2010.11929.

The parameter tree is the key tree of Google's published `.npz` files (in the
numbering of current Flax), so names here are not free to change.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax import errors
from vit_jax.models import resnet
from vit_jax.models.mlp import MlpBlock
from vit_jax.models.positions import AddPositionEmbedding

Dtype = Any

CLASSIFIERS = ('token', 'gap', 'map', 'unpooled', 'token_unpooled')


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


class MultiHeadDotProductAttention(nn.Module):
  """Attention; sows `attention_weights` when intermediates are asked for.

  Flax's layer of the same name would do for training. This one gives way to
  look at the weights, in float32, at no cost for those who don't, and by
  `nn.intercept_methods` around `weigh` to reduce or change them on the way.
  """

  num_heads: int
  dropout_rate: float = 0.0
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


class EncoderBlock(nn.Module):
  """Pre-norm attention and MLP, each on a residual branch."""

  num_heads: int
  mlp_dim: int
  gelu: str = 'tanh'
  dropout_rate: float = 0.0
  attention_dropout_rate: float = 0.0
  drop_path_rate: float = 0.0
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
      self.num_heads, dropout_rate=self.attention_dropout_rate, **types
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
    for i in range(self.num_layers):
      x = EncoderBlock(
        num_heads=self.num_heads,
        mlp_dim=self.mlp_dim,
        gelu=self.gelu,
        dropout_rate=self.dropout_rate,
        attention_dropout_rate=self.attention_dropout_rate,
        drop_path_rate=self.drop_path_rate * i / max(1, self.num_layers - 1),
        name=f'encoderblock_{i}',
        **types,
      )(x, train=train)
    return nn.LayerNorm(epsilon=1e-6, name='encoder_norm', **types)(x)


class MAPHead(nn.Module):
  """Multihead attention pooling: a learned query reads all tokens.

  Zhai et al. 2022, arXiv 2106.04560.
  """

  num_heads: int
  mlp_dim: int
  gelu: str = 'tanh'
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch tokens width'], *, train: bool
  ) -> Float[Array, 'batch width']:
    types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    batch, _, width = x.shape
    probe = self.param(
      'probe', nn.initializers.xavier_uniform(), (1, 1, width), self.param_dtype
    )
    probe = jnp.broadcast_to(probe.astype(x.dtype), (batch, 1, width))
    x = MultiHeadDotProductAttention(self.num_heads, **types)(
      probe, x, train=train
    )
    y = nn.LayerNorm(epsilon=1e-6, **types)(x)
    x = x + MlpBlock(self.mlp_dim, self.gelu, **types)(y, train=train)
    return x[:, 0]


class VisionTransformer(nn.Module):
  """Patches, encoder and head; with `resnet_num_layers` set, a hybrid.

  Attributes:
    num_classes: width of the head, or None for the features before it.
    patch_size: (height, width) of a patch in pixels, or in positions of the
      stem's output.
    hidden_size: width of a token.
    num_layers: encoder blocks.
    num_heads: attention heads; they divide `hidden_size`.
    mlp_dim: hidden width of the MLPs.
    dropout_rate: chance in [0, 1) that an activation is zeroed in training.
    attention_dropout_rate: the same for an attention weight.
    drop_path_rate: the same for the branches of the last block; earlier blocks
      have a linear share of it.
    classifier: 'token' reads the class token, 'gap' the mean of all tokens,
      'map' what an attention head gathers from them, 'unpooled' and
      'token_unpooled' every token (without and with a class token).
    position_embedding: 'learned' or 'sincos2d', which has no parameter.
    gelu: 'tanh' for the approximation that Google's weights were trained with,
      or 'exact'.
    representation_size: width of the dense + tanh layer before the head.
    resnet_num_layers: bottlenecks per stage of the stem, () for its root
      alone, None for no stem.
    resnet_width_factor: the stem's first stage has 64 times this many features.
    head_bias_init: the head's bias at the start; its kernel starts at zero.
    dtype: of the computation; logits are float32 whatever it is.
    param_dtype: of the parameters.
  """

  num_classes: int | None
  patch_size: tuple[int, int]
  hidden_size: int
  num_layers: int
  num_heads: int
  mlp_dim: int
  dropout_rate: float = 0.0
  attention_dropout_rate: float = 0.0
  drop_path_rate: float = 0.0
  classifier: str = 'token'
  position_embedding: str = 'learned'
  gelu: str = 'tanh'
  representation_size: int | None = None
  resnet_num_layers: tuple[int, ...] | None = None
  resnet_width_factor: float = 1.0
  head_bias_init: float = 0.0
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
    """Returns (rows, columns) of patches in an image of (height, width)."""
    stride = 1
    if self.resnet_num_layers is not None:
      stride = resnet.stem_stride(self.resnet_num_layers)
    # SAME padding rounds up at every halving, which is rounding up once.
    rows, columns = (-(-size // stride) for size in image_size)
    return rows // self.patch_size[0], columns // self.patch_size[1]

  @nn.compact
  def __call__(
    self, images: Float[Array, 'batch height width 3'], *, train: bool = False
  ) -> Float[Array, 'batch ...']:
    """Returns logits, or features where there is no head.

    Args:
      images: [batch, height, width, 3] in [-1, 1]. Pixels beyond the last whole
        patch are not looked at.
      train: whether to drop; takes a 'dropout' key if any rate is above zero.

    Returns:
      float32 [batch, num_classes]; with `num_classes=None` [batch, features];
      with an unpooled classifier [batch, tokens, ...].

    Raises:
      ConfigError: the images are smaller than one patch.
    """
    types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    x = jnp.asarray(images)
    if self.resnet_num_layers is not None:
      x = resnet.apply_stem(
        x, self.resnet_num_layers, self.resnet_width_factor, **types
      )
    x = nn.Conv(
      self.hidden_size,
      self.patch_size,
      strides=self.patch_size,
      padding='VALID',
      name='embedding',
      **types,
    )(x)
    batch, rows, columns, width = x.shape
    if not rows * columns:
      raise errors.ConfigError(
        f'Images of {images.shape[1]} by {images.shape[2]} pixels hold no '
        f'whole patch of {self.patch_size}. Use larger images '
        '(config.pp.crop) or smaller patches (config.model.patches.size).'
      )
    x = x.reshape(batch, rows * columns, width)
    if self.classifier in ('token', 'token_unpooled'):
      token = self.param(
        'cls', nn.initializers.zeros, (1, 1, width), self.param_dtype
      )
      token = jnp.broadcast_to(token.astype(x.dtype), (batch, 1, width))
      x = jnp.concatenate([token, x], axis=1)

    x = Encoder(
      num_layers=self.num_layers,
      num_heads=self.num_heads,
      mlp_dim=self.mlp_dim,
      gelu=self.gelu,
      position_embedding=self.position_embedding,
      dropout_rate=self.dropout_rate,
      attention_dropout_rate=self.attention_dropout_rate,
      drop_path_rate=self.drop_path_rate,
      name='Transformer',
      **types,
    )(x, (rows, columns), train=train)

    if self.classifier == 'token':
      x = x[:, 0]
    elif self.classifier == 'gap':
      x = x.mean(axis=1)
    elif self.classifier == 'map':
      x = MAPHead(self.num_heads, self.mlp_dim, self.gelu, **types)(
        x, train=train
      )
    if self.representation_size is not None:
      x = nn.Dense(self.representation_size, name='pre_logits', **types)(x)
      x = nn.tanh(x)
    if self.num_classes is not None:
      x = nn.Dense(
        self.num_classes,
        kernel_init=nn.initializers.zeros,
        bias_init=nn.initializers.constant(self.head_bias_init),
        name='head',
        **types,
      )(x)
    return x.astype(jnp.float32)
