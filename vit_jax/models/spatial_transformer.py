"""Spatial transformers: Jaderberg et al. 2015, arXiv 1506.02025.

A small network looks at an image, says where the model should look, and the
image is sampled there: turned upright, enlarged, moved to the middle. Nobody
tells it how; it learns from the loss of what comes behind.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax import errors
from vit_jax.models.convolutions import apply_convolutions

Dtype = Any

# The transform that changes nothing, row by row.
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
# The module's place in a model's parameters.
NAME = 'spatial_transformer'
_BLACK = -1.0


def affine_grid(
  theta: Float[Array, 'batch 2 3'], size: tuple[int, int]
) -> Float[Array, 'batch height width 2']:
  """Returns where each pixel of a transformed image comes from.

  Section 3.2 of the paper, eq. 1. Coordinates are (x, y), from -1 at the left
  or upper border of the image to 1 at the other; a border is that of the
  outermost pixels, not their centre (PyTorch's `align_corners=False`).

  Args:
    theta: the transform of each image, from coordinates in the result to those
      in the input, which is why nothing has to be inverted.
    size: (height, width) of the result in pixels.

  Returns:
    Points (x, y) of at least float32: bfloat16 would miss them by pixels.

  Raises:
    ConfigError: `theta` has another shape.
  """
  if theta.ndim != 3 or theta.shape[1:] != (2, 3):
    raise errors.ConfigError(
      f'Transforms have the shape {theta.shape}, expected [batch, 2, 3].'
    )
  height, width = size
  theta = theta.astype(jnp.promote_types(theta.dtype, jnp.float32))
  y = (2 * jnp.arange(height, dtype=theta.dtype) + 1) / height - 1
  x = (2 * jnp.arange(width, dtype=theta.dtype) + 1) / width - 1
  ones = jnp.ones(size, theta.dtype)
  points = jnp.stack([ones * x, ones * y[:, None], ones], axis=-1)
  # Of two products and a sum: at a lower precision, pixels would move.
  return jnp.einsum(
    'bij,hwj->bhwi', theta, points, precision=jax.lax.Precision.HIGHEST
  )


def grid_sample(
  images: Float[Array, 'batch height width channels'],
  grid: Float[Array, 'batch rows columns 2'],
) -> Float[Array, 'batch rows columns channels']:
  """Returns images sampled at the points of a grid, bilinearly.

  Eq. 5 of the paper. What lies outside of an image is zero. Differentiable in
  both arguments; at a pixel's centre, where the slope changes, the gradient is
  that towards larger coordinates.

  Args:
    images: of any dtype, which the result has.
    grid: (x, y) as `affine_grid` has them; those beyond [-1, 1] are outside.

  Raises:
    ConfigError: the grid is not that of as many images, or not of points.
  """
  if grid.ndim != 4 or (len(grid), grid.shape[3]) != (len(images), 2):
    raise errors.ConfigError(
      f'The grid has the shape {grid.shape}, expected [{len(images)}, rows, '
      f'columns, 2], as the images have the shape {images.shape}.'
    )
  height, width = images.shape[1:3]
  dtype = jnp.promote_types(grid.dtype, jnp.float32)
  x = _pixels(grid[..., 0].astype(dtype), width)
  y = _pixels(grid[..., 1].astype(dtype), height)
  left, top = jnp.floor(x), jnp.floor(y)
  right_share, bottom_share = x - left, y - top
  sampled = 0.0
  for row, row_share in ((top, 1 - bottom_share), (top + 1, bottom_share)):
    for column, column_share in (
      (left, 1 - right_share),
      (left + 1, right_share),
    ):
      share = row_share * column_share
      values = _at(images, row.astype('int32'), column.astype('int32'))
      sampled += share[..., None] * values.astype(dtype)
  if jnp.issubdtype(images.dtype, jnp.integer):
    sampled = jnp.round(sampled)  # Shares add up to a little less than one.
  return jnp.asarray(sampled).astype(images.dtype)


def _pixels(points: jax.Array, size: int) -> jax.Array:
  """Returns coordinates in pixels, 0 being the centre of the first."""
  found = ((points + 1) * size - 1) / 2
  # What is further away is zero as well, and may be too large for an integer.
  return jnp.clip(found, -2, size + 1)


def _at(images: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
  """Returns [batch, *places, channels], zero where a place is outside."""
  batch, height, width, channels = images.shape
  is_inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
  places = jnp.clip(rows, 0, height - 1) * width + jnp.clip(
    columns, 0, width - 1
  )
  found = jnp.take_along_axis(
    images.reshape(batch, height * width, channels),
    places.reshape(batch, -1, 1),
    axis=1,
    mode='promise_in_bounds',
  ).reshape(*places.shape, channels)
  return jnp.where(is_inside[..., None], found, 0)


class SpatialTransformer(nn.Module):
  """Turns, scales, shears and shifts each image, the way it learns to.

  At the start it changes nothing: the last layer of the localisation network
  has a zero kernel and the identity as its bias.

  Attributes:
    size: side in pixels of the square that the localisation network sees; other
      images are resized for it, so its parameters fit images of any size.
    features: of its convolutions; each is followed by a pooling by 2, so that
      `2 ** len(features)` has to divide `size`.
    kernel_size: side of the convolutions.
    hidden_dim: width of the layer before the transform.
    dtype: of the localisation network; the transform is float32.
    param_dtype: of the parameters.
  """

  size: int
  features: tuple[int, ...]
  kernel_size: int
  hidden_dim: int
  dtype: Dtype = jnp.float32
  param_dtype: Dtype = jnp.float32

  @nn.compact
  def localise(
    self, images: Float[Array, 'batch height width channels']
  ) -> Float[Array, 'batch 2 3']:
    """Returns the transform of each image, as `affine_grid` takes it."""
    types = {'dtype': self.dtype, 'param_dtype': self.param_dtype}
    batch, *_, channels = images.shape
    shape = (batch, self.size, self.size, channels)
    x = images
    if x.shape != shape:
      x = jax.image.resize(x, shape, 'linear')
    x = apply_convolutions(x, self.features, self.kernel_size, **types)
    x = x.reshape(batch, -1)
    x = nn.relu(nn.Dense(self.hidden_dim, name='hidden', **types)(x))
    # Adam moves all weights equally far, however small their gradients are. So
    # as long as the classifier knows nothing, the sum of `hidden_dim` features
    # would drift; once it looks beside the image, all is black for ever.
    x = x * self.hidden_dim**-0.5
    theta = nn.Dense(
      6,
      kernel_init=nn.initializers.zeros,
      bias_init=lambda _, shape, dtype: jnp.asarray(IDENTITY, dtype),
      name='theta',
      dtype=jnp.float32,
      param_dtype=self.param_dtype,
    )(x)
    return theta.reshape(batch, 2, 3)

  def __call__(
    self, images: Float[Array, 'batch height width channels']
  ) -> Float[Array, 'batch height width channels']:
    """Returns the transformed images, black where there was no image.

    Args:
      images: in [-1, 1].
    """
    height, width = images.shape[1:3]
    grid = affine_grid(self.localise(images), (height, width))
    return grid_sample(images - _BLACK, grid) + _BLACK


def of_model(model: Any) -> SpatialTransformer | None:
  """Returns the transformer that stands before a model, None for none.

  Args:
    model: a module from `models.create_model`.
  """
  if getattr(model, 'localisation_features', None) is None:
    return None
  return SpatialTransformer(
    model.localisation_size,
    model.localisation_features,
    model.localisation_kernel_size,
    model.localisation_hidden_dim,
    dtype=model.dtype,
    param_dtype=model.param_dtype,
    name=NAME,
  )


def without(model: Any, params: Any) -> tuple[Any, dict[str, Any]]:
  """Returns the model behind its transformer, and the parameters of that.

  Args:
    model: a module that `of_model` finds a transformer of.
    params: of the model.
  """
  behind = model.clone(localisation_features=None)
  return behind, {name: params[name] for name in params if name != NAME}


def transform(
  model: Any,
  params: Any,
  images: Float[Array, 'batch height width channels'],
) -> tuple[
  Float[Array, 'batch height width channels'], Float[Array, 'batch 2 3']
]:
  """Returns what a model makes of images before it looks at them, and how.

  Args:
    model: a module that `of_model` finds a transformer of.
    params: of the model.
    images: in [-1, 1].

  Returns:
    (the transformed images, their transforms as `affine_grid` takes them).
  """
  module: Any = of_model(model)
  variables = {'params': params[NAME]}
  module = module.clone(name=None)
  theta = module.apply(variables, images, method='localise')
  return module.apply(variables, images), theta
