"""The device mesh, and rules that say which mesh axes split which array.

Today's mesh has the one axis 'data': batches are split over it, and the state
is replicated. To split parameters is to add a mesh axis and a rule.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Rules = Sequence[tuple[str, PartitionSpec]]

# The first pattern found in 'params/head/kernel' and the like decides.
STATE_RULES: Rules = ((r'', PartitionSpec()),)
BATCH_SPEC = PartitionSpec('data')


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
  """Returns a mesh with the axis 'data' over all devices, or those given."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh(
    (len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices
  )


def tree_shardings(mesh: Mesh, tree: Any, rules: Rules = STATE_RULES) -> Any:
  """Returns a sharding for every leaf of `tree`, by the first rule that fits.

  Args:
    mesh: the devices.
    tree: arrays or shapes; a leaf's path is its keys joined by '/'.
    rules: pairs of a regular expression, searched for in the path, and a
      PartitionSpec.

  Raises:
    ValueError: no rule fits a leaf.
  """

  def sharding(path, _):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    for pattern, spec in rules:
      if re.search(pattern, name):
        return NamedSharding(mesh, spec)
    raise ValueError(f'No sharding rule for {name!r}.')

  return jax.tree_util.tree_map_with_path(sharding, tree)


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of a batch: rows split over the devices."""
  return NamedSharding(mesh, BATCH_SPEC)


def put_batch(batch: Any, mesh: Mesh) -> Any:
  """Puts this process's rows of a batch on its devices.

  Args:
    batch: tree of numpy arrays [local batch, ...].
    mesh: the devices of all processes.

  Returns:
    The same tree of global arrays [batch, ...], rows split over 'data'.
  """
  sharding = batch_sharding(mesh)
  return jax.tree.map(
    lambda rows: jax.make_array_from_process_local_data(sharding, rows), batch
  )
