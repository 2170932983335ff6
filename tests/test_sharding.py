"""Which mesh axis splits which array, and who reads which rows."""

import functools
import math
import re

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from configs import vit
from vit_jax import (
  config_checks,
  errors,
  models,
  optim,
  sharding,
  train_step,
)
from vit_jax.models import variants
from vit_jax.sharding import AXES

P = PartitionSpec
RULES = (
  (r'head/kernel$', P(None, 'fsdp')),
  (r'kernel$', P('fsdp')),
  (r'^step$', P()),
)


def plan(data, fsdp, tensor):
  """Returns a mesh of devices that are not there."""
  return AbstractMesh((data, fsdp, tensor), AXES)


def mesh_of(data, fsdp, tensor):
  return dict(zip(AXES, (data, fsdp, tensor), strict=True))


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, 'float32')


def specs(mesh, tree, *args):
  found = sharding.tree_shardings(mesh, tree, *args)
  return jax.tree.map(lambda leaf: leaf.spec, found)


@functools.cache
def state_of(name, size, scan_layers=False, **config_fields):
  """Returns the state's shapes; nothing is computed."""
  config = vit.get_config('tiny,digits')
  config.update(config_fields)
  schedule = optim.learning_rate_schedule(0.1, 'constant', 7, 0)
  tx = optim.make_optimizer(config, schedule)
  model_config = variants.model_config(name)
  if name == 'b16':  # With all that a ViT may have.
    model_config.update(classifier='map', representation_size=768)
  model = models.create_model(model_config, 1000, scan_layers=scan_layers)
  return train_step.state_shapes(model, tx, size)


def by_path(tree):
  leaves, _ = jax.tree_util.tree_flatten_with_path(
    tree, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec)
  )
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for path, leaf in leaves
  }


def test_mesh_has_all_devices_on_the_data_axis_by_default():
  mesh = sharding.make_mesh()
  assert mesh.axis_names == ('data', 'fsdp', 'tensor')
  assert mesh.axis_types == (AxisType.Auto,) * 3
  assert mesh.shape == mesh_of(len(jax.devices()), 1, 1)
  assert [*mesh.devices.flat] == jax.devices()


def test_mesh_over_given_devices():
  devices = jax.devices()[:1]
  mesh = sharding.make_mesh(mesh_of(1, -1, 1), devices)
  assert [*mesh.devices.flat] == devices


@pytest.mark.parametrize(
  ('asked', 'num_devices', 'found'),
  [
    ((-1, 1, 1), 8, (8, 1, 1)),
    ((-1, 2, 3), 12, (2, 2, 3)),
    ((1, -1, 2), 6, (1, 3, 2)),
    ((2, 1, -1), 2, (2, 1, 1)),
    ((5, 1, 1), 5, (5, 1, 1)),
  ],
)
def test_axis_without_a_size_gets_what_is_left(asked, num_devices, found):
  sizes = sharding.mesh_sizes(mesh_of(*asked), num_devices)
  assert sizes == mesh_of(*found)


@pytest.mark.parametrize(
  ('asked', 'num_devices', 'words', 'nearest'),
  [
    ((3, 1, 1), 8, '8 devices, and these are 3', (8, 1, 1)),
    ((4, 4, 1), 8, '8 devices, and these are 16', (4, 2, 1)),
    ((-1, 1, 3), 8, '3 does not divide that', (2, 1, 4)),
    ((-1, 16, 1), 8, '16 does not divide that', (1, 8, 1)),
    ((-1, -1, 1), 6, 'only one of them may be -1', (6, 1, 1)),
    ((0, 1, 1), 2, 'at least 1, or -1', (2, 1, 1)),
    ((-2, 1, 1), 1, 'at least 1, or -1', (1, 1, 1)),
  ],
)
def test_mesh_that_can_not_be_made(asked, num_devices, words, nearest):
  with pytest.raises(errors.ConfigError) as caught:
    sharding.mesh_sizes(mesh_of(*asked), num_devices)
  text = str(caught.value)
  assert words in text
  assert 'data={}, fsdp={}, tensor={} can'.format(*asked) in text
  meshes = re.findall(r'data=(\d+), fsdp=(\d+), tensor=(\d+)', text)
  meshes = [tuple(map(int, mesh)) for mesh in meshes]
  meshes = [mesh for mesh in meshes if mesh != asked]  # Named first.
  assert meshes[0] == nearest
  assert all(math.prod(mesh) == num_devices for mesh in meshes)


def test_config_names_meshes_and_batches_that_work():
  config = vit.get_config('tiny,digits')
  config.update(batch=36, batch_eval=36, accum_steps=3)
  config.mesh.update(data=2, fsdp=2, tensor=2)
  with pytest.raises(errors.ConfigError) as caught:
    config_checks.check_config(config, 4)
  assert 'these are 8. Near ones that work: data=2, fsdp=2, tensor=1' in str(
    caught.value
  )
  config_checks.check_config(config, 8)  # Rows are split in 4, not in 8.
  config.mesh.update(data=8, fsdp=1, tensor=1)
  with pytest.raises(errors.ConfigError, match='a multiple of 24 .8 devices x'):
    config_checks.check_config(config, 8)


@pytest.mark.parametrize('field', ['num_heads', 'mlp_dim'])
def test_tensor_divides_heads_and_mlp_width(field):
  config = vit.get_config('tiny,digits')
  config.mesh.tensor = 4
  config_checks.check_config(config, 4)
  config.model.transformer[field] = 22
  with pytest.raises(errors.ConfigError) as caught:
    config_checks.check_config(config, 4)
  problem = f'mesh.tensor=4 does not divide config.model.transformer.{field}=22'
  assert problem in str(caught.value)


def test_first_rule_that_is_found_in_the_path_decides():
  tree = {
    'step': np.int32(0),
    'params': {
      'head': {'kernel': np.zeros((2, 3))},
      'blocks': [{'kernel': np.zeros(6)}],
    },
  }
  mesh = plan(1, 3, 1)
  assert specs(mesh, tree, RULES) == {
    'step': P(),
    'params': {
      'head': {'kernel': P(None, 'fsdp')},
      'blocks': [{'kernel': P('fsdp')}],
    },
  }
  found = sharding.tree_shardings(mesh, tree, RULES)
  assert all(leaf.mesh == mesh for leaf in jax.tree.leaves(found))


def test_leaf_without_a_rule_is_named():
  tree = {'params': {'blocks': [{'bias': 1}, {'kernel': 2}]}}
  with pytest.raises(ValueError, match='params/blocks/0/bias'):
    sharding.tree_shardings(sharding.make_mesh(), tree, RULES)


def test_what_an_axis_does_not_divide_is_whole_along_it():
  tree = {'Dense_0': {'kernel': shape(15, 14)}}
  assert specs(plan(1, 3, 2), tree)['Dense_0']['kernel'] == P('fsdp', 'tensor')
  assert specs(plan(1, 2, 7), tree)['Dense_0']['kernel'] == P(None, 'tensor')
  assert specs(plan(1, 5, 4), tree)['Dense_0']['kernel'] == P('fsdp', None)


def test_stacked_arrays_are_split_like_single_ones():
  tree = {'query': {'kernel': shape(4, 6, 2, 3), 'bias': shape(4, 2, 3)}}
  assert specs(plan(1, 2, 2), tree) == {
    'query': {
      'kernel': P(None, 'fsdp', 'tensor', None),
      'bias': P(None, 'tensor', None),
    }
  }


# What is split; of what is not named, nothing is.
BLOCK = {
  r'(query|key|value)/kernel': P('fsdp', 'tensor', None),
  r'(query|key|value)/bias': P('tensor', None),
  r'out/kernel': P('tensor', None, 'fsdp'),
  r'Dense_0/kernel': P('fsdp', 'tensor'),
  r'Dense_0/bias': P('tensor'),
  r'Dense_1/kernel': P('tensor', 'fsdp'),
  r'(embedding|stem)/kernel': P(None, None, None, 'fsdp'),
  r'head/kernel': P('fsdp', None),
  r'pos_embedding': P(None, None, 'fsdp'),
}


@pytest.mark.parametrize(
  ('name', 'others'),
  [
    ('b16', {r'pre_logits/kernel': P('fsdp', None)}),
    ('r50_b16', {r'conv[1-3]|conv_(root|proj)': P(None, None, None, 'fsdp')}),
    ('mixer_s16', {}),
  ],
)
def test_rules_of_every_parameter(name, others):
  found = by_path(specs(plan(1, 2, 2), state_of(name, 224).params))
  rules, used = BLOCK | others, set()
  for path, spec in found.items():
    fitting = [p for p in rules if re.search(rf'(^|/)({p})(/kernel)?$', path)]
    assert spec == (rules[fitting[0]] if fitting else P()), path
    used.update(fitting)
  assert {'Dense_0/kernel', *others} <= used
  # All kernels, that is, and nothing else has as many numbers.
  sizes = by_path(state_of(name, 224).params)
  whole = [sizes[path].size for path, spec in found.items() if spec == P()]
  split = [sizes[path].size for path, spec in found.items() if spec != P()]
  assert sum(whole) < sum(split) / 100


@pytest.mark.parametrize('optimizer', ['sgd', 'adamw'])
def test_optimiser_state_is_split_as_its_parameters_are(optimizer):
  state = state_of('tiny', 8, optimizer=optimizer, grad_norm_clip=1.0)
  found = specs(plan(1, 2, 2), state)
  params = by_path(found.params)
  moments = by_path(found.opt_state)
  matched = [
    (spec, params[parameter])
    for path, spec in moments.items()
    for parameter in params
    if path.endswith(f'/{parameter}')
  ]
  assert len(matched) == len(params) * (2 if optimizer == 'adamw' else 1)
  assert all(spec == wanted for spec, wanted in matched)
  assert found.step == P()


@pytest.mark.parametrize('name', ['b16', 'mixer_s16'])
def test_stacked_blocks_are_split_as_single_ones_are(name):
  looped, stacked = (
    by_path(specs(plan(1, 2, 2), state_of(name, 224, scan_layers=scans)))
    for scans in (False, True)
  )
  num_stacked = 0
  for path, spec in stacked.items():
    first = re.sub(r'/(encoderblock|MixerBlock)/', r'/\1_0/', path)
    in_front = (None,) if first != path and looped[first] != P() else ()
    assert spec == P(*in_front, *looped[first]), path
    num_stacked += len(in_front)
  assert num_stacked > 10


def test_state_is_whole_on_every_device_by_default():
  shapes = {'opt_state': (jax.ShapeDtypeStruct((3,), 'bfloat16'),)}
  mesh = sharding.make_mesh()
  assert sharding.tree_shardings(mesh, shapes) == {
    'opt_state': (sharding.replicated(mesh),)
  }
  whole = sharding.tree_shardings(plan(8, 1, 1), state_of('tiny', 8))
  assert all(leaf.is_fully_replicated for leaf in jax.tree.leaves(whole))


@pytest.mark.parametrize(
  ('mesh', 'share'),
  [((1, 8, 1), 1 / 8), ((2, 4, 1), 1 / 4), ((1, 2, 4), 1 / 8)],
)
def test_share_of_the_largest_model_on_a_device(mesh, share):
  state = state_of('G14', 224, optimizer='adamw')
  shardings = sharding.tree_shardings(plan(*mesh), state)
  target = jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=place
    ),
    state,
    shardings,
  )
  whole = sum(
    leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)
  )
  assert whole > 18e9  # Parameters, and moments of which one has 16 bits.
  assert sharding.bytes_per_device(target) / whole == pytest.approx(
    share, rel=0.01
  )


@pytest.mark.parametrize(
  ('processes', 'parts'),
  [
    ([[[0]], [[0]], [[1]], [[1]]], {0: 0, 1: 1}),
    ([[[0], [0]], [[1], [1]]], {0: 0, 1: 1}),
    # 'tensor' within a process, over two, and over all.
    ([[[0, 0]], [[1, 1]], [[2, 2]]], {0: 0, 1: 1, 2: 2}),
    ([[[0, 1]], [[2, 3]]], {0: 0, 1: 0, 2: 1, 3: 1}),
    ([[[0, 0, 1, 1]]], {0: 0, 1: 0}),
    # In another order.
    ([[[1]], [[0]]], {0: 1, 1: 0}),
    # Rows that are scattered, and rows that are shared in part.
    ([[[0]], [[1]], [[0]], [[1]]], None),
    ([[[0, 0, 0]], [[0, 1, 1]], [[1, 1, 1]]], None),
    ([[[0, 0]], [[0, 1]], [[1, 1]]], None),
  ],
)
def test_part_of_the_batch_that_a_process_reads(processes, parts):
  assert sharding._parts(np.array(processes)) == parts


def test_one_process_reads_all_of_a_batch():
  assert sharding.batch_part(sharding.make_mesh()) == (0, 1)


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
  assert sharding.batch_sharding(plan(3, 2, 5)).shard_shape((12, 7)) == (2, 7)


def test_arrays_come_to_the_host_of_who_wants_them():
  tree = {'a': np.arange(3), 'b': [np.float32(2)]}
  on_device = jax.device_put(tree, sharding.replicated(sharding.make_mesh()))
  found = sharding.to_host(on_device)
  assert isinstance(found['a'], np.ndarray)
  np.testing.assert_array_equal(found['a'], tree['a'])
  assert sharding.to_host(on_device, keep=False) == {'a': None, 'b': [None]}
