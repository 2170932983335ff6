"""Which of the known models has given sizes, and how to fine-tune it.

Sizes are a flat dict of config fields, such as 'transformer.num_heads'. Those
of a ViT, of a hybrid, of a Mixer and of a ConvNet have different keys, which
tell them apart. A spatial transformer may stand before any of them but a Mixer,
and is not counted among what makes it another model.
"""

from __future__ import annotations

import functools
import math
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vit_jax.models import variants

if TYPE_CHECKING:
  from ml_collections import ConfigDict

Sizes = Mapping[str, Any]

# Of `configs/`, which the package doesn't import.
_CROPS = {
  ('vit', 'digits'): 16,
  ('vit', 'cifar10'): 384,
  ('spatial_transformer', 'digits'): 32,
  ('spatial_transformer', 'cifar10'): 32,
}
_BEFORE = 'spatial_transformer.'


def equal_models(sizes: Sizes) -> tuple[str, ...]:
  """Returns the names of the models that have exactly these sizes."""
  return tuple(
    name for name in _candidates(sizes) if not _differences(sizes, name)
  )


def nearest_model(sizes: Sizes) -> tuple[str, dict[str, Any]]:
  """Returns the model with the fewest other sizes, and those to override.

  Where several differ in as many, it is the one of the closest width.
  """
  width = _width_field(sizes)

  def distance(name: str) -> tuple[int, float]:
    ratio = sizes[width] / _known_models()[name][width]
    return len(_differences(sizes, name)), abs(math.log(ratio))

  name = min(_candidates(sizes), key=distance)
  return name, _differences(sizes, name)


def model_config(
  sizes: Sizes, representation_size: int | None = None
) -> ConfigDict:
  """Returns the config of the model that has exactly these sizes."""
  name, overrides = nearest_model(sizes)
  config = variants.model_config(name)
  if representation_size is not None:
    config.representation_size = representation_size
  for field, value in overrides.items():
    *path, last = field.split('.')
    node = config
    for part in path:
      node = node[part]
    node[last] = value
  if overrides:
    config.model_name = f'like {name}'
  if f'{_BEFORE}size' in sizes:
    config.spatial_transformer = variants.spatial_transformer_config()
    for field in config.spatial_transformer:
      config.spatial_transformer[field] = sizes[f'{_BEFORE}{field}']
  return config


def fine_tuning_command(
  sizes: Sizes,
  path: str,
  image_size: tuple[int, int] | None,
  gelu: str | None = None,
) -> str | None:
  """Returns the command line that fine-tunes a file, as an example.

  A layer between the features and the head is dropped, as the original does.
  None where heads are not known, or no square image has the file's grid.

  Args:
    sizes: of the file's model.
    path: of the file, or a run directory.
    image_size: (height, width) in pixels that the file was made for, if known.
    gelu: that it was run with, where that isn't the default.
  """
  if not _is_trainable(sizes, image_size):
    return None
  name, overrides = nearest_model(sizes)
  (short,) = (k for k, v in variants.SHORT_NAMES.items() if v == name)
  dataset = 'digits' if name in ('tiny', 'cnn') else 'cifar10'
  file = 'mixer' if 'num_blocks' in sizes else 'vit'
  argument = f'{short.removeprefix("mixer_")},{dataset}'
  if 'conv_features' in sizes or f'{_BEFORE}size' in sizes:
    file = 'spatial_transformer'
    argument, overrides = _behind_transformer(sizes, dataset)
  words = [
    *('python', '-m', 'vit_jax.main'),
    *('--config', f'configs/{file}.py:{argument}'),
    f'--config.pretrained_dir={path}',
  ]
  # A ViT of known sizes is fine-tuned at the preset's size, all others at
  # the size that they were made for. A Mixer is bound to it, so that it has to
  # be there when the data set becomes another one.
  has_preset = (file, dataset) == ('vit', 'cifar10') and not overrides
  crop = max(image_size or (0,))
  is_preset = has_preset or crop == _CROPS.get((file, dataset))
  if crop and (file == 'mixer' or not is_preset):
    words.append(f'--config.pp.crop={crop}')
  words += [
    f'--config.model.{field}={_as_text(value)}'
    for field, value in overrides.items()
  ]
  if gelu is not None:
    words.append(f'--config.model.gelu={gelu}')
  return shlex.join(words)


def _behind_transformer(
  sizes: Sizes, dataset: str
) -> tuple[str, dict[str, Any]]:
  """Returns the argument of configs/spatial_transformer.py, and overrides."""
  is_convnet = 'conv_features' in sizes
  overrides = _differences(sizes, 'cnn' if is_convnet else 'tiny')
  if f'{_BEFORE}size' not in sizes:
    return f'{dataset},plain', overrides
  preset = variants.spatial_transformer_config()
  overrides |= {
    f'{_BEFORE}{field}': sizes[f'{_BEFORE}{field}']
    for field, value in preset.items()
    if sizes[f'{_BEFORE}{field}'] != value
  }
  return dataset if is_convnet else f'{dataset},vit', overrides


def _is_trainable(sizes: Sizes, image_size: tuple[int, int] | None) -> bool:
  if 'num_blocks' in sizes or 'conv_features' in sizes:
    return image_size is not None and image_size[0] == image_size[1]
  if f'{_BEFORE}size' in sizes and 'resnet.num_layers' in sizes:
    return False  # No config has both.
  can_place = image_size or sizes['position_embedding'] == 'sincos2d'
  return bool(can_place and sizes['transformer.num_heads'])


def _candidates(sizes: Sizes) -> list[str]:
  """Returns the names of the models that have these fields and no others."""
  stem = 'resnet.num_layers'
  return [
    name
    for name, fields in _known_models().items()
    if _width_field(sizes) in fields and (stem in fields) == (stem in sizes)
  ]


def _differences(sizes: Sizes, name: str) -> dict[str, Any]:
  """Returns the sizes that are others in the model called `name`."""
  known = _known_models()[name]
  return {
    field: value
    for field, value in sizes.items()
    if not field.startswith(_BEFORE) and known[field] != value
  }


@functools.cache  # A ConfigDict takes long to make.
def _known_models() -> dict[str, dict[str, Any]]:
  """Returns the fields of each model by dotted name."""
  return {name: _dotted(make()) for name, make in variants.MODELS.items()}


def _dotted(config: ConfigDict) -> dict[str, Any]:
  found = {}
  for field, value in config.items():
    if hasattr(value, 'items'):
      found |= {f'{field}.{name}': leaf for name, leaf in value.items()}
    else:
      found[field] = value
  return found


def _width_field(sizes: Sizes) -> str:
  fields = ('hidden_size', 'hidden_dim', 'dense_size')
  return next(field for field in fields if field in sizes)


def _as_text(value: Any) -> str:
  """Returns what ml_collections parses as `value`."""
  if not isinstance(value, tuple):
    return str(value)
  return ','.join(map(str, value)) + ',' * (len(value) == 1) or '()'
