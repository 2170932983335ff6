"""Whether the numbers of a config are in their ranges."""

from __future__ import annotations

import math
import os
from typing import Any

from vit_jax.config_checks.fields import leaves

_AT_LEAST_ONE = (
  'accum_steps',
  'batch',
  'batch_eval',
  'eval_every',
  'keep_checkpoints',
  'pp.crop',
  'pp.repeats',
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
  'grad_norm_clip',
  'max_skipped',
  'mixup_alpha',
  'num_threads',
  'num_workers',
  'patience',
  'pp.affine.rotate',
  'pp.affine.shear',
  'pp.affine.shift',
  'pp.color_jitter.brightness',
  'pp.color_jitter.contrast',
  'pp.color_jitter.saturation',
  'pp.randaugment.num_layers',
  'pp.shift.pad',
  'warmup_steps',
  'weight_decay',
)


def problems(config: Any) -> list[str]:
  """Returns the values that are out of range or not finite."""
  # One per field: what is not finite is not said to be out of range as well.
  found = not_finite(config)

  def expect(holds: bool, name: str, value: Any, text: str):
    if not holds:
      found.setdefault(name, f'config.{name}={value} {text}')

  values = dict(leaves(config, stop='model'))
  for name in _AT_LEAST_ONE:
    expect(values[name] >= 1, name, values[name], 'should be at least 1.')
  for name in _NOT_NEGATIVE:
    value = values[name]  # None clips nothing, as 0 does.
    expect((value or 0) >= 0, name, value, 'should not be negative.')
  for name in ('total_steps', 'warmup_steps'):
    value = values[name]
    expect(value < 2**31, name, value, 'should be below 2**31.')
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
  pp = config.pp
  for name in ('label_smoothing', 'pp.affine.scale'):
    expect(0 <= values[name] < 1, name, values[name], 'should be in [0, 1).')
  for name, limit in {'area_range': 1.0, 'ratio_range': math.inf}.items():
    value = pp[name]
    expect(
      len(value) == 2 and 0 < value[0] <= value[1] <= limit,
      f'pp.{name}',
      value,
      'should be two numbers above 0, the larger last'
      + (f', at most {limit:g}.' if limit < math.inf else '.'),
    )
  for name, limit in {
    'pp.color_jitter.hue': 0.5,
    'pp.erasing': 1,
    'pp.randaugment.magnitude': 30,
  }.items():
    value = values[name]
    expect(0 <= value <= limit, name, value, f'should be in [0, {limit}].')
  expect(
    max(0, config.batch) % max(1, pp.repeats) == 0,
    'pp.repeats',
    pp.repeats,
    f'should divide config.batch={config.batch}.',
  )
  expect(
    pp.test_resize == 0 or pp.test_resize >= pp.crop,
    'pp.test_resize',
    pp.test_resize,
    f'should be 0 or at least config.pp.crop={pp.crop}, which is cut out.',
  )
  for name, size in config.mesh.items():
    at_least = 'should be at least 1, or -1 for all devices that are left.'
    expect(size >= 1 or size == -1, f'mesh.{name}', size, at_least)
  rest = [name for name, size in config.mesh.items() if size == -1]
  for name in rest[1:]:
    only_one = f'is that of config.mesh.{rest[0]}. Only one of them may be -1.'
    expect(False, f'mesh.{name}', -1, only_one)
  return list(found.values())


def not_finite(config: Any) -> dict[str, str]:
  """Returns {field: problem} of the NaN and infinite ones, model's included."""
  return {
    name: f'config.{name}={value} is not finite.'
    for name, value in leaves(config)
    for numbers in [value if isinstance(value, list | tuple) else [value]]
    if any(isinstance(n, float) and not math.isfinite(n) for n in numbers)
  }
