"""Where pixels go: cropped, resized, shifted, mirrored, warped.

Every function takes one image and is jit- and vmap-able; random ones are pure
functions of their key.
"""

from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, Num

Size = int | tuple[int, int]

# Tries before a box that sticks out of the image is cut to it. With the default
# ranges of crops on a square image about one try in thirteen fails.
_BOX_ATTEMPTS = 10
# Names of what surrounds a shifted image, as `jnp.pad` has them: black, the
# image mirrored, or the pixels of its border.
PadMode = Literal['constant', 'reflect', 'edge']
PAD_MODES = get_args(PadMode)


def random_resized_crop(
  key: Key[Array, ''],
  image: Num[Array, 'height width channels'],
  size: Size,
  area_range: tuple[float, float] = (0.05, 1.0),
  ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
) -> Float[Array, 'height_out width_out channels']:
  """Cuts a random box out of an image and resizes it bilinearly.

  The box has a uniform share of the area, a log-uniform aspect ratio and a
  uniform place (Szegedy et al. 2015, section 6). Its corners need not be whole
  pixels, which matters for small images.

  Args:
    key: the only source of randomness.
    image: [height, width, channels], any range.
    size: side of the result, or (height, width).
    area_range: smallest and largest share of the image's area, in (0, 1].
    ratio_range: smallest and largest width / height.

  Returns:
    float32 [*size, channels] in the range of the image.
  """
  height, width = image.shape[:2]
  area_key, ratio_key, y_key, x_key = jax.random.split(key, 4)
  box_height, box_width, _ = draw_box_size(
    area_key, ratio_key, (height, width), area_range, ratio_range
  )
  box_height = jnp.minimum(box_height, height)
  box_width = jnp.minimum(box_width, width)
  top = jax.random.uniform(y_key) * (height - box_height)
  left = jax.random.uniform(x_key) * (width - box_width)
  return crop_and_resize(image, (top, left, box_height, box_width), size)


def draw_box_size(
  area_key: Key[Array, ''],
  ratio_key: Key[Array, ''],
  size: tuple[int, int],
  area_range: tuple[float, float],
  ratio_range: tuple[float, float],
) -> tuple[Float[Array, ''], Float[Array, ''], Bool[Array, '']]:
  """Draws the size of a box, again if it sticks out of the image.

  Args:
    area_key: for the share of the area, which is uniform.
    ratio_key: for width / height, which is log-uniform.
    size: (height, width) of the image in pixels.
    area_range: smallest and largest share of the image's area, in (0, 1].
    ratio_range: smallest and largest width / height.

  Returns:
    Height and width in pixels, and whether the box fits: after ten tries it
    may not.
  """
  height, width = size
  shape = (_BOX_ATTEMPTS,)
  area = jax.random.uniform(
    area_key, shape, minval=area_range[0], maxval=area_range[1]
  )
  log_ratio = jax.random.uniform(
    ratio_key,
    shape,
    minval=jnp.log(ratio_range[0]),
    maxval=jnp.log(ratio_range[1]),
  )
  area, ratio = area * height * width, jnp.exp(log_ratio)
  box_heights, box_widths = jnp.sqrt(area / ratio), jnp.sqrt(area * ratio)
  fits = (box_heights <= height) & (box_widths <= width)
  first = jnp.argmax(fits)  # The first that fits, or 0 if none does.
  return box_heights[first], box_widths[first], fits[first]


def crop_and_resize(
  image: Num[Array, 'height width channels'],
  box: tuple[Any, Any, Any, Any],
  size: Size,
) -> Float[Array, 'height_out width_out channels']:
  """Resizes a box of an image bilinearly, without smoothing first.

  Args:
    image: [height, width, channels].
    box: (top, left, height, width) in pixels, real numbers.
    size: side of the result, or (height, width).

  Returns:
    float32 [*size, channels]. Pixels have their values at their centres, as in
    OpenCV, Pillow and `tf.image.resize`.
  """
  top, left, box_height, box_width = box
  rows, columns = _pair(size)
  scale = jnp.stack([rows / box_height, columns / box_width])
  return jax.image.scale_and_translate(
    image.astype(jnp.float32),
    (rows, columns, image.shape[-1]),
    (0, 1),
    scale,
    -jnp.stack([top, left]) * scale,
    method='linear',
    antialias=False,
  )


def resize(
  image: Num[Array, 'height width channels'], size: Size
) -> Float[Array, 'height_out width_out channels']:
  """Squashes a whole image to `size`; see `crop_and_resize`."""
  height, width = image.shape[:2]
  box = (0.0, 0.0, float(height), float(width))
  return crop_and_resize(image, jax.tree.map(jnp.float32, box), size)


def random_flip(
  key: Key[Array, ''], image: Num[Array, 'height width channels']
) -> Num[Array, 'height width channels']:
  """Mirrors an image left to right, half of the time."""
  return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def random_shift(
  key: Key[Array, ''],
  image: Num[Array, 'height width channels'],
  pad: int = 4,
  mode: PadMode = 'constant',
) -> Num[Array, 'height width channels']:
  """Shifts an image by up to `pad` whole pixels, up or down and sideways.

  It is a crop of the padded image, as for CIFAR (He et al. 2016, section 4.2).

  Args:
    key: the only source of randomness.
    image: [height, width, channels], any range.
    pad: the largest shift in pixels.
    mode: one of `PAD_MODES`, what comes from outside.

  Returns:
    As the image, in shape and kind.
  """
  padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode)
  top, left = jax.random.randint(key, (2,), 0, 2 * pad + 1)
  return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def random_affine(
  key: Key[Array, ''],
  image: Num[Array, 'height width channels'],
  size: Size,
  *,
  rotate: float = 0.0,
  scale: float = 0.0,
  shear: float = 0.0,
  shift: float = 0.0,
) -> Float[Array, 'height_out width_out channels']:
  """Rotates, scales, shears and shifts about the centre, and resizes.

  All is one bilinear sampling of the original, so nothing is blurred twice.
  What comes from outside of the image is black.

  Args:
    key: the only source of randomness.
    image: [height, width, channels], any range.
    size: side of the result, or (height, width).
    rotate: largest angle in degrees, either way.
    scale: largest change of size, in (0, 1): sides by 1 - scale to 1 + scale,
      log-uniform, drawn for height and width alone.
    shear: largest horizontal shear angle in degrees, either way.
    shift: largest shift as a share of the side, either way.

  Returns:
    float32 [*size, channels] in the range of the image.
  """
  height, width = image.shape[:2]
  rows, columns = _pair(size)
  rotate_key, scale_key, shear_key, shift_key = jax.random.split(key, 4)
  angle = jnp.deg2rad(rotate) * _symmetric(rotate_key)
  slope = jnp.tan(jnp.deg2rad(shear) * _symmetric(shear_key))
  zoom = jnp.exp(
    jax.random.uniform(
      scale_key, (2,), minval=jnp.log1p(-scale), maxval=jnp.log1p(scale)
    )
  )
  offset = shift * _symmetric(shift_key, (2,))

  # From the output's pixel centres, in [-0.5, 0.5], to the input's.
  y = (jnp.arange(rows) + 0.5)[:, None] / rows - 0.5 - offset[0]
  x = (jnp.arange(columns) + 0.5)[None, :] / columns - 0.5 - offset[1]
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  source_y = (cos * y + sin * x) / zoom[0]
  source_x = (cos * x - sin * y + slope * y) / zoom[1]
  source_y = (source_y + 0.5) * height - 0.5
  source_x = (source_x + 0.5) * width - 0.5
  return bilinear_sample(image, source_y, source_x)


def bilinear_sample(
  image: Num[Array, 'height width channels'],
  y: Float[Array, 'rows columns'],
  x: Float[Array, 'rows columns'],
) -> Float[Array, 'rows columns channels']:
  """Returns the image at real pixel positions; black outside of it.

  A pixel is a square around its centre, so the image ends half a pixel beyond
  the centres of its border and `resize` is the case that nothing is moved.
  """
  height, width = image.shape[:2]
  inside = (y >= -0.5) & (y <= height - 0.5) & (x >= -0.5) & (x <= width - 0.5)

  def sample(channel):
    return jax.scipy.ndimage.map_coordinates(
      channel, [y, x], order=1, mode='nearest'
    )

  samples = jax.vmap(sample, in_axes=-1, out_axes=-1)(image.astype(jnp.float32))
  return samples * inside[..., None]


def _symmetric(key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
  """Returns numbers that are uniform in [-1, 1)."""
  return jax.random.uniform(key, shape, minval=-1.0, maxval=1.0)


def _pair(size: Size) -> tuple[int, int]:
  return (size, size) if isinstance(size, int) else (size[0], size[1])
