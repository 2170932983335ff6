"""Random changes of brightness, contrast, saturation and hue."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num

Image = Num[Array, 'height width 3']
Pixels = Float[Array, 'height width 3']

_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601.


def color_jitter(
  key: Key[Array, ''],
  image: Image,
  *,
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
  hue: float = 0.0,
) -> Pixels:
  """Changes an image's colours by random amounts.

  The ranges mean what torchvision's mean; the order is always brightness,
  contrast, saturation, hue, where torchvision draws one.

  Args:
    key: the only source of randomness.
    image: levels [height, width, 3] in [0, 255].
    brightness: the factor is uniform in [1 - brightness, 1 + brightness], but
      not negative.
    contrast: likewise, about the mean grey of the image.
    saturation: likewise, about the grey of each pixel.
    hue: the hue turns by a uniform share of the circle in [-hue, hue]; at most
      0.5.

  Returns:
    float32 [height, width, 3] in [0, 255]. What is 0 is left as it is.
  """
  levels = image.astype(jnp.float32)
  keys = jax.random.split(key, 4)

  def factor(key, strength):
    return jax.random.uniform(
      key, minval=max(0.0, 1 - strength), maxval=1 + strength
    )

  if brightness:
    levels = adjust_brightness(levels, factor(keys[0], brightness))
  if contrast:
    levels = adjust_contrast(levels, factor(keys[1], contrast))
  if saturation:
    levels = adjust_saturation(levels, factor(keys[2], saturation))
  if hue:
    turn = jax.random.uniform(keys[3], minval=-hue, maxval=hue)
    levels = adjust_hue(levels, turn)
  return levels


def adjust_brightness(levels: Pixels, factor: Float[Array, '']) -> Pixels:
  """Multiplies all levels; 0 gives black."""
  return _blend(jnp.zeros_like(levels), levels, factor)


def adjust_contrast(levels: Pixels, factor: Float[Array, '']) -> Pixels:
  """Moves all levels from or to the mean grey; 0 gives that."""
  return _blend(_grey(levels).mean(), levels, factor)


def adjust_saturation(levels: Pixels, factor: Float[Array, '']) -> Pixels:
  """Moves the colours from or to grey; 0 gives a grey image."""
  return _blend(_grey(levels), levels, factor)


def adjust_hue(levels: Pixels, turn: Float[Array, '']) -> Pixels:
  """Turns the hue by a share of the circle, value and saturation kept.

  Args:
    levels: [height, width, 3] in [0, 255].
    turn: 1/3 turns red into green.

  Returns:
    float32 of the same shape.
  """
  red, green, blue = jnp.moveaxis(levels, -1, 0)
  value = levels.max(axis=-1)
  chroma = value - levels.min(axis=-1)
  span = jnp.where(chroma > 0, chroma, 1.0)
  sixths = jnp.where(
    value == red,
    (green - blue) / span,
    jnp.where(
      value == green, 2 + (blue - red) / span, 4 + (red - green) / span
    ),
  )
  # A channel is full within a sixth of its own hue and falls to both sides.
  place = (jnp.array([5.0, 3.0, 1.0]) + sixths[..., None] + 6 * turn) % 6
  lack = jnp.clip(jnp.minimum(place, 4 - place), 0, 1)
  return value[..., None] - chroma[..., None] * lack


def _grey(levels: jax.Array) -> jax.Array:
  """Returns the luma [height, width, 1]."""
  return (levels * jnp.array(_LUMA)).sum(axis=-1, keepdims=True)


def _blend(start: jax.Array, levels: jax.Array, factor: jax.Array) -> jax.Array:
  return jnp.clip(start + factor * (levels - start), 0, 255)
