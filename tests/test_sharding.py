"""Which mesh axis splits which array."""

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from vit_jax import sharding

RULES = (
  (r'head/kernel$', PartitionSpec(None, 'data')),
  (r'kernel$', PartitionSpec('data')),
  (r'^step$', PartitionSpec()),
)


def test_mesh_has_the_data_axis_over_all_devices():
  mesh = sharding.make_mesh()
  assert mesh.axis_names == ('data',)
  assert mesh.axis_types == (AxisType.Auto,)
  assert [*mesh.devices.flat] == jax.devices()


def test_mesh_over_given_devices():
  devices = jax.devices()[:1]
  assert [*sharding.make_mesh(devices).devices.flat] == devices


def test_first_rule_that_is_found_in_the_path_decides():
  mesh = sharding.make_mesh()
  tree = {
    'step': np.int32(0),
    'params': {
      'head': {'kernel': np.zeros((2, 3))},
      'blocks': [{'kernel': np.zeros(5)}],
    },
  }
  found = sharding.tree_shardings(mesh, tree, RULES)
  assert jax.tree.map(lambda leaf: leaf.spec, found) == {
    'step': PartitionSpec(),
    'params': {
      'head': {'kernel': PartitionSpec(None, 'data')},
      'blocks': [{'kernel': PartitionSpec('data')}],
    },
  }
  assert all(leaf.mesh == mesh for leaf in jax.tree.leaves(found))


def test_leaf_without_a_rule_is_named():
  tree = {'params': {'blocks': [{'bias': 1}, {'kernel': 2}]}}
  with pytest.raises(ValueError, match='params/blocks/0/bias'):
    sharding.tree_shardings(sharding.make_mesh(), tree, RULES)


def test_state_is_whole_on_every_device_by_default():
  mesh = sharding.make_mesh()
  shapes = {'opt_state': (jax.ShapeDtypeStruct((3,), 'bfloat16'),)}
  assert sharding.tree_shardings(mesh, shapes) == {
    'opt_state': (sharding.replicated(mesh),)
  }


def test_batch_is_split_by_rows():
  mesh = sharding.make_mesh()
  rows = 3 * mesh.size
  batch = {
    'image': np.arange(rows * 20, dtype=np.uint8).reshape(rows, 5, 2, 2),
    'label': np.arange(rows, dtype=np.int32),
  }
  on_device = sharding.put_batch(batch, mesh)
  for name, array in batch.items():
    assert on_device[name].sharding == sharding.batch_sharding(mesh)
    assert on_device[name].dtype == array.dtype
    np.testing.assert_array_equal(on_device[name], array)
    first = on_device[name].addressable_shards[0]
    np.testing.assert_array_equal(first.data, array[:3])
