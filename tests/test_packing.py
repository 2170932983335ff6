"""Small arrays in long ones and out again: the same bits at the same names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from vit_jax.checkpoints import packing
from vit_jax.checkpoints.state import abstract_state


@struct.dataclass
class Counts:
  """As `guard.GuardState` is one."""

  num_skipped: jax.Array
  count: jax.Array
  good: jax.Array


LARGE = (523, 503)  # More than 1 MiB of float32.


@pytest.fixture(scope='module')
def state(everywhere):
  rng = np.random.default_rng(0)

  def noise(*shape, dtype='float32'):
    return jnp.asarray(rng.normal(size=shape), dtype)

  tree = {
    'step': jnp.int32(7),
    'params': {
      'head': {'kernel': noise(11, 13), 'bias': noise(13)},
      'large': noise(*LARGE),
      'empty': noise(0, 3),
      'empty_too': noise(0, dtype='bfloat16'),
    },
    'opt_state': (
      # In an order that is not that of the names, as of fields of a class.
      Counts(*map(jnp.int32, (-5, 3, 11))),
      {'large': noise(*LARGE, dtype='bfloat16'), 'bias': noise(13)},
    ),
  }
  return jax.device_put(tree, everywhere)


@pytest.fixture(scope='module')
def packed(state):
  return packing.pack(state)


def test_small_arrays_are_packed_by_field_and_dtype(packed):
  tree, contents = packed
  assert {key: [*names] for key, names in contents.items()} == {
    'packed/opt_state float32': ['opt_state/1/bias'],
    'packed/opt_state int32': [
      'opt_state/0/num_skipped',
      'opt_state/0/count',
      'opt_state/0/good',
    ],
    # Half of what it takes in float32.
    'packed/opt_state bfloat16': ['opt_state/1/large'],
    'packed/params float32': [
      'params/empty',
      'params/head/bias',
      'params/head/kernel',
    ],
    'packed/params bfloat16': ['params/empty_too'],
    'packed/step int32': ['step'],
  }
  # Without one that would be empty, which Orbax refuses.
  assert {key: leaf.shape for key, leaf in tree['packed'].items()} == {
    'opt_state float32': (13,),
    'opt_state int32': (3,),
    'opt_state bfloat16': (523 * 503,),
    'params float32': (11 * 13 + 13,),
    'step int32': (1,),
  }


def test_large_arrays_stay_as_they_are(packed, state):
  tree, _ = packed
  assert {*tree} == {'packed', 'params'}
  assert {*tree['params']} == {'large'}
  assert tree['params']['large'] is state['params']['large']


def test_order_within_a_long_array_is_that_of_the_names(packed, state):
  np.testing.assert_array_equal(
    packed[0]['packed']['opt_state int32'], [-5, 3, 11]
  )
  head = state['params']['head']
  np.testing.assert_array_equal(
    packed[0]['packed']['params float32'],
    np.concatenate([head['bias'], np.ravel(head['kernel'])]),
  )


@pytest.mark.parametrize('is_on_devices', [True, False])
def test_unpacked_is_what_was_packed(packed, state, everywhere, is_on_devices):
  tree, contents = packed
  target = abstract_state(
    state, jax.tree.map(lambda _: everywhere if is_on_devices else None, state)
  )
  with jax.transfer_guard('disallow'):  # As a training does.
    restored = packing.unpack(tree, contents, target)
  assert jax.tree.structure(restored) == jax.tree.structure(state)
  for one, other in zip(*map(jax.tree.leaves, (restored, state)), strict=True):
    assert one.dtype == other.dtype
    assert one.shape == other.shape
    assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
    if is_on_devices:
      assert one.sharding == everywhere


def test_target_has_the_shapes_of_what_is_saved(packed, state, everywhere):
  tree, contents = packed
  target = packing.packed_target(
    abstract_state(state, jax.tree.map(lambda _: everywhere, state)), contents
  )
  specs = [
    jax.tree.map(lambda leaf: (leaf.shape, jnp.dtype(leaf.dtype)), each)
    for each in (tree, target)
  ]
  assert specs[0] == specs[1]
  assert target['params']['large'].sharding == everywhere
  assert target['packed']['params float32'].sharding is None


def test_state_of_large_arrays_alone_is_packed_into_none(state, everywhere):
  large = {'x': state['params']['large']}
  tree, contents = packing.pack(large)
  assert tree == large
  assert contents == {}
  target = abstract_state(large, {'x': everywhere})
  assert packing.unpack(tree, contents, target) == large
