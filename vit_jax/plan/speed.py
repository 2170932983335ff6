"""How long a step takes, by the roofline of each layer."""

from __future__ import annotations

import dataclasses
from typing import Any

from vit_jax.plan.accelerators import Accelerator
from vit_jax.plan.layers import Layer, Part, training_flops

# Of the peaks of products and of memory, what kernels of such sizes reach: an
# assumption. With it the original's runs on V100s come out as published, within
# a quarter (tests/test_plan.py).
ATTAINED = 0.6
# What the backward pass takes of the forward pass's time.
_BACKWARD = 2
# Times that an update reads or writes each number: gradients for their norm and
# for clipping, momentum and parameters.
_UPDATE_PASSES = 8
# Of cuDNN's kernels, as in `models.attention`.
MAX_FUSED_HEAD_DIM = 128


@dataclasses.dataclass(frozen=True)
class Speed:
  """An estimate; what devices send each other is not in it.

  Attributes:
    step_seconds: time of a step.
    share_of_peak: of FLOP/s, counting what the model takes and nothing that is
      computed again (Chowdhery et al. 2022, appendix B: MFU).
  """

  step_seconds: float
  share_of_peak: float


def training_speed(built: Any, parts: list[Part], device: Accelerator) -> Speed:
  """Returns how fast a run trains where it never waits for data.

  Args:
    built: an `experiment.Experiment`, of an abstract mesh too.
    parts: of its model.
    device: what the mesh is made of.
  """
  config, sizes = built.config, built.mesh.shape
  rows = config.batch / (sizes['data'] * sizes['fsdp'])
  peak = device.peak(config.dtype)
  model, num_split = built.model, sizes['tensor']
  seconds = 0.0
  for i, part in enumerate(parts):
    times = [
      _seconds(layer, rows, config.accum_steps, model, num_split, device)
      for layer in part.layers
    ]
    passes = 1 + _BACKWARD - (i == 0)
    seconds += part.repeats * sum(times) * passes
    if part.enters:
      seconds += part.repeats * sum(
        time
        for time, layer in zip(times, part.layers, strict=True)
        if _is_done_again(layer, model.remat)
      )
  params = sum(
    layer.weights * part.repeats / (num_split if layer.is_split else 1)
    for part in parts
    for layer in part.layers
  )
  update = _UPDATE_PASSES * 4 * params / sizes['fsdp'] / device.bandwidth
  seconds = (seconds + update) / ATTAINED
  flops = config.batch * training_flops(parts) / built.mesh.size
  return Speed(seconds, flops / seconds / peak)


def has_fused_attention(model: Any, device: Accelerator) -> bool:
  """Tells whether a model's attention never holds its weights on a device."""
  if getattr(model, 'attention', 'plain') == 'plain':
    return False
  head_dim = model.hidden_size // model.num_heads
  is_suitable = head_dim % 8 == 0 and head_dim <= MAX_FUSED_HEAD_DIM
  return (
    device.has_fused_attention and model.dtype.itemsize == 2 and is_suitable
  )


def _seconds(
  layer: Layer,
  rows: float,
  accum_steps: int,
  model: Any,
  num_split: int,
  device: Accelerator,
) -> float:
  """Returns what a layer takes forward, at the peaks, for all micro-batches."""
  itemsize = model.dtype.itemsize
  moved = itemsize * (rows * layer.traffic + accum_steps * layer.weights)
  products = 2 * rows * layer.macs / device.peak(model.dtype.name)
  seconds = max(products, moved / device.bandwidth)
  return seconds / (num_split if layer.is_split else 1)


def _is_done_again(layer: Layer, remat: str) -> bool:
  return remat == 'full' or (remat == 'dots' and not layer.is_dot)
