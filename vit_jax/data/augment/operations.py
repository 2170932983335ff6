"""The operations that policies draw from, equal to Pillow's on uint8 images.

Which one is done is an array, not a choice of Python's: a batch has others for
each image, and all of them are one compiled function. A `lax.switch` would do
all operations one by one there; what they have in common is done once instead.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, UInt8

Image = UInt8[Array, 'height width 3']
Matrices = Float[Array, 'operations 2 3']

_Table = Callable[[jax.Array, jax.Array], jax.Array]


def _autocontrast(counts: jax.Array, value: jax.Array) -> jax.Array:
  """Stretches each channel from its darkest and brightest to 0 and 255."""
  del value
  levels = jnp.arange(256)
  found = counts > 0
  low = jnp.argmax(found, axis=-1)[:, None]
  high = 255 - jnp.argmax(found[:, ::-1], axis=-1)[:, None]
  stretched = (levels - low) * 255 // jnp.maximum(high - low, 1)
  return jnp.where(high > low, stretched, levels)


def _equalize(counts: jax.Array, value: jax.Array) -> jax.Array:
  """Spreads the levels so that all are about as frequent."""
  del value
  levels = jnp.arange(256)
  last = 255 - jnp.argmax(counts[:, ::-1] > 0, axis=-1)[:, None]
  of_last = jnp.take_along_axis(counts, last, axis=-1)
  step = (counts.sum(axis=-1, keepdims=True) - of_last) // 255
  below = jnp.cumsum(counts, axis=-1) - counts
  spread = (below + step // 2) // jnp.maximum(step, 1)
  return jnp.where(step > 0, spread, levels)


def _invert(counts: jax.Array, value: jax.Array) -> jax.Array:
  del counts, value
  return 255 - jnp.arange(256)


def _posterize(counts: jax.Array, value: jax.Array) -> jax.Array:
  """Keeps the `value` highest bits, at least one."""
  del counts
  dropped = jnp.clip(8 - value.astype(jnp.int32), 0, 7)
  return jnp.arange(256) >> dropped << dropped


def _solarize(counts: jax.Array, value: jax.Array) -> jax.Array:
  """Inverts what is at least `value`."""
  del counts
  levels = jnp.arange(256)
  return jnp.where(levels < value, levels, 255 - levels)


def _solarize_add(counts: jax.Array, value: jax.Array) -> jax.Array:
  """Adds `value` to the darker half."""
  del counts
  levels = jnp.arange(256)
  return jnp.where(levels < 128, levels + value.astype(jnp.int32), levels)


# What a level becomes, whatever is around it: int32 [channels or 1, 256] of
# counts [channels, 256] and the value.
_TABLES: dict[str, _Table] = {
  'autocontrast': _autocontrast,
  'equalize': _equalize,
  'invert': _invert,
  'posterize': _posterize,
  'solarize': _solarize,
  'solarize_add': _solarize_add,
}
# Blends with a picture without colour, contrast, light or edges.
_BLENDS = ('color', 'contrast', 'brightness', 'sharpness')
_WARPS = ('rotate', 'shear_x', 'shear_y', 'translate_x', 'translate_y')

OPERATIONS = ('identity', *_TABLES, *_BLENDS, *_WARPS, 'cutout')


def apply_operation(
  image: Image,
  operation: Int[Array, ''],
  value: Float[Array, ''],
  place: Float[Array, '2'],
  fill: int = 0,
) -> Image:
  """Does one of `OPERATIONS` to an image, as Pillow does.

  Levels are within one of Pillow's; a rotated or sheared image has pixels at
  which Pillow, that computes with 16 bits of fraction, takes the neighbour.

  Args:
    image: uint8 levels [height, width, 3].
    operation: index into `OPERATIONS`.
    value: for posterize the bits to keep (at least one is kept), for solarize
      the threshold, for solarize_add what is added below 128; for color,
      contrast, brightness and sharpness the factor (1 changes nothing); for
      rotate degrees counter-clockwise, for shear the tangent, for translate
      the pixels by which the content moves left or up; for cutout half of the
      square's side. Others take none.
    place: (y, x) in [0, 1), where the middle of the cutout is.
    fill: level of what comes from outside of the image, and of the cutout.

  Returns:
    uint8 [height, width, 3].
  """
  result = _toned(image, operation, value)
  result = jnp.where(
    _is_among(operation, _BLENDS), _blended(image, operation, value), result
  )
  result = jnp.where(
    _is_among(operation, _WARPS), _warped(image, operation, value, fill), result
  )
  cut = _is_among(operation, ('cutout',)) & _in_square(image, value, place)
  return jnp.where(cut[..., None], jnp.uint8(fill), result)


def grey_levels(image: Image) -> Int[Array, 'height width']:
  """Returns the luma (ITU-R 601) of an image, rounded as Pillow rounds it."""
  red, green, blue = jnp.moveaxis(image.astype(jnp.int32), -1, 0)
  return (19595 * red + 38470 * green + 7471 * blue + 2**15) >> 16


def _is_among(operation: jax.Array, names: tuple[str, ...]) -> jax.Array:
  indices = jnp.array([OPERATIONS.index(name) for name in names])
  return (operation == indices).any()


def _pick(
  operation: jax.Array, options: dict[str, jax.Array], other: jax.Array
) -> jax.Array:
  """Returns the option of the operation, or the other where it has none."""
  rows = [options.get(name, other) for name in OPERATIONS]
  return jnp.stack([jnp.broadcast_to(x, other.shape) for x in rows])[operation]


def _toned(
  image: jax.Array, operation: jax.Array, value: jax.Array
) -> jax.Array:
  """Returns the image through the table of the operation."""
  slots = image.astype(jnp.int32) + 256 * jnp.arange(3)
  counts = jnp.zeros(3 * 256, jnp.int32).at[slots.ravel()].add(1)
  counts = counts.reshape(3, 256)
  tables = {name: table(counts, value) for name, table in _TABLES.items()}
  unchanged = jnp.broadcast_to(jnp.arange(256), (3, 256))
  table = _pick(operation, tables, unchanged)
  table = jnp.clip(table, 0, 255).astype(jnp.uint8)
  return table.ravel()[slots]


def _blended(
  image: jax.Array, operation: jax.Array, value: jax.Array
) -> jax.Array:
  """Returns what lies on the line through the blend's other end and the image.

  Args:
    image: uint8 [height, width, 3].
    operation: index of one of `_BLENDS`.
    value: 0 for the other end, 1 for the image, more to go beyond.
  """
  grey = grey_levels(image)
  mean = jnp.floor(grey.mean(dtype=jnp.float32) + 0.5)
  flat = jnp.where(_is_among(operation, ('contrast',)), mean, 0.0)
  plain = jnp.where(_is_among(operation, ('color',)), grey, flat)
  is_sharpness = _is_among(operation, ('sharpness',))
  start = jnp.where(is_sharpness, _smoothed(image), plain[..., None])
  levels = start + value * (image.astype(jnp.float32) - start)
  return jnp.clip(levels, 0, 255).astype(jnp.uint8)  # Cut off, not rounded.


def _smoothed(image: jax.Array) -> jax.Array:
  """Returns a mean of 3x3 pixels, the middle times 5; borders as they are."""
  levels = image.astype(jnp.float32)
  height, width = image.shape[:2]
  padded = jnp.pad(levels, ((1, 1), (0, 0), (0, 0)))
  columns = jnp.pad(
    padded[:-2] + padded[1:-1] + padded[2:], ((0, 0), (1, 1), (0, 0))
  )
  box = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:]
  smooth = jnp.floor((box + 4 * levels) / 13 + 0.5)
  y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
  is_inside = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
  return jnp.where(is_inside, smooth, levels)


def _warped(
  image: jax.Array, operation: jax.Array, value: jax.Array, fill: int
) -> jax.Array:
  """Returns the image moved; each pixel is the nearest one of the original."""
  height, width = image.shape[:2]
  angle = jnp.deg2rad(value)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  one, zero = jnp.float32(1), jnp.float32(0)
  middle_x, middle_y = width / 2, height / 2
  # From the result's (x, y, 1) to the original's (x, y).
  rotation = [
    [cos, -sin, middle_x - cos * middle_x + sin * middle_y],
    [sin, cos, middle_y - sin * middle_x - cos * middle_y],
  ]
  matrices = {
    'rotate': rotation,
    'shear_x': [[one, value, zero], [zero, one, zero]],
    'shear_y': [[one, zero, zero], [value, one, zero]],
    'translate_x': [[one, zero, value], [zero, one, zero]],
    'translate_y': [[one, zero, zero], [zero, one, value]],
  }
  matrix = _pick(
    operation,
    {name: jnp.array(rows) for name, rows in matrices.items()},
    jnp.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
  )
  x = jnp.arange(width) + 0.5
  y = jnp.arange(height)[:, None] + 0.5
  columns, rows = (jnp.floor(a * x + b * y + c) for a, b, c in matrix)
  inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
  places = jnp.where(inside, rows * width + columns, 0).astype(jnp.int32)
  moved = image.reshape(-1, 3)[places]
  return jnp.where(inside[..., None], moved, jnp.uint8(fill))


def _in_square(
  image: jax.Array, half: jax.Array, place: jax.Array
) -> jax.Array:
  """Returns bool [height, width]: true in a square, cut at the border."""
  height, width = image.shape[:2]
  rows, columns = jnp.arange(height)[:, None], jnp.arange(width)
  middle_y, middle_x = jnp.floor(place * jnp.array([height, width]))
  return (
    (rows >= middle_y - half)
    & (rows < middle_y + half)
    & (columns >= middle_x - half)
    & (columns < middle_x + half)
  )
