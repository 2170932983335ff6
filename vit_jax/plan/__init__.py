"""Says what a run takes before anything is compiled: memory, FLOPs, time."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType

from vit_jax import config_checks, experiment, sharding
from vit_jax.plan import accelerators, classes, layers, memory, speed

__all__ = ['Plan', 'abstract_mesh', 'make_plan', 'print_plan']


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a run takes, by formulas but for the state, which is exact.

  Attributes:
    device: what it is planned for.
    mesh: sizes of the axes.
    num_classes: width of the head.
    classes_from: where that number comes from.
    num_params: of the whole model.
    forward_flops: of one image.
    training_flops: of one image in training, nothing counted twice.
    memory: of each device, with the config's `accum_steps`.
    smallest_accum_steps: the fewest micro-batches that fit, None if none do.
    speed: an estimate.
  """

  device: accelerators.Accelerator
  mesh: dict[str, int]
  num_classes: int
  classes_from: str
  num_params: int
  forward_flops: float
  training_flops: float
  memory: memory.Memory
  smallest_accum_steps: int | None
  speed: speed.Speed

  @property
  def fits(self) -> bool:
    """Whether the config's `accum_steps` will do."""
    return self.memory.total <= memory.USABLE * self.device.memory


def make_plan(
  config: Any, accelerator: str = '', *, smallest: bool = False
) -> Plan:
  """Returns what the run takes that a config describes.

  Args:
    config: as `configs/common.py` defines it.
    accelerator: one of `accelerators.NAMES`, of which there are as many as
      `config.mesh` needs, an axis that is -1 being 1; '' for the devices of
      this machine.
    smallest: whether memory and speed are with `smallest_accum_steps` instead
      of the config's, where any fit.

  Raises:
    ConfigError: an unknown accelerator, or settings that can't work.
  """
  if accelerator:
    device = accelerators.accelerator(accelerator)
    # The config may hold anything until it is checked.
    readable, _ = config_checks.fields.readable(config)
    num_devices = math.prod(max(1, size) for size in readable.mesh.values())
  else:
    found = jax.devices()[0]
    device = accelerators.detect(found.device_kind)
    if device is None:
      accelerators.refuse(found)
    num_devices = jax.device_count()
  config_checks.check_config(config, num_devices)
  mesh = abstract_mesh(sharding.mesh_sizes(config.mesh, num_devices))
  num_classes, classes_from = classes.num_classes(config)
  built = experiment.build(config, num_classes, mesh)
  is_fused = speed.has_fused_attention(built.model, device)
  parts = layers.model_parts(built.model, config.pp.crop, is_fused=is_fused)
  accum_steps = memory.smallest_accum_steps(built, parts, device.memory)
  if smallest and accum_steps is not None:
    config = config.copy_and_resolve_references()
    config.accum_steps = accum_steps
    built = dataclasses.replace(built, config=config)
  return Plan(
    device=device,
    mesh=dict(mesh.shape),
    num_classes=num_classes,
    classes_from=classes_from,
    num_params=memory.num_params(built.target.params),
    forward_flops=layers.forward_flops(parts),
    training_flops=layers.training_flops(parts),
    memory=memory.training_memory(built, parts, config.accum_steps),
    smallest_accum_steps=accum_steps,
    speed=speed.training_speed(built, parts, device),
  )


def abstract_mesh(sizes: dict[str, int]) -> AbstractMesh:
  """Returns a mesh of devices that need not be there."""
  types = (AxisType.Auto,) * len(sizes)
  return AbstractMesh(tuple(sizes.values()), tuple(sizes), axis_types=types)


def print_plan(config: Any, accelerator: str = '') -> None:
  """Prints `make_plan`, for people."""
  from vit_jax.plan import report

  print(report.plan_text(config, make_plan(config, accelerator)))
