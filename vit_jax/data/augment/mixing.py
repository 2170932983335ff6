"""Mixes the images of a batch in pairs, and their targets as much."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def mixup(
  key: Key[Array, ''],
  images: Float[Array, 'batch height width channels'],
  targets: Float[Array, 'batch num_classes'],
  alpha: float,
) -> tuple[
  Float[Array, 'batch height width channels'],
  Float[Array, 'batch num_classes'],
]:
  """Blends every image and its target with those of another.

  Zhang et al. 2018, "mixup", equation 1. One weight is drawn for the batch,
  from Beta(alpha, alpha). The larger part is the image's own, so that its label
  still is the best answer.

  Args:
    key: the only source of randomness.
    images: [batch, height, width, channels].
    targets: [batch, num_classes], rows sum to one.
    alpha: above 0; the larger, the more is mixed.

  Returns:
    The blended images and targets.
  """
  weight = jax.random.beta(key, alpha, alpha)
  weight = jnp.maximum(weight, 1 - weight)

  def blend(x):
    return weight * x + (1 - weight) * x[::-1]

  return blend(images), blend(targets)


def cutmix(
  key: Key[Array, ''],
  images: Float[Array, 'batch height width channels'],
  targets: Float[Array, 'batch num_classes'],
  alpha: float,
) -> tuple[
  Float[Array, 'batch height width channels'],
  Float[Array, 'batch num_classes'],
]:
  """Pastes a box of another image into every image, and blends the targets.

  Yun et al. 2019, "CutMix", algorithm 1. One box is drawn for the batch; its
  share of the area is about Beta(alpha, alpha), less what sticks out of the
  image, and that share of the target is the other's.

  Args:
    key: the only source of randomness.
    images: [batch, height, width, channels].
    targets: [batch, num_classes], rows sum to one.
    alpha: above 0; 1 is the paper's.

  Returns:
    The images with boxes of others, and the blended targets.
  """
  height, width = images.shape[1:3]
  weight_key, place_key = jax.random.split(key)
  size = jnp.array([height, width])
  share = jax.random.beta(weight_key, alpha, alpha)
  half = jnp.floor(size * jnp.sqrt(1 - share)) // 2
  middle = jnp.floor(size * jax.random.uniform(place_key, (2,)))
  top, left = jnp.maximum(middle - half, 0)
  bottom, right = jnp.minimum(middle + half, size)
  y, x = jnp.arange(height)[:, None, None], jnp.arange(width)[:, None]
  is_inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
  other = (bottom - top) * (right - left) / (height * width)
  return (
    jnp.where(is_inside, images[::-1], images),
    (1 - other) * targets + other * targets[::-1],
  )


def mix(
  key: Key[Array, ''],
  images: Float[Array, 'batch height width channels'],
  targets: Float[Array, 'batch num_classes'],
  mixup_alpha: float = 0.0,
  cutmix_alpha: float = 0.0,
) -> tuple[
  Float[Array, 'batch height width channels'],
  Float[Array, 'batch num_classes'],
]:
  """Does mixup or cutmix; where both are wanted, each half of the time.

  Args:
    key: the only source of randomness.
    images: [batch, height, width, channels].
    targets: [batch, num_classes], rows sum to one.
    mixup_alpha: see `mixup`; 0 for none.
    cutmix_alpha: see `cutmix`; 0 for none.

  Returns:
    The mixed images and targets.
  """
  if mixup_alpha and cutmix_alpha:
    coin_key, key = jax.random.split(key)
    return jax.lax.cond(
      jax.random.bernoulli(coin_key),
      lambda: mixup(key, images, targets, mixup_alpha),
      lambda: cutmix(key, images, targets, cutmix_alpha),
    )
  if mixup_alpha:
    return mixup(key, images, targets, mixup_alpha)
  if cutmix_alpha:
    return cutmix(key, images, targets, cutmix_alpha)
  return images, targets
