"""Checks of a training config before anything heavy starts."""

import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

from vit_jax import errors
from vit_jax.data import augment, eval_sets

_AT_LEAST_ONE = (
  'accum_steps',
  'batch',
  'batch_eval',
  'eval_every',
  'keep_checkpoints',
  'progress_every',
  'total_steps',
)
# More threads only take memory, and more processes most of the machine's.
_MAX_THREADS = 1024
_MAX_WORKERS_PER_CORE = 4
_NOT_NEGATIVE = (
  'base_lr',
  'checkpoint_every',
  'cutmix_alpha',
  'mixup_alpha',
  'num_threads',
  'num_workers',
  'patience',
  'warmup_steps',
  'weight_decay',
)
# What there has to be besides; None or '' means something in the first ones.
_MAY_BE_EMPTY = (
  'best_metric',
  'eval_sets',
  'grad_norm_clip',
  'label',
  'model_or_filename',
  'pp.preset',
  'pretrained_dir',
  'tfds_data_dir',
  'tfds_manual_dir',
)
_OTHERS = (
  'dataset',
  'decay_type',
  'dtype',
  'export',
  'follow_links',
  'label_smoothing',
  'model',
  'offline',
  'on_bad_image',
  'optim_dtype',
  'optimizer',
  'pp.affine.rotate',
  'pp.affine.scale',
  'pp.affine.shear',
  'pp.affine.shift',
  'pp.area_range',
  'pp.augment',
  'pp.color_jitter.brightness',
  'pp.color_jitter.contrast',
  'pp.color_jitter.hue',
  'pp.color_jitter.saturation',
  'pp.crop',
  'pp.erasing',
  'pp.policy',
  'pp.randaugment.magnitude',
  'pp.randaugment.num_layers',
  'pp.ratio_range',
  'pp.repeats',
  'pp.shift.mode',
  'pp.shift.pad',
  'pp.test',
  'pp.train',
  'seed',
)


def check_config(config: Any, num_devices: int) -> None:
  """Raises one error that lists all settings that can't work.

  Args:
    config: as `configs/common.py` defines it.
    num_devices: over which batches are split.

  Raises:
    ConfigError: each problem with the field, its value and values that work.
  """
  problems = _absence_problems(config) or [
    *_batch_problems(config, num_devices),
    *_range_problems(config),
    *_choice_problems(config),
  ]
  if problems:
    raise errors.ConfigError(
      'The config can not work:\n' + '\n'.join(f'  {p}' for p in problems)
    )


def check_classes(config: Any, num_classes: int) -> None:
  """Raises ConfigError if `best_metric` means nothing for so many classes."""
  if config.best_metric.endswith('/top5') and num_classes <= 5:
    raise errors.ConfigError(
      f'config.best_metric={config.best_metric!r} needs more than five '
      f'classes, and {config.dataset} has {num_classes}. Use '
      f"'{config.best_metric.removesuffix('/top5')}/accuracy'."
    )


def _absence_problems(config: Any) -> list[str]:
  fields = dict(_leaves(config, stop='model'))
  wanted = (*_AT_LEAST_ONE, *_NOT_NEGATIVE, *_OTHERS)
  missing = sorted({*wanted, *_MAY_BE_EMPTY} - {*fields})
  problems = [
    f'config.{name} is not set.'
    for name in wanted
    if name in fields and fields[name] in (None, '')
  ]
  if missing:
    problems.append(
      f'It has no {", ".join(f"config.{name}" for name in missing)}. '
      'configs/common.py has every field, with its default: start from its '
      'get_config().'
    )
  return problems


def _leaves(
  config: Any, prefix: str = '', stop: str = ''
) -> Iterator[tuple[str, Any]]:
  """Yields (dotted name, value) of all fields, those inside `stop` aside."""
  for name, value in config.items():
    path = f'{prefix}{name}'
    if hasattr(value, 'items') and path != stop:
      yield from _leaves(value, f'{path}.', stop)
    else:
      yield path, value


def _batch_problems(config: Any, num_devices: int) -> list[str]:
  problems = []
  # Names, values, and what the multiple is made of.
  for name, parts in {
    'batch': {
      'devices': num_devices,
      'config.accum_steps': max(1, config.accum_steps),
    },
    'batch_eval': {'devices': num_devices},
  }.items():
    multiple = 1
    for part in parts.values():
      multiple *= part
    value = config[name]
    if value > 0 and value % multiple:
      below, above = value // multiple * multiple, -(-value // multiple)
      sizes = [size for size in (below, above * multiple) if size]
      made_of = ' x '.join(f'{n} {what}' for what, n in parts.items())
      problems.append(
        f'config.{name}={value} is not a multiple of {multiple} ({made_of}). '
        f'Sizes that work: {", ".join(map(str, sizes))}.'
      )
  return problems


def _range_problems(config: Any) -> list[str]:
  # One per field: what is not finite is not said to be out of range as well.
  found = _not_finite(config)

  def expect(holds: bool, name: str, value: Any, text: str):
    if not holds:
      found.setdefault(name, f'config.{name}={value} {text}')

  for name in _AT_LEAST_ONE:
    expect(config[name] >= 1, name, config[name], 'should be at least 1.')
  for name in (*_NOT_NEGATIVE, 'grad_norm_clip'):
    value = config[name]  # None clips nothing, as 0 does.
    expect((value or 0) >= 0, name, value, 'should not be negative.')
  expect(
    abs(config.seed) < 2**63,
    'seed',
    config.seed,
    'should be a number of 64 bits, between -2**63 and 2**63.',
  )
  cores = os.cpu_count() or 1
  for name, limit, reason in (
    ('num_threads', _MAX_THREADS, ''),
    (
      'num_workers',
      _MAX_WORKERS_PER_CORE * cores,
      f', {_MAX_WORKERS_PER_CORE} for each of the {cores} cores here',
    ),
  ):
    value = config[name]
    expect(value <= limit, name, value, f'should be at most {limit}{reason}.')
  smoothing, pp = config.label_smoothing, config.pp
  in_0_1 = 'should be in [0, 1).'
  expect(0 <= smoothing < 1, 'label_smoothing', smoothing, in_0_1)
  expect(pp.crop >= 1, 'pp.crop', pp.crop, 'should be at least 1.')
  for name, limit in {'area_range': 1.0, 'ratio_range': math.inf}.items():
    value = pp[name]
    expect(
      len(value) == 2 and 0 < value[0] <= value[1] <= limit,
      f'pp.{name}',
      value,
      'should be two numbers above 0, the larger last'
      + (f', at most {limit:g}.' if limit < math.inf else '.'),
    )
  scale = pp.affine.scale
  expect(0 <= scale < 1, 'pp.affine.scale', scale, in_0_1)
  at_least_0 = {'pp.shift.pad': pp.shift.pad} | {
    f'pp.color_jitter.{name}': value for name, value in pp.color_jitter.items()
  }
  at_least_0['pp.randaugment.num_layers'] = pp.randaugment.num_layers
  for name, value in at_least_0.items():
    expect(value >= 0, name, value, 'should not be negative.')
  for name, value, limit in (
    ('pp.color_jitter.hue', pp.color_jitter.hue, 0.5),
    ('pp.erasing', pp.erasing, 1),
    ('pp.randaugment.magnitude', pp.randaugment.magnitude, 30),
  ):
    expect(0 <= value <= limit, name, value, f'should be in [0, {limit}].')
  repeats = pp.repeats
  expect(
    repeats >= 1 and config.batch % repeats == 0,
    'pp.repeats',
    repeats,
    f'should be at least 1 and divide config.batch={config.batch}.',
  )
  return list(found.values())


def _not_finite(config: Any) -> dict[str, str]:
  """Returns {field: problem} of the NaN and infinite ones, model's included."""
  return {
    name: f'config.{name}={value} is not finite.'
    for name, value in _leaves(config)
    for numbers in [value if isinstance(value, list | tuple) else [value]]
    if any(isinstance(n, float) and not math.isfinite(n) for n in numbers)
  }


def _choice_problems(config: Any) -> list[str]:
  problems, metrics = [], ('', config.best_metric)
  try:
    names = ('test', *eval_sets.parse(config.eval_sets))
    metrics = _metric_names(names)
  except errors.ConfigError as error:
    problems.append(str(error))
  for name, valid in {
    'dtype': ('float32', 'bfloat16'),
    'export': ('last', 'best'),
    'on_bad_image': ('fail', 'skip'),
    'best_metric': metrics,
  }.items():
    if config[name] not in valid:
      text = errors.unknown_name(
        f'config.{name}', str(config[name]), filter(None, valid)
      )
      problems.append(text + (" '' is for none." if '' in valid else ''))
  if config.pp.augment not in augment.AUGMENTS:
    problems.append(
      errors.unknown_name(
        'config.pp.augment', str(config.pp.augment), augment.AUGMENTS
      )
    )
  # The others give logits for every token; a model without the field has
  # 'token'.
  classifier = getattr(config.model, 'classifier', 'token')
  if classifier not in ('token', 'gap', 'map'):
    problems.append(
      f"config.model.classifier={classifier!r} should be 'token', 'gap' or "
      "'map' to train or evaluate."
    )
  for name, wants in {
    'patience': config.patience > 0,
    "export='best'": config.export == 'best',
  }.items():
    if wants and not config.best_metric:
      problems.append(f'config.{name} needs config.best_metric.')
  return problems


def _metric_names(sets: Iterable[str]) -> tuple[str, ...]:
  """Returns what `best_metric` may be, '' for none included."""
  kinds = ('accuracy', 'loss', 'top5')
  return ('', *(f'{name}/{kind}' for name in sets for kind in kinds))
