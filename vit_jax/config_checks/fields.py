"""Which fields a config has, and of which type: what is missing or misspelt."""

from __future__ import annotations

import ast
import numbers
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from vit_jax import errors
from vit_jax.models import variants

# Those of configs/common.py, but for the model's own.
_BY_TYPE: dict[type, tuple[str, ...]] = {
  bool: ('follow_links', 'offline', 'scan_layers'),
  int: (
    'accum_steps',
    'batch',
    'batch_eval',
    'checkpoint_every',
    'eval_every',
    'keep_checkpoints',
    'max_skipped',
    'mesh.data',
    'mesh.fsdp',
    'mesh.tensor',
    'num_threads',
    'num_workers',
    'patience',
    'pp.crop',
    'pp.randaugment.num_layers',
    'pp.repeats',
    'pp.shift.pad',
    'pp.test_resize',
    'progress_every',
    'seed',
    'total_steps',
    'warmup_steps',
  ),
  float: (
    'base_lr',
    'cutmix_alpha',
    'grad_norm_clip',
    'label_smoothing',
    'mixup_alpha',
    'pp.affine.rotate',
    'pp.affine.scale',
    'pp.affine.shear',
    'pp.affine.shift',
    'pp.color_jitter.brightness',
    'pp.color_jitter.contrast',
    'pp.color_jitter.hue',
    'pp.color_jitter.saturation',
    'pp.erasing',
    'pp.randaugment.magnitude',
    'weight_decay',
  ),
  str: (
    'attention',
    'best_metric',
    'dataset',
    'decay_type',
    'dtype',
    'eval_sets',
    'export',
    'label',
    'model_or_filename',
    'on_bad_image',
    'on_nonfinite',
    'optim_dtype',
    'optimizer',
    'pp.augment',
    'pp.policy',
    'pp.preset',
    'pp.shift.mode',
    'pp.test',
    'pp.train',
    'pretrained_dir',
    'profile',
    'remat',
    'tfds_data_dir',
    'tfds_manual_dir',
  ),
  tuple: ('pp.area_range', 'pp.ratio_range'),
  ConfigDict: ('model',),
}
FIELDS = {name: kind for kind, names in _BY_TYPE.items() for name in names}
# None or '' means something in these.
_MAY_BE_EMPTY = (
  'best_metric',
  'eval_sets',
  'grad_norm_clip',
  'label',
  'model_or_filename',
  'pp.preset',
  'pretrained_dir',
  'profile',
  'tfds_data_dir',
  'tfds_manual_dir',
)
# What stands for a field that can't be read, so that the others can be judged.
_STAND_INS = {
  bool: False,
  int: 1,
  float: 0.0,
  str: '',
  tuple: (0.5, 1.0),
  ConfigDict: ConfigDict(),
}
_NAMES = {tuple: 'a tuple of numbers', ConfigDict: 'a model config'}


def leaves(
  config: Any, prefix: str = '', stop: str = ''
) -> Iterator[tuple[str, Any]]:
  """Yields (dotted name, value) of all fields, those inside `stop` aside."""
  for name, value in config.items():
    path = f'{prefix}{name}'
    if hasattr(value, 'items') and path != stop:
      yield from leaves(value, f'{path}.', stop)
    else:
      yield path, value


def problems(config: Any) -> dict[str, str]:
  """Returns {field: why it can't be read}, '' being those that are missing."""
  fields = dict(leaves(config, stop='model'))
  found = {}
  for name, kind in FIELDS.items():
    if name not in fields:
      continue
    value = fields[name]
    if value is None or value == '':
      if name not in _MAY_BE_EMPTY:
        found[name] = f'config.{name} is not set.'
    elif not _is_of(kind, value):
      found[name] = _wrong_type(f'config.{name}', value, kind)
  if missing := sorted({*FIELDS} - {*fields}):
    found[''] = (
      f'It has no {", ".join(f"config.{name}" for name in missing)}. '
      'configs/common.py has every field, with its default: start from its '
      'get_config().'
    )
  for name in sorted({*fields} - {*FIELDS}):
    found[name] = errors.unknown_name('field', f'config.{name}', _full(FIELDS))
  return found


def model_problems(model: Mapping[str, Any]) -> dict[str, str]:
  """Returns {field: why it can't be read} of a model's config."""
  names = {'tokens_mlp_dim': 'mixer_b16', 'conv_features': 'cnn'}
  name = next((names[field] for field in names if field in model), 'b16')
  known = dict(leaves(variants.model_config(name)))
  # A ViT without a stem has no fields of one, nor without a transformer.
  known |= {'resnet.num_layers': (), 'resnet.width_factor': 1.0}
  transformer = variants.spatial_transformer_config()
  known |= dict(leaves(transformer, 'spatial_transformer.'))
  # It has no value there, and a `None` has no type.
  known |= {'representation_size': 1}
  found = {}
  for name, value in leaves(model):
    if name not in known:
      continue
    if value is None:
      if name not in ('representation_size', 'resnet.num_layers'):
        found[name] = f'config.model.{name} is not set.'
    elif not _is_of(type(known[name]), value):
      found[name] = _wrong_type(
        f'config.model.{name}', value, type(known[name])
      )
  return found


def readable(config: Any) -> tuple[Any, set[str]]:
  """Returns a config all of whose fields can be read, and the stand-ins.

  Args:
    config: of which fields may be missing or of the wrong type.

  Returns:
    A copy, and the names of the fields whose values mean nothing.
  """
  fields = dict(leaves(config, stop='model'))
  bad = {
    name
    for name, kind in FIELDS.items()
    if name not in fields
    or (fields[name] is None and name not in _MAY_BE_EMPTY)
    or (fields[name] is not None and not _is_of(kind, fields[name]))
  }
  filled: dict[str, Any] = {}
  for name, kind in FIELDS.items():
    *parents, leaf = name.split('.')
    node = filled
    for parent in parents:
      node = node.setdefault(parent, {})
    node[leaf] = _STAND_INS[kind] if name in bad else fields[name]
  return ConfigDict(filled), bad


def set_field(config: Any, pair: str) -> None:
  """Sets a field of the config.

  Args:
    config: which is changed.
    pair: such as 'remat=full' or 'mesh.fsdp=8'.

  Raises:
    ConfigError: there is no such field, or it can't have such a value.
  """
  name, equals, value = pair.partition('=')
  if not equals:
    raise errors.ConfigError(f'{pair!r} should be FIELD=VALUE.')
  known = dict(leaves(config))
  if name not in known:
    raise errors.ConfigError(errors.unknown_name('field', name, known))
  try:
    parsed = ast.literal_eval(value)
  except (SyntaxError, ValueError):  # A string without its quotes.
    parsed = value
  try:
    config.update_from_flattened_dict({name: parsed})
  except (TypeError, ValueError) as error:
    raise errors.ConfigError(
      f'{name}={parsed!r} is of type {type(parsed).__name__}, and its default '
      f'is {known[name]!r}.'
    ) from error


def stand_in() -> ConfigDict:
  """Returns a config with the fields of all models, whose values mean none."""
  config, _ = readable(ConfigDict())
  config.model = variants.model_config('b16')
  config.model.update(variants.model_config('mixer_b16'))
  config.model.update(variants.model_config('cnn'))
  config.model.resnet = variants.model_config('r50_b16').resnet
  config.model.spatial_transformer = variants.spatial_transformer_config()
  return config


def _is_of(kind: type, value: Any) -> bool:
  if isinstance(value, bool):
    return kind is bool
  if kind is int:
    return isinstance(value, numbers.Integral)
  if kind is float:
    return isinstance(value, numbers.Real)
  if kind is tuple:
    is_list = isinstance(value, list | tuple)
    return is_list and all(_is_of(float, number) for number in value)
  return (
    hasattr(value, 'items') if kind is ConfigDict else isinstance(value, kind)
  )


def _wrong_type(name: str, value: Any, kind: type) -> str:
  expected = _NAMES.get(kind, kind.__name__)
  return (
    f'{name}={value!r} is of type {type(value).__name__}, expected {expected}.'
  )


def _full(names: Mapping[str, Any]) -> list[str]:
  return [f'config.{name}' for name in names]
