"""What happens to images on the device: moved, recoloured, erased, mixed.

Functions of one image are jit- and vmap-able; random ones are pure functions of
their key. `train_transform` and `eval_transform` put them together for a batch,
inside the jitted step; `mix` is for what they give.
"""

from vit_jax.data.augment.colour import (
  adjust_brightness,
  adjust_contrast,
  adjust_hue,
  adjust_saturation,
  color_jitter,
)
from vit_jax.data.augment.erasing import random_erasing
from vit_jax.data.augment.geometry import (
  PAD_MODES,
  bilinear_sample,
  crop_and_resize,
  random_affine,
  random_flip,
  random_resized_crop,
  random_shift,
  resize,
)
from vit_jax.data.augment.mixing import cutmix, mix, mixup
from vit_jax.data.augment.operations import OPERATIONS, apply_operation
from vit_jax.data.augment.policies import (
  rand_augment,
  rand_augment_values,
  trivial_augment,
  trivial_augment_values,
)
from vit_jax.data.augment.presets import (
  PRESETS,
  Preset,
  find_preset,
  mixup_alpha,
)
from vit_jax.data.augment.transforms import (
  AUGMENTS,
  eval_transform,
  normalize,
  train_transform,
)

__all__ = [
  'AUGMENTS',
  'OPERATIONS',
  'PAD_MODES',
  'PRESETS',
  'Preset',
  'adjust_brightness',
  'adjust_contrast',
  'adjust_hue',
  'adjust_saturation',
  'apply_operation',
  'bilinear_sample',
  'color_jitter',
  'crop_and_resize',
  'cutmix',
  'eval_transform',
  'find_preset',
  'mix',
  'mixup',
  'mixup_alpha',
  'normalize',
  'rand_augment',
  'rand_augment_values',
  'random_affine',
  'random_erasing',
  'random_flip',
  'random_resized_crop',
  'random_shift',
  'resize',
  'train_transform',
  'trivial_augment',
  'trivial_augment_values',
]
