"""How much memory a device needs for a training step, by formulas."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax

from vit_jax import sharding
from vit_jax.plan.layers import Layer, Part

# Share of a device's memory that a run can have: the rest is the runtime's, and
# lost between the arrays.
USABLE = 0.9


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on each device, the most at any moment of a step.

  Attributes:
    params: float32 parameters.
    optimizer: the rest of the state.
    gradients: of the parameters; with micro-batches, their sum as well, and
      with moments of 16 bits the updates, which are in 32.
    copies: of the weights, in 16 bits or gathered over 'fsdp'.
    activations: what the backward pass needs of a micro-batch, and its images.
    batch: the batch as it comes from the host.
  """

  params: int
  optimizer: int
  gradients: int
  copies: int
  activations: int
  batch: int

  @property
  def total(self) -> int:
    return sum(dataclasses.astuple(self))


def training_memory(built: Any, parts: list[Part], accum_steps: int) -> Memory:
  """Returns what a step takes.

  Args:
    built: an `experiment.Experiment`, of an abstract mesh too.
    parts: of its model.
    accum_steps: micro-batches; they divide the rows of a device.
  """
  config, sizes = built.config, built.mesh.shape
  state = sharding.bytes_per_device(built.target)
  params = sharding.bytes_per_device(built.target.params)
  rows = config.batch // (sizes['data'] * sizes['fsdp'])
  itemsize = built.model.dtype.itemsize
  copies = params * itemsize // 4 if itemsize < 4 else 0
  if sizes['fsdp'] > 1:
    copies += _gathered(parts, itemsize, sizes)
  num_gradients = 1 + (accum_steps > 1) + (config.optim_dtype != 'float32')
  pixels = 3 * config.pp.crop**2
  return Memory(
    params=params,
    optimizer=state - params,
    gradients=params * num_gradients,
    copies=copies,
    activations=rows
    // accum_steps
    * activation_bytes(parts, built.model, sizes['tensor']),
    batch=rows * pixels,
  )


def activation_bytes(parts: list[Part], model: Any, num_split: int) -> int:
  """Returns what the backward pass needs of one image.

  Args:
    parts: of the model.
    model: the module; its `dtype`, `remat` and `scan_layers` count.
    num_split: devices along 'tensor'.
  """
  itemsize = model.dtype.itemsize
  kept, largest = 0.0, 0.0
  for part in parts:
    whole = sum(_kept(layer, itemsize, num_split) for layer in part.layers)
    largest = max(largest, whole)
    kept += part.repeats * _kept_of(part, model.remat, itemsize, num_split)
    if part.enters and model.scan_layers and model.remat == 'none':
      kept += part.repeats * sum(
        itemsize * layer.kept_scanned / (num_split if layer.is_split else 1)
        for layer in part.layers
      )
  # On the way back one block at a time is whole, and so are its gradients.
  return int(kept + largest)


def _kept_of(part: Part, remat: str, itemsize: int, num_split: int) -> float:
  """Returns the bytes that one repetition keeps until the backward pass."""
  if not part.enters or remat == 'none':
    return sum(_kept(layer, itemsize, num_split) for layer in part.layers)
  kept = itemsize * part.enters
  if remat == 'dots':
    kept += sum(
      itemsize * layer.gives / (num_split if layer.is_split else 1)
      for layer in part.layers
      if layer.is_dot
    )
  return kept


def _kept(layer: Layer, itemsize: int, num_split: int) -> float:
  kept = itemsize * layer.kept + 4 * layer.kept_float32 + layer.kept_bytes
  return kept / (num_split if layer.is_split else 1)


def _gathered(
  parts: list[Part], itemsize: int, sizes: Mapping[str, int]
) -> int:
  """Returns the bytes of the largest part's weights, and of the next one's."""
  weights = max(
    sum(
      layer.weights / (sizes['tensor'] if layer.is_split else 1)
      for layer in part.layers
    )
    for part in parts
  )
  return int(2 * weights * itemsize)


def smallest_accum_steps(
  built: Any, parts: list[Part], memory: float
) -> int | None:
  """Returns the fewest micro-batches that fit, None if no number does.

  Args:
    built: an `experiment.Experiment`.
    parts: of its model.
    memory: of a device, in bytes.
  """

  def fits(accum_steps: int) -> bool:
    needed = training_memory(built, parts, accum_steps).total
    return needed <= USABLE * memory

  sizes = built.mesh.shape
  rows = built.config.batch // (sizes['data'] * sizes['fsdp'])
  if fits(1):
    return 1
  # The most take the least; so the divisors are only looked for of a batch
  # whose pixels fit, which has not many rows.
  if not fits(rows):
    return None
  return next(filter(fits, _divisors(rows)))


def _divisors(number: int) -> list[int]:
  """Returns the divisors of a number, the smallest first."""
  small = [n for n in range(1, math.isqrt(number) + 1) if number % n == 0]
  return sorted({*small, *(number // n for n in small)})


def num_params(tree: Any) -> int:
  """Returns how many numbers are in a tree of arrays or shapes."""
  return sum(leaf.size for leaf in jax.tree.leaves(tree))
