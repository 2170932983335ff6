"""Checks of a training config before anything heavy starts."""

import math
from typing import Any

from vit_jax import errors

_AT_LEAST_ONE = (
  'accum_steps',
  'batch',
  'batch_eval',
  'eval_every',
  'keep_checkpoints',
  'progress_every',
  'total_steps',
)
_NOT_NEGATIVE = (
  'base_lr',
  'checkpoint_every',
  'mixup_alpha',
  'num_threads',
  'patience',
  'warmup_steps',
  'weight_decay',
)


def check_config(config: Any, num_devices: int) -> None:
  """Raises one error that lists all settings that can't work.

  Args:
    config: as `configs/common.py` defines it.
    num_devices: over which batches are split.

  Raises:
    ConfigError: each problem with the field, its value and values that work.
  """
  needed = ('dataset', 'model', 'pp', *_AT_LEAST_ONE, *_NOT_NEGATIVE)
  problems = [
    f'config.{name} is not set.'
    for name in needed
    if config.get(name) in (None, '')
  ]
  problems = problems or [
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
      f"classes, and {config.dataset} has {num_classes}. Use 'test/accuracy'."
    )


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
  problems = []
  for name in _AT_LEAST_ONE:
    if config[name] < 1:
      problems.append(f'config.{name}={config[name]} should be at least 1.')
  for name in (*_NOT_NEGATIVE, 'grad_norm_clip'):
    if (config[name] or 0) < 0:  # None clips nothing, as 0 does.
      problems.append(f'config.{name}={config[name]} should not be negative.')
  if not 0 <= config.label_smoothing < 1:
    problems.append(
      f'config.label_smoothing={config.label_smoothing} should be in [0, 1).'
    )
  if config.pp.crop < 1:
    problems.append(f'config.pp.crop={config.pp.crop} should be at least 1.')
  for name, limit in {'area_range': 1.0, 'ratio_range': math.inf}.items():
    value = config.pp[name]
    if len(value) != 2 or not 0 < value[0] <= value[1] <= limit:
      problems.append(
        f'config.pp.{name}={value} should be two numbers above 0, the larger '
        'last' + (f', at most {limit:g}.' if limit < math.inf else '.')
      )
  if not 0 <= config.pp.affine.scale < 1:
    problems.append(
      f'config.pp.affine.scale={config.pp.affine.scale} should be in [0, 1).'
    )
  return problems


def _choice_problems(config: Any) -> list[str]:
  problems = []
  for name, valid in {
    'dtype': ('float32', 'bfloat16'),
    'export': ('last', 'best'),
    'best_metric': ('', 'test/accuracy', 'test/loss', 'test/top5'),
  }.items():
    if config[name] not in valid:
      quoted = [repr(option) for option in valid]
      problems.append(
        errors.unknown_name(f'config.{name}', config[name], valid)
        if '' not in valid
        else f'config.{name}={config[name]!r} should be one of '
        f'{", ".join(quoted)}.'
      )
  for name, wants in {
    'patience': config.patience > 0,
    "export='best'": config.export == 'best',
  }.items():
    if wants and not config.best_metric:
      problems.append(f'config.{name} needs config.best_metric.')
  return problems
