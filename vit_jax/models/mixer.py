"""The MLP-Mixer: Tolstikhin et al. 2021, arXiv 2105.01601.

The parameter tree is the key tree of Google's published `.npz` files, so names
here are not free to change.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax import errors
from vit_jax.models.blocks import apply_blocks
from vit_jax.models.head import apply_head
from vit_jax.models.mlp import MlpBlock

Dtype = Any


class MixerBlock(nn.Module):
  """An MLP across tokens, then one across channels, each on a residual branch.

  Eq. 1 of the paper.
  """

  tokens_mlp_dim: int
  channels_mlp_dim: int
  gelu: str = 'tanh'
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch tokens width'], *, train: bool
  ) -> Float[Array, 'batch tokens width']:
    types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}

    def mlp(mlp_dim, name, y):
      return MlpBlock(
        mlp_dim,
        gelu=self.gelu,
        kernel_init=nn.initializers.lecun_normal(),
        bias_init=nn.initializers.zeros,
        name=name,
        **types,
      )(y, train=train)

    y = nn.LayerNorm(epsilon=1e-6, **types)(x)
    y = jnp.swapaxes(y, 1, 2)  # [batch, width, tokens]
    y = mlp(self.tokens_mlp_dim, 'token_mixing', y)
    x = x + jnp.swapaxes(y, 1, 2)

    y = nn.LayerNorm(epsilon=1e-6, **types)(x)
    return x + mlp(self.channels_mlp_dim, 'channel_mixing', y)


class MlpMixer(nn.Module):
  """Patches, blocks that mix tokens and channels, mean over tokens, head.

  There is no position embedding: token mixing has a weight for every pair of
  positions. So its parameters are bound to one image size.

  Attributes:
    num_classes: width of the head, or None for the features before it.
    patch_size: (height, width) of a patch in pixels.
    hidden_dim: width of a token.
    num_blocks: mixer blocks.
    tokens_mlp_dim: hidden width of the MLPs across tokens.
    channels_mlp_dim: hidden width of the MLPs across channels.
    gelu: 'tanh' for the approximation that the published weights were trained
      with, or 'exact'.
    head_bias_init: the head's bias at the start; its kernel starts at zero.
    remat: what training computes again instead of keeping it, one of
      `blocks.REMATS`.
    scan_layers: whether to compile one block for all of them, whose parameters
      may be stacked, see `blocks.stack_layers`.
    dtype: of the computation; logits are float32 whatever it is.
    param_dtype: of the parameters.
  """

  num_classes: int | None
  patch_size: tuple[int, int]
  hidden_dim: int
  num_blocks: int
  tokens_mlp_dim: int
  channels_mlp_dim: int
  gelu: str = 'tanh'
  head_bias_init: float = 0.0
  remat: str = 'none'
  scan_layers: bool = False
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
    """Returns (rows, columns) of patches in an image of (height, width)."""
    (height, width), (high, wide) = image_size, self.patch_size
    return height // high, width // wide

  @nn.compact
  def __call__(
    self, images: Float[Array, 'batch height width 3'], *, train: bool = False
  ) -> Float[Array, 'batch ...']:
    """Returns logits, or features where there is no head.

    Args:
      images: [batch, height, width, 3] in [-1, 1]. Pixels beyond the last whole
        patch are not looked at.
      train: changes nothing; a Mixer has no dropout.

    Returns:
      float32 [batch, num_classes]; with `num_classes=None` [batch, hidden_dim].

    Raises:
      ConfigError: the images are smaller than one patch, or of another size
        than the one that the parameters were made for.
    """
    types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    x = jnp.asarray(images)
    self._check_size(x.shape[1], x.shape[2])
    x = nn.Conv(
      self.hidden_dim,
      self.patch_size,
      strides=self.patch_size,
      padding='VALID',
      name='stem',
      **types,
    )(x)
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    x = apply_blocks(
      self,
      functools.partial(
        MixerBlock,
        self.tokens_mlp_dim,
        self.channels_mlp_dim,
        self.gelu,
        **types,
      ),
      [f'MixerBlock_{i}' for i in range(self.num_blocks)],
      x,
      train=train,
      remat=self.remat,
      scan_layers=self.scan_layers,
    )
    x = nn.LayerNorm(epsilon=1e-6, name='pre_head_layer_norm', **types)(x)
    return apply_head(self, x.mean(axis=1))

  def _check_size(self, height: int, width: int) -> None:
    """Raises ConfigError for images that the parameters are not made for."""
    rows, columns = self.grid((height, width))
    found = f'Images of {height} by {width} pixels'
    if not rows * columns:
      raise errors.ConfigError(
        f'{found} hold no whole patch of {self.patch_size}. Use larger images '
        '(config.pp.crop) or smaller patches (config.model.patches.size).'
      )
    node = self.variables.get('params', {})  # Empty while they are made.
    node = node.get('MixerBlock', node.get('MixerBlock_0', {}))
    for name in ('token_mixing', 'Dense_0'):
      node = node.get(name, {})
    tokens = node['kernel'].shape[-2] if 'kernel' in node else rows * columns
    if tokens == rows * columns:
      return
    side = round(tokens**0.5)
    size = ' by '.join(str(side * patch) for patch in self.patch_size)
    raise errors.ConfigError(
      f'{found} have {rows * columns} patches of {self.patch_size}, and this '
      f'Mixer mixes {tokens}. A Mixer is bound to the image size that it was '
      'made for: set config.pp.crop to that size'
      + (f' ({size} pixels if square).' if side * side == tokens else '.')
    )
