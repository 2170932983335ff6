"""The ResNet stem of the hybrids: weight-standardised, group-normalised.

Kolesnikov et al. 2020 (Big Transfer) with the post-activation bottlenecks that
the published R+ViT weights were trained with.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Dtype = Any


class StdConv(nn.Module):
  """Bias-free convolution with a kernel standardised per output channel.

  Qiao et al. 2019: mean 0 and deviation 1 over height, width and input
  channels. The deviation is the population's; 1e-5 is added to it, not to the
  variance.
  """

  features: int
  size: int
  stride: int = 1
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, 'batch height width channels']
  ) -> Float[Array, 'batch height_out width_out features']:
    kernel = self.param(
      'kernel',
      nn.initializers.lecun_normal(),
      (self.size, self.size, x.shape[-1], self.features),
      self.param_dtype,
    )
    kernel = kernel - kernel.mean(axis=(0, 1, 2))
    kernel = kernel / (kernel.std(axis=(0, 1, 2)) + 1e-5)
    return jax.lax.conv_general_dilated(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      window_strides=(self.stride, self.stride),
      padding='SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )


class ResidualUnit(nn.Module):
  """Bottleneck: 1x1 down, 3x3 with the stride, 1x1 up to `4 * features`."""

  features: int
  stride: int = 1
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'batch ...']) -> Float[Array, 'batch ...']:
    """Maps [batch, h, w, in] to [batch, h / stride, w / stride, 4 features]."""
    types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}

    def conv(name, features, size, stride, x):
      return StdConv(features, size, stride, name=name, **types)(x)

    def norm(name, x, scale_init=nn.initializers.ones):
      return nn.GroupNorm(
        32, epsilon=1e-6, scale_init=scale_init, name=name, **types
      )(x)

    shortcut = x
    if x.shape[-1] != 4 * self.features or self.stride != 1:
      shortcut = conv('conv_proj', 4 * self.features, 1, self.stride, x)
      shortcut = norm('gn_proj', shortcut)
    x = nn.relu(norm('gn1', conv('conv1', self.features, 1, 1, x)))
    x = nn.relu(norm('gn2', conv('conv2', self.features, 3, self.stride, x)))
    # A unit starts as the identity: its last scale is zero.
    x = conv('conv3', 4 * self.features, 1, 1, x)
    x = norm('gn3', x, nn.initializers.zeros)
    return nn.relu(shortcut + x)


class ResNetStage(nn.Module):
  """`num_units` bottlenecks, of which the first has the stride."""

  num_units: int
  features: int
  stride: int
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, 'batch ...']) -> Float[Array, 'batch ...']:
    for i in range(self.num_units):
      x = ResidualUnit(
        self.features,
        self.stride if i == 0 else 1,
        dtype=self.dtype,
        param_dtype=self.param_dtype,
        name=f'unit{i + 1}',
      )(x)
    return x


def apply_stem(
  x: Float[Array, 'batch ...'],
  num_layers: Sequence[int],
  width_factor: float,
  dtype: Dtype,
  param_dtype: Dtype,
) -> Float[Array, 'batch ...']:
  """Runs the stem inside the compact method of the module that owns it.

  It is a function, not a module, because the published files keep `conv_root`
  and `block1` at the top of their key tree.

  Args:
    x: [batch, height, width, 3].
    num_layers: bottlenecks per stage; empty for the root alone.
    width_factor: the first stage has `64 * width_factor` features.
    dtype: of the computation.
    param_dtype: of the parameters.

  Returns:
    [batch, height / s, width / s, features], s being `stem_stride(num_layers)`.
  """
  types = {'dtype': dtype, 'param_dtype': param_dtype}
  width = int(64 * width_factor)
  x = StdConv(width, size=7, stride=2, name='conv_root', **types)(x)
  x = nn.relu(nn.GroupNorm(32, epsilon=1e-6, name='gn_root', **types)(x))
  x = nn.max_pool(x, (3, 3), strides=(2, 2), padding='SAME')
  for i, num_units in enumerate(num_layers):
    x = ResNetStage(
      num_units,
      features=width * 2**i,
      stride=1 if i == 0 else 2,
      name=f'block{i + 1}',
      **types,
    )(x)
  return x


def stem_stride(num_layers: Sequence[int]) -> int:
  """Returns how many pixels wide one output position of the stem is."""
  return 4 * 2 ** max(0, len(num_layers) - 1)
