"""How many classes a data set has, known without its data."""

from __future__ import annotations

from typing import Any

from vit_jax import errors
from vit_jax.data import labels, paths, sources

# Of the presets of configs/datasets.py, by tfds name.
_CLASSES = {
  'caltech101': 102,
  'cifar10': 10,
  'cifar100': 100,
  'diabetic_retinopathy_detection': 5,
  'digits': 10,
  'dmlab': 6,
  'dtd': 47,
  'eurosat': 10,
  'imagenet2012': 1_000,
  'oxford_flowers102': 102,
  'oxford_iiit_pet': 37,
  'patch_camelyon': 2,
  'resisc45': 45,
  'sun397': 397,
  'svhn_cropped': 10,
}
_ASSUMED = 1_000


def num_classes(config: Any) -> tuple[int, str]:
  """Returns the number of classes, and where it comes from.

  Args:
    config: with `dataset` and `label`; the classes of a folder or list of
      images are counted there. Of what is neither known nor prepared, there are
      assumed to be 1,000.

  Raises:
    DataError, DataNotFoundError: a folder or list that can't be read.
  """
  if config.label:
    return len(labels.find(config.label).class_names), f'of {config.label}'
  name = config.dataset.partition('/')[0].partition(':')[0]
  # Variants of the digits have some of them.
  if name in _CLASSES and not config.dataset.startswith('digits/'):
    return _CLASSES[name], f'of {config.dataset}'
  try:
    found = sources.load_source(config, config.pp.train)
  except (errors.DataError, errors.DataNotFoundError):
    if paths.is_path(config.dataset):
      raise
    return _ASSUMED, 'assumed: the data set is not prepared here'
  return found.num_classes, f'counted in {config.dataset}'
