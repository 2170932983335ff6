"""Random erasing: noise in a box of the image."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key, Num

from vit_jax.data.augment.geometry import draw_box_size


def random_erasing(
  key: Key[Array, ''],
  image: Num[Array, 'height width channels'],
  probability: float,
  area_range: tuple[float, float] = (0.02, 0.4),
  ratio_range: tuple[float, float] = (0.3, 1 / 0.3),
) -> Num[Array, 'height width channels']:
  """Replaces a random box by random levels, in some of the images.

  Zhong et al. 2020 (arXiv 1708.04896), with the paper's ranges and its best
  filling: each level uniform in [0, 255]. The aspect ratio is log-uniform, so
  that there are as many tall boxes as wide ones. Where none of ten boxes fits,
  the image stays whole.

  Args:
    key: the only source of randomness.
    image: levels [height, width, channels] in [0, 255].
    probability: share of the images, in [0, 1].
    area_range: smallest and largest share of the image's area.
    ratio_range: smallest and largest width / height.

  Returns:
    As the image, in shape and kind.
  """
  height, width = image.shape[:2]
  coin_key, area_key, ratio_key, place_key, noise_key = jax.random.split(key, 5)
  box_height, box_width, fits = draw_box_size(
    area_key, ratio_key, (height, width), area_range, ratio_range
  )
  box = jnp.floor(jnp.stack([box_height, box_width]))
  free = jnp.array([height, width]) - box
  top, left = jnp.floor(jax.random.uniform(place_key, (2,)) * (free + 1))
  y, x = jnp.arange(height)[:, None], jnp.arange(width)
  is_inside = (
    (y >= top) & (y < top + box[0]) & (x >= left) & (x < left + box[1])
  )
  is_erased = is_inside & fits & jax.random.bernoulli(coin_key, probability)
  noise = _random_bytes(noise_key, image.shape).astype(image.dtype)
  return jnp.where(is_erased[..., None], noise, image)


def _random_bytes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns uniform uint8, four of each word: `bits` would draw four words."""
  num_words = -(-math.prod(shape) // 4)
  words = jax.random.bits(key, (num_words,), 'uint32')
  levels = jax.lax.bitcast_convert_type(words, jnp.uint8).ravel()
  return levels[: math.prod(shape)].reshape(shape)
