"""A small convolutional classifier, of the kind that tutorials begin with."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax import errors
from vit_jax.models import spatial_transformer
from vit_jax.models.convolutions import apply_convolutions
from vit_jax.models.head import apply_head

Dtype = Any


class ConvNet(nn.Module):
  """Convolutions that are pooled, one dense layer, head.

  The dense layer has a weight for every position, so the parameters are bound
  to one image size.

  Attributes:
    num_classes: width of the head, or None for the features before it.
    conv_features: of each convolution; a pooling by 2 follows it.
    conv_kernel_size: side of the convolutions.
    dense_size: width of the dense layer.
    dropout_rate: chance in [0, 1) that one of its activations is zeroed in
      training.
    head_bias_init: the head's bias at the start; its kernel starts at zero.
    localisation_size: see `SpatialTransformer`, as for the following.
    localisation_features: None for no spatial transformer.
    localisation_kernel_size: of its convolutions.
    localisation_hidden_dim: of its dense layer.
    remat: changes nothing, as there are no blocks.
    scan_layers: changes nothing either.
    dtype: of the computation; logits are float32 whatever it is.
    param_dtype: of the parameters.
  """

  num_classes: int | None
  conv_features: tuple[int, ...]
  conv_kernel_size: int
  dense_size: int
  dropout_rate: float = 0.0
  head_bias_init: float = 0.0
  localisation_size: int = 32
  localisation_features: tuple[int, ...] | None = None
  localisation_kernel_size: int = 5
  localisation_hidden_dim: int = 32
  remat: str = 'none'
  scan_layers: bool = False
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @property
  def patch_size(self) -> tuple[int, int]:
    """Returns (height, width) in pixels of what all poolings make one of."""
    return (2 ** len(self.conv_features),) * 2

  def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
    """Returns (rows, columns) of what the dense layer sees of an image."""
    (height, width), (high, wide) = image_size, self.patch_size
    return height // high, width // wide

  @nn.compact
  def __call__(
    self, images: Float[Array, 'batch height width 3'], *, train: bool = False
  ) -> Float[Array, 'batch ...']:
    """Returns logits, or features where there is no head.

    Args:
      images: [batch, height, width, 3] in [-1, 1].
      train: whether to drop; takes a 'dropout' key if the rate is above zero.

    Returns:
      float32 [batch, num_classes]; with `num_classes=None` [batch, dense_size].

    Raises:
      ConfigError: the images are too small to be pooled, or of another size
        than the one that the parameters were made for.
    """
    types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    x = jnp.asarray(images)
    self._check_size(x.shape[1], x.shape[2])
    transformer = spatial_transformer.of_model(self)
    if transformer is not None:
      x = transformer(x)
    x = apply_convolutions(
      x, self.conv_features, self.conv_kernel_size, **types
    )
    x = x.reshape(x.shape[0], -1)
    x = nn.relu(nn.Dense(self.dense_size, name='hidden', **types)(x))
    x = nn.Dropout(self.dropout_rate, deterministic=not train)(x)
    return apply_head(self, x)

  def _check_size(self, height: int, width: int) -> None:
    """Raises ConfigError for images that the parameters are not made for."""
    rows, columns = self.grid((height, width))
    found = f'Images of {height} by {width} pixels'
    if not rows * columns:
      raise errors.ConfigError(
        f'{found} are too small for {len(self.conv_features)} poolings by 2. '
        'Use larger images (config.pp.crop) or fewer convolutions '
        '(config.model.conv_features).'
      )
    params = self.variables.get('params', {})  # Empty while they are made.
    if 'hidden' not in params:
      return
    places = params['hidden']['kernel'].shape[0] // self.conv_features[-1]
    if places != rows * columns:
      raise errors.ConfigError(
        f'{found} have {rows * columns} places after the poolings, and the '
        f'dense layer of this ConvNet reads {places}. It is bound to the image '
        'size that it was made for: set config.pp.crop to that size.'
      )
