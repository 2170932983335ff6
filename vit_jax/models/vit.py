"""The Vision Transformer: Dosovitskiy et al. 2021, arXiv 2010.11929.

The parameter tree is the key tree of Google's published `.npz` files (in the
numbering of current Flax), so names here are not free to change.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax import errors
from vit_jax.models import resnet, spatial_transformer
from vit_jax.models.attention import MultiHeadDotProductAttention
from vit_jax.models.encoder import Encoder
from vit_jax.models.head import apply_head
from vit_jax.models.mlp import MlpBlock

Dtype = Any

CLASSIFIERS = ('token', 'gap', 'map', 'unpooled', 'token_unpooled')


class MAPHead(nn.Module):
  """Multihead attention pooling: a learned query reads all tokens.

  Zhai et al. 2022, arXiv 2106.04560.
  """

  num_heads: int
  mlp_dim: int
  gelu: str = 'tanh'
  attention: str = 'auto'
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
    x = MultiHeadDotProductAttention(
      self.num_heads, attention=self.attention, **types
    )(probe, x, train=train)
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
    localisation_size: see `SpatialTransformer`, as for the following.
    localisation_features: None for no spatial transformer before the patches.
    localisation_kernel_size: of its convolutions.
    localisation_hidden_dim: of its dense layer.
    attention: one of `attention.ATTENTIONS`; what comes out is the same.
    remat: what training computes again instead of keeping it, one of
      `blocks.REMATS`.
    scan_layers: whether to compile one block for all of them, whose parameters
      may be stacked, see `blocks.stack_layers`.
    dtype: of the computation; logits are float32 whatever it is.
    param_dtype: of the parameters.
  """

  # The other families repeat some of these: in a common base, those with
  # defaults would have to come before those without.
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
  localisation_size: int = 32
  localisation_features: tuple[int, ...] | None = None
  localisation_kernel_size: int = 5
  localisation_hidden_dim: int = 32
  attention: str = 'auto'
  remat: str = 'none'
  scan_layers: bool = False
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
    transformer = spatial_transformer.of_model(self)
    if transformer is not None:
      x = transformer(x)
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
      attention=self.attention,
      remat=self.remat,
      scan_layers=self.scan_layers,
      name='Transformer',
      **types,
    )(x, (rows, columns), train=train)

    x = _pool(self, x, train)
    if self.representation_size is not None:
      x = nn.Dense(self.representation_size, name='pre_logits', **types)(x)
      x = nn.tanh(x)
    return apply_head(self, x)


def _pool(
  model: VisionTransformer, x: Float[Array, 'batch tokens width'], train: bool
) -> Float[Array, 'batch ... width']:
  """Returns what the classifier reads, within a compact method of the model."""
  if model.classifier == 'token':
    return x[:, 0]
  if model.classifier == 'gap':
    return x.mean(axis=1)
  if model.classifier == 'map':
    types = {'dtype': model.dtype, 'param_dtype': model.param_dtype}
    return MAPHead(
      model.num_heads, model.mlp_dim, model.gelu, model.attention, **types
    )(x, train=train)
  return x
