"""RandAugment and TrivialAugment: which operations, and how much of each."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from vit_jax.data.augment.operations import OPERATIONS, Image, apply_operation

_SIGNED = ('rotate', 'shear_x', 'shear_y', 'translate_x', 'translate_y')
# Side of the images for which the published shifts are meant, in pixels.
_PUBLISHED_SIDE = 224
_TRIVIAL_LEVELS = 31
_TRIVIAL_OPERATIONS = tuple(
  name
  for name in OPERATIONS
  if name not in ('invert', 'solarize_add', 'cutout')
)


def rand_augment(
  key: Key[Array, ''], image: Image, num_layers: int, magnitude: float
) -> Image:
  """Does `num_layers` random operations, all of one magnitude.

  Cubuk et al. 2020 (arXiv 1909.13719), with the operations and magnitudes that
  AugReg's models were trained with (those of EfficientNet's `autoaugment.py`,
  kept in big_vision). So it has their oddities: of magnitude 0 most operations
  change a lot, posterize and solarize do not grow with the magnitude, and
  images are drawn as if 10 were the largest. Two things differ: contrast is
  Pillow's, and shifts and cutouts are for 224 pixels and scale with the side.

  Args:
    key: the only source of randomness.
    image: uint8 levels [height, width, 3].
    num_layers: how many operations, one after the other; 0 does none.
    magnitude: 0 to 30; 15 turns by 45 degrees.

  Returns:
    uint8 [height, width, 3]; what comes from outside is grey (128).
  """
  names = [name for name in OPERATIONS if name != 'identity']
  height, width, _ = image.shape
  values = rand_augment_values(magnitude, (height, width))

  def layer(image, key):
    return _random_operation(key, image, names, values[None], fill=128), None

  if not num_layers:
    return image
  return jax.lax.scan(layer, image, jax.random.split(key, num_layers))[0]


def trivial_augment(key: Key[Array, ''], image: Image) -> Image:
  """Does one random operation with a random magnitude.

  Müller and Hutter 2021 (arXiv 2103.10158), in the wide space of their code:
  the best of the paper. Shifts are up to 32 pixels whatever the size, as there.

  Args:
    key: the only source of randomness.
    image: uint8 levels [height, width, 3].

  Returns:
    uint8 [height, width, 3]; what comes from outside is black.
  """
  values = trivial_augment_values()
  return _random_operation(key, image, _TRIVIAL_OPERATIONS, values, fill=0)


def rand_augment_values(magnitude: float, size: tuple[int, int]) -> np.ndarray:
  """Returns what `apply_operation` takes, float32 [len(OPERATIONS)].

  Args:
    magnitude: see `rand_augment`.
    size: (height, width) of the image.
  """
  share = magnitude / 10
  factor = 1.8 * share + 0.1
  height, width = (side / _PUBLISHED_SIDE for side in size)
  return _in_order(
    {
      'rotate': 30 * share,
      'posterize': math.floor(4 * share),
      # The uint8 of the original overflows, so 10 and 20 invert all levels
      # (github.com/google-research/big_vision/issues/110).
      'solarize': math.floor(256 * share) % 256,
      'solarize_add': math.floor(110 * share),
      'color': factor,
      'contrast': factor,
      'brightness': factor,
      'sharpness': factor,
      'shear_x': 0.3 * share,
      'shear_y': 0.3 * share,
      'translate_x': 100 * share * width,
      'translate_y': 100 * share * height,
      'cutout': math.floor(40 * share * min(height, width)),
    }
  )


def trivial_augment_values() -> np.ndarray:
  """Returns `apply_operation`'s values, float32 [31, len(OPERATIONS)]."""
  rows = []
  for level in range(_TRIVIAL_LEVELS):
    share = level / (_TRIVIAL_LEVELS - 1)
    factor = 0.01 + 1.99 * share
    rows.append(
      {
        'rotate': math.floor(135 * share),
        'posterize': 8 - math.floor(6 * share),
        'solarize': 256 - math.floor(256 * share),
        'color': factor,
        'contrast': factor,
        'brightness': factor,
        'sharpness': factor,
        'shear_x': 0.99 * share,
        'shear_y': 0.99 * share,
        'translate_x': math.floor(32 * share),
        'translate_y': math.floor(32 * share),
      }
    )
  return np.stack([_in_order(row) for row in rows])


def _random_operation(
  key: jax.Array,
  image: jax.Array,
  names: tuple[str, ...] | list[str],
  values: np.ndarray,
  fill: int,
) -> jax.Array:
  """Does one of `names`, with one of the rows of `values`, either way."""
  name_key, row_key, sign_key, place_key = jax.random.split(key, 4)
  indices = jnp.array([OPERATIONS.index(name) for name in names])
  operation = jax.random.choice(name_key, indices)
  row = jax.random.randint(row_key, (), 0, len(values))
  is_signed = jnp.array([name in _SIGNED for name in OPERATIONS])[operation]
  is_negative = is_signed & jax.random.bernoulli(sign_key)
  value = jnp.asarray(values)[row, operation]
  return apply_operation(
    image,
    operation,
    jnp.where(is_negative, -value, value),
    jax.random.uniform(place_key, (2,)),
    fill,
  )


def _in_order(values: dict[str, float]) -> np.ndarray:
  return np.array([values.get(name, 0.0) for name in OPERATIONS], np.float32)
