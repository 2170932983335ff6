"""Fingerprints: every change shows, and how arrays are laid out does not."""

import os
import subprocess
import sys

import compiling
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.checkpoints.fingerprint import fingerprints, shape_of

KNOWN = 'float32[2, 3] a12f6f735d26dd92'
DTYPES = ['bool', 'uint8', 'int32', 'float16', 'bfloat16', 'float32']


def print_of(array) -> str:
  return fingerprints({'x': array})['x']


def noise(shape, dtype, seed=0):
  rng = np.random.default_rng(seed)
  return (100 * rng.normal(size=shape)).astype(jnp.dtype(dtype))


def test_paths_dtypes_and_shapes_are_readable():
  tree = {'a': [np.zeros((2, 3), 'f4'), None], 'b': np.int32(3)}
  found = fingerprints(tree)
  assert [*found] == ['a/0', 'b']
  assert found['a/0'].startswith('float32[2, 3] ')
  assert found['b'].startswith('int32[] ')
  assert all(len(text.split()[-1]) == 16 for text in found.values())


@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('shape', [(), (5,), (2, 3, 0)])
def test_dtype_and_shape_are_read_back(dtype, shape):
  found = shape_of(print_of(jnp.zeros(shape, dtype)))
  assert (found.shape, found.dtype) == (shape, jnp.dtype(dtype))


def test_known_value_never_changes():
  """Checkpoints that are there must be accepted by later versions."""
  assert print_of(np.arange(6, dtype='f4').reshape(2, 3)) == KNOWN


@pytest.mark.parametrize('dtype', DTYPES)
def test_every_single_bit_counts(dtype):
  array = noise((3, 5), dtype)
  size = 1 if dtype == 'bool' else 8 * array.dtype.itemsize
  seen = {print_of(array)}
  for bit in range(array.size * size):
    raw = bytearray(array.tobytes())
    byte, place = divmod(bit, size) if dtype == 'bool' else divmod(bit, 8)
    raw[byte] ^= 1 << place
    seen.add(print_of(np.frombuffer(raw, array.dtype).reshape(array.shape)))
  assert len(seen) == array.size * size + 1


@pytest.mark.parametrize('dtype', DTYPES)
def test_swapped_elements_rows_and_dimensions_count(dtype):
  array = np.zeros((7, 7), bool)
  array[1, 2] = array[3, 5] = True
  if dtype != 'bool':
    array = noise((7, 7), dtype)
  changed = [
    array.T,
    array[::-1],
    array[:, ::-1],
    np.roll(array, 1),
    array.reshape(49),
    array.reshape(1, 49),
  ]
  found = {print_of(np.ascontiguousarray(x)) for x in [array, *changed]}
  assert len(found) == 7


@pytest.mark.parametrize(
  ('one', 'other'),
  [
    (0.0, -0.0),
    (np.uint32(0x7FC00000).view('f4'), np.uint32(0x7FC00001).view('f4')),
    (np.uint32(0).view('f4'), np.uint32(1).view('f4')),
  ],
  ids=['signs of zero', 'NaNs', 'denormals'],
)
def test_values_that_compare_equal_count(one, other):
  assert print_of(np.float32(one)) != print_of(np.float32(other))


def test_same_bytes_of_another_dtype_count():
  array = noise((5,), 'float32')
  assert print_of(array) != print_of(array.view('i4'))


@pytest.mark.parametrize('shape', [(), (0,), (3, 0, 5)])
def test_scalars_and_empty_arrays_have_one(shape):
  assert print_of(np.zeros(shape, 'f4')).endswith(tuple('0123456789abcdef'))


_ON_EIGHT = """
import json
import jax
from jax.sharding import NamedSharding, PartitionSpec as P
from test_fingerprint import noise, print_of

mesh = jax.make_mesh((4, 2), ('data', 'fsdp'))
array = noise((8, 12), 'float32')
both = ('data', 'fsdp')
specs = [P(), P('data'), P(None, 'data'), P('fsdp', 'data'), P(both)]
placed = [jax.device_put(array, NamedSharding(mesh, spec)) for spec in specs]
assert len(jax.devices()) == 8
print(json.dumps([print_of(x) for x in placed]))
"""


def test_sharding_does_not_count(pytestconfig):
  done = subprocess.run(
    [sys.executable, '-c', _ON_EIGHT],
    cwd=pytestconfig.rootpath,
    env=os.environ
    | {
      'XLA_FLAGS': compiling.flags(8),
      'PYTHONPATH': os.pathsep.join([str(pytestconfig.rootpath), 'tests']),
    },
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.count(print_of(noise((8, 12), 'float32'))) == 5
