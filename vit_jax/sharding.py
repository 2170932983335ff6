"""The device mesh, and rules that say which mesh axes split which array.

A mesh has three axes. A batch is split over 'data' and 'fsdp'. Parameters, and
whatever the optimiser keeps of each, are split over 'fsdp' to save memory, and
over 'tensor' to save memory and work; 'data' leaves them whole.

XLA adds the communication that this takes. What is computed is the same on any
mesh, but for the order of sums.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import (
  AbstractMesh,
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
)

from vit_jax import errors

Rules = Sequence[tuple[str, PartitionSpec]]

AXES: tuple[str, ...] = ('data', 'fsdp', 'tensor')
BATCH_SPEC = PartitionSpec(('data', 'fsdp'))
_P = PartitionSpec

# The first pattern found in 'params/head/kernel' and the like decides; the
# momentum is 'opt_state/1/0/trace/head/kernel' and so follows its parameter.
# A spec is of the last dimensions: where arrays are stacked, those in front are
# not split. Nor is a dimension that the axis doesn't divide.
#
# 'tensor' splits what is computed between two matrix products: the heads and
# the hidden units. So only the second product has to be summed over devices.
STATE_RULES: Rules = (
  # Attention, the MAP head's too: [width, heads, head_dim], [heads, head_dim],
  # [heads, head_dim, width].
  (r'\b(query|key|value)/kernel$', _P('fsdp', 'tensor', None)),
  (r'\b(query|key|value)/bias$', _P('tensor', None)),
  (r'\bout/kernel$', _P('tensor', None, 'fsdp')),
  # MLP, a Mixer's too: [width, mlp_dim], [mlp_dim], [mlp_dim, width].
  (r'\bDense_0/kernel$', _P('fsdp', 'tensor')),
  (r'\bDense_0/bias$', _P('tensor')),
  (r'\bDense_1/kernel$', _P('tensor', 'fsdp')),
  # Position embedding [1, tokens, width].
  (r'\bpos_embedding$', _P(None, None, 'fsdp')),
  # Head and the layer before it [width, classes].
  (r'\b(head|pre_logits|hidden)/kernel$', _P('fsdp', None)),
  # Patches and the stem's convolutions [height, width, in, out].
  (r'\b(embedding|stem|conv\w+)/kernel$', _P(None, None, None, 'fsdp')),
  # Norms, other biases, class token, counts: too small to be worth it.
  (r'', _P()),
)


def mesh_sizes(mesh: Mapping[str, int], num_devices: int) -> dict[str, int]:
  """Returns the size of each axis, the one that is -1 having what is left.

  Args:
    mesh: 'data', 'fsdp' and 'tensor', as `config.mesh` has them.
    num_devices: that the mesh is made of.

  Raises:
    ConfigError: no mesh of so many devices has these sizes; the text names
      some that have.
  """
  sizes = {axis: mesh[axis] for axis in AXES}
  asked = ', '.join(f'{axis}={size}' for axis, size in sizes.items())
  if any(size < 1 and size != -1 for size in sizes.values()):
    problem = 'sizes are at least 1, or -1 for all devices that are left'
  elif [*sizes.values()].count(-1) > 1:
    problem = 'only one of them may be -1'
  else:
    known = math.prod(size for size in sizes.values() if size != -1)
    filled = {
      axis: num_devices // known if size == -1 else size
      for axis, size in sizes.items()
    }
    if math.prod(filled.values()) == num_devices:
      return filled
    problem = f'there are {num_devices} devices'
    problem += (
      f', and {known} does not divide that'
      if -1 in sizes.values()
      else f', and these are {known}'
    )
  raise errors.ConfigError(
    f'config.mesh with {asked} can not be made: {problem}. Near ones that '
    f'work: {"; ".join(_near_meshes(sizes, num_devices))}.'
  )


def _near_meshes(sizes: Mapping[str, int], num_devices: int) -> list[str]:
  """Returns up to three meshes, those first that differ least from `sizes`."""
  divisors = [n for n in range(1, num_devices + 1) if num_devices % n == 0]
  meshes = [
    (num_devices // (fsdp * tensor), fsdp, tensor)
    for fsdp in divisors
    for tensor in divisors
    if num_devices % (fsdp * tensor) == 0
  ]

  def distance(mesh):
    pairs = [(a, b) for a, b in zip(mesh, sizes.values(), strict=True) if b > 0]
    ratios = [abs(math.log(a / b)) for a, b in pairs]
    # Splitting parameters costs more than it gives where they fit.
    return sum(ratio > 0 for ratio in ratios), sum(ratios), mesh[::-1]

  return [
    ', '.join(f'{axis}={n}' for axis, n in zip(AXES, mesh, strict=True))
    for mesh in sorted(meshes, key=distance)[:3]
  ]


def make_mesh(
  sizes: Mapping[str, int] | None = None,
  devices: Sequence[Any] | None = None,
) -> Mesh:
  """Returns a mesh with the axes 'data', 'fsdp' and 'tensor'.

  Args:
    sizes: as `config.mesh` has them; None for 'data' over all devices.
    devices: to make it of; None for all.

  Raises:
    ConfigError: so many devices don't make such a mesh, or would have two
      processes share a part of their rows.
  """
  devices = jax.devices() if devices is None else devices
  sizes = mesh_sizes(
    sizes or {'data': -1, 'fsdp': 1, 'tensor': 1}, len(devices)
  )
  shape, types = tuple(sizes.values()), (AxisType.Auto,) * len(AXES)
  mesh = jax.make_mesh(shape, AXES, axis_types=types, devices=devices)
  if _parts(_processes(mesh)) is None:
    # Devices are ordered by their wires, which may scatter those of a process.
    # Rows in the order of the processes are what any number of them trains on.
    in_order = sorted(devices, key=lambda d: (d.process_index, d.id))
    mesh = Mesh(np.array(in_order).reshape(shape), AXES, axis_types=types)
  if _parts(_processes(mesh)) is None:
    raise errors.ConfigError(
      f'config.mesh.tensor={sizes["tensor"]} does not fit the processes, which '
      f'have {jax.local_device_count()} devices each: let one of the two '
      'numbers divide the other.'
    )
  return mesh


def batch_part(mesh: Mesh) -> tuple[int, int]:
  """Returns (index, count): which part of each batch this process reads.

  Parts are of equal size, and in the order of their indices they are the batch.
  Where 'tensor' spans processes, these read the same part.

  Args:
    mesh: from `make_mesh`.
  """
  parts = _parts(_processes(mesh))
  assert parts is not None, 'make_mesh refuses such a mesh'
  return parts[jax.process_index()], max(parts.values()) + 1


def _processes(mesh: Mesh) -> np.ndarray:
  """Returns each device's process index, in the shape of the mesh."""
  return np.vectorize(lambda d: d.process_index, otypes=[int])(mesh.devices)


def _parts(processes: np.ndarray) -> dict[int, int] | None:
  """Returns {process: its part of the batch}.

  Args:
    processes: int [data, fsdp, tensor], process index of each device.

  Returns:
    None where processes share some but not all of their rows, or have rows that
    are not beside each other.
  """
  blocks = processes.reshape(-1, processes.shape[-1])  # Of rows.
  owned = {
    int(process): (blocks == process).any(axis=1).nonzero()[0]
    for process in np.unique(processes)
  }
  size = min(len(rows) for rows in owned.values())
  parts = {process: int(rows[0]) // size for process, rows in owned.items()}
  for process, part in parts.items():
    whole = np.arange(part * size, (part + 1) * size)
    if not np.array_equal(owned[process], whole):
      return None
  return parts


def tree_shardings(
  mesh: Mesh | AbstractMesh, tree: Any, rules: Rules = STATE_RULES
) -> Any:
  """Returns a sharding for every leaf of `tree`, by the first rule that fits.

  Args:
    mesh: the devices; an abstract mesh will do to plan for devices that are
      elsewhere.
    tree: arrays or shapes; a leaf's path is its keys joined by '/'.
    rules: pairs of a regular expression, searched for in the path, and a
      PartitionSpec of the last dimensions. An axis that doesn't divide its
      dimension splits nothing.

  Raises:
    ValueError: no rule fits a leaf.
  """

  def sharding(path, leaf):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    for pattern, spec in rules:
      if re.search(pattern, name):
        return NamedSharding(mesh, _fit(spec, np.shape(leaf), mesh.shape))
    raise ValueError(f'No sharding rule for {name!r}.')

  return jax.tree_util.tree_map_with_path(sharding, tree)


def _fit(
  spec: PartitionSpec, shape: tuple[int, ...], sizes: Mapping[str, int]
) -> PartitionSpec:
  """Returns the spec without the axes that don't divide their dimension."""
  axes = [None] * (len(shape) - len(spec)) + [*spec]
  fitting = [
    axis if axis and size % sizes[axis] == 0 else None
    for axis, size in zip(axes[len(axes) - len(shape) :], shape, strict=True)
  ]
  return PartitionSpec(*fitting) if any(fitting) else PartitionSpec()


def bytes_per_device(tree: Any) -> int:
  """Returns how much one device holds of a tree of arrays or shapes.

  Args:
    tree: leaves with `shape`, `dtype` and `sharding`, of an abstract mesh too.
  """
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def to_host(tree: Any, *, keep: bool = True) -> Any:
  """Returns numpy arrays of a sharded tree; every process has to call it.

  It gathers one array after the other, so that no device ever holds more than
  one of them whole.

  Args:
    tree: of arrays on a mesh.
    keep: whether this process wants them; None stands for each otherwise.
  """

  def whole(leaf):
    if not (leaf.is_fully_addressable or leaf.is_fully_replicated):
      everywhere = NamedSharding(leaf.sharding.mesh, PartitionSpec())
      leaf = jax.jit(lambda x: x, out_shardings=everywhere)(leaf)
    return jax.device_get(leaf) if keep else None

  return jax.tree.map(whole, tree)


def replicated(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """Returns the sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh | AbstractMesh) -> NamedSharding:
  """Returns the sharding of a batch: rows split over 'data' and 'fsdp'."""
  return NamedSharding(mesh, BATCH_SPEC)


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Puts this process's rows of a batch on its devices.

  Args:
    batch: tree of numpy arrays [local batch, ...], the `batch_part` of it.
    mesh: the devices of all processes.

  Returns:
    The same tree of global arrays [batch, ...], see `batch_sharding`.
  """
  sharding = batch_sharding(mesh)
  with jax.transfer_guard('allow'):  # With several processes it is hidden.
    return jax.tree.map(
      lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch
    )
