"""Puts the augmentations together: from a batch of pixels to model inputs."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, Num

from vit_jax import errors
from vit_jax.data.augment.colour import color_jitter
from vit_jax.data.augment.erasing import random_erasing
from vit_jax.data.augment.geometry import (
  PAD_MODES,
  crop_and_resize,
  random_affine,
  random_flip,
  random_resized_crop,
  random_shift,
  resize,
)
from vit_jax.data.augment.policies import rand_augment, trivial_augment
from vit_jax.data.augment.presets import find_preset

# What `config.pp.augment` may be.
AUGMENTS = ('crop_flip', 'crop', 'affine', 'shift_flip', 'none')

Transform = Callable[[Key[Array, ' batch'], jax.Array], jax.Array]


def normalize(
  image: Num[Array, '*batch height width 3'],
) -> Float[Array, '*batch height width 3']:
  """Maps pixels from [0, 255] to [-1, 1], as the published weights expect."""
  return (image.astype(jnp.float32) - 127.5) / 127.5


def train_transform(pp: Any, *, cropped: bool) -> Transform:
  """Returns what makes model inputs of training images, on the device.

  In this order: `augment`; RandAugment or TrivialAugment, by `preset` or
  `policy`; `color_jitter`; `erasing`. configs/common.py tells the fields of
  each; those that are missing do nothing.

  Args:
    pp: `config.pp` with `crop` and `augment`: 'crop_flip' or 'crop' (also
      `area_range`, `ratio_range`), 'affine' (also `affine`), 'shift_flip' (also
      `shift`) or 'none'.
    cropped: whether the host has cropped and resized the images already, as it
      does where their sizes vary.

  Returns:
    A function of one key per image and uint8 images [batch, height, width, 3]
    that gives float32 [batch, crop, crop, 3] in [-1, 1].

  Raises:
    ConfigError: an unknown `augment`, `preset`, `policy` or mode of padding.
  """
  move, policy = _geometry(pp, cropped), _policy(pp)
  jitter, erasing = dict(pp.get('color_jitter', {})), pp.get('erasing', 0.0)

  def augment(key, image):
    image = move(key, image)
    # A number that no key above is made with.
    rest = jax.random.fold_in(key, 2**16)
    policy_key, jitter_key, erasing_key = jax.random.split(rest, 3)
    if policy:
      levels = jnp.round(jnp.clip(image, 0, 255)).astype(jnp.uint8)
      image = policy(policy_key, levels)
    if any(jitter.values()):
      image = color_jitter(jitter_key, image, **jitter)
    if erasing:
      image = random_erasing(erasing_key, image, erasing)
    return image

  return lambda keys, images: normalize(jax.vmap(augment)(keys, images))


def _geometry(pp: Any, cropped: bool) -> Callable:
  """Returns what moves pixels: (key, image) -> [crop, crop, 3] in [0, 255]."""

  def crop(key, image):
    if cropped:
      return image
    return random_resized_crop(
      key, image, pp.crop, tuple(pp.area_range), tuple(pp.ratio_range)
    )

  def crop_flip(key, image):
    crop_key, flip_key = jax.random.split(key)
    return random_flip(flip_key, crop(crop_key, image))

  def affine(key, image):
    return random_affine(key, image, pp.crop, **pp.affine)

  def shift_flip(key, image):
    shift_key, flip_key = jax.random.split(key)
    image = random_shift(shift_key, image, **pp.shift)
    return resize(random_flip(flip_key, image), pp.crop)

  def none(key, image):
    del key
    return resize(image, pp.crop)

  choices = {
    'crop_flip': crop_flip,
    'crop': crop,
    'affine': affine,
    'shift_flip': shift_flip,
    'none': none,
  }
  if pp.augment == 'shift_flip':
    _check_name('shift.mode', pp.shift.mode, PAD_MODES)
  _check_name('augment', pp.augment, choices)
  return choices[pp.augment]


def _policy(pp: Any) -> Callable | None:
  """Returns RandAugment or TrivialAugment, None where neither is wanted."""
  preset = find_preset(pp)
  if preset is not None:
    name, settings = 'randaugment', preset
  else:
    name, settings = pp.get('policy', 'none'), pp.get('randaugment')
  choices = {
    'none': None,
    'randaugment': lambda key, image: rand_augment(
      key, image, settings.num_layers, settings.magnitude
    ),
    'trivialaugment': trivial_augment,
  }
  _check_name('policy', name, choices)
  if name == 'randaugment' and not settings.num_layers:
    return None
  return choices[name]


def _check_name(field: str, name: str, valid: Iterable[str]) -> None:
  if name not in valid:
    raise errors.ConfigError(
      errors.unknown_name(f'config.pp.{field}', name, valid)
    )


def eval_transform(pp: Any) -> Callable[[jax.Array], jax.Array]:
  """Returns what makes model inputs of images to evaluate, on the device.

  They are squashed, or cut to their middle, and normalised. What has the size
  already stays as it is: the host has done it, where the sizes vary.

  Args:
    pp: `config.pp` with `crop` and `test_resize` (0 if it is missing).

  Returns:
    A function of uint8 images [batch, height, width, 3] that gives float32
    [batch, crop, crop, 3] in [-1, 1].
  """
  share = pp.crop / (pp.get('test_resize', 0) or pp.crop)

  def middle(image):
    height, width, _ = image.shape
    if share == 1 or height == width == pp.crop:
      return resize(image, pp.crop)
    side = share * min(height, width)
    box = ((height - side) / 2, (width - side) / 2, side, side)
    return crop_and_resize(image, jax.tree.map(jnp.float32, box), pp.crop)

  return lambda images: normalize(jax.vmap(middle)(images))
