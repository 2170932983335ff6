"""A plan as text."""

from __future__ import annotations

import math
from typing import Any

from vit_jax.plan import Plan, memory


def plan_text(config: Any, plan: Plan) -> str:
  """Returns the lines that `--plan` prints.

  Args:
    config: what is planned.
    plan: of it.
  """
  lines = {
    'model': f'{config.model.get("model_name", "model")}, {config.pp.crop} x '
    f'{config.pp.crop} pixels, {plan.num_classes:,} classes '
    f'({plan.classes_from})',
    'parameters': f'{plan.num_params:,}',
    'FLOPs per image': f'{_flops(plan.forward_flops)} forward, '
    f'{_flops(plan.training_flops)} in training',
    'devices': _devices_line(plan),
    **_memory_lines(config, plan),
    'accum_steps': _accum_line(config, plan),
    'estimate': _speed_line(config, plan),
  }
  width = max(map(len, lines)) + 2
  return '\n'.join(f'{name:<{width}}{text}' for name, text in lines.items())


def _devices_line(plan: Plan) -> str:
  mesh = ', '.join(f'{axis}={size}' for axis, size in plan.mesh.items())
  return f'{math.prod(plan.mesh.values())} x {plan.device.name} ({mesh})'


def _memory_lines(config: Any, plan: Plan) -> dict[str, str]:
  found = plan.memory
  usable = memory.USABLE * plan.device.memory
  judged = 'fits' if plan.fits else 'does NOT fit'
  return {
    'bytes per device': f'{_gigabytes(found.total)} with accum_steps='
    f'{config.accum_steps}: {judged} in {memory.USABLE:.0%} of '
    f'{_gigabytes(plan.device.memory)} ({_gigabytes(usable)})',
    '  parameters': _gigabytes(found.params),
    '  optimiser': f'{_gigabytes(found.optimizer)} ({config.optimizer}, '
    f'{config.optim_dtype})',
    '  gradients': _gigabytes(found.gradients),
    '  copies': f'{_gigabytes(found.copies)} of weights',
    '  activations': f'{_gigabytes(found.activations)} ({config.dtype}, remat='
    f'{config.remat}), within a factor of 1.5',
    '  batch': _gigabytes(found.batch),
  }


def _accum_line(config: Any, plan: Plan) -> str:
  smallest = plan.smallest_accum_steps
  if smallest is None:
    ways = [
      way
      for way, helps in {
        "config.remat='full'": config.remat != 'full',
        'config.dtype=bfloat16': config.dtype == 'float32',
        'a larger config.mesh.fsdp': True,
      }.items()
      if helps
    ]
    return f'no number fits; try {", ".join(ways)}'
  return f'{smallest} is the smallest that fits'


def _speed_line(config: Any, plan: Plan) -> str:
  seconds, share = plan.speed.step_seconds, plan.speed.share_of_peak
  hours = config.total_steps * seconds / 3600
  return (
    f'{1 / seconds:.3g} steps/s, {config.batch / seconds:,.0f} images/s, '
    f'{share:.0%} of peak; {config.total_steps:,} steps in {_hours(hours)}, '
    'without evaluations, communication and waiting for data'
  )


def _hours(hours: float) -> str:
  return f'{hours:.2g} h' if hours < 10 else f'{hours:,.0f} h'


def _flops(flops: float) -> str:
  if flops < 1e9:
    return f'{flops / 1e6:,.1f} M'
  return f'{flops / 1e9:,.1f} G'


def _gigabytes(num_bytes: float) -> str:
  if num_bytes < 1e9:
    return f'{num_bytes / 1e6:,.1f} MB'
  return f'{num_bytes / 1e9:,.2f} GB'
