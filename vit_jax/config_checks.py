"""Checks of a training config before anything heavy starts."""

from typing import Any

from vit_jax import errors


def check_config(config: Any, num_devices: int) -> None:
  """Raises one error that lists all settings that can't work.

  Args:
    config: as `configs/common.py` defines it.
    num_devices: over which batches are split.

  Raises:
    ConfigError: each problem with the field, its value and values that work.
  """
  problems = [
    *_batch_problems(config, num_devices),
    *_range_problems(config),
    *_choice_problems(config),
  ]
  if problems:
    raise errors.ConfigError(
      'The config can not work:\n' + '\n'.join(f'  {p}' for p in problems)
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
  for name in (
    'accum_steps',
    'batch',
    'batch_eval',
    'eval_every',
    'keep_checkpoints',
    'progress_every',
    'total_steps',
  ):
    if config[name] < 1:
      problems.append(f'config.{name}={config[name]} should be at least 1.')
  for name in (
    'base_lr',
    'checkpoint_every',
    'grad_norm_clip',
    'num_threads',
    'patience',
    'warmup_steps',
    'weight_decay',
  ):
    if config[name] < 0:
      problems.append(f'config.{name}={config[name]} should not be negative.')
  if not 0 <= config.label_smoothing < 1:
    problems.append(
      f'config.label_smoothing={config.label_smoothing} should be in [0, 1).'
    )
  if config.pp.crop < 1:
    problems.append(f'config.pp.crop={config.pp.crop} should be at least 1.')
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
