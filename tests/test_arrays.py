"""Arrays whose values stay in the file until they are asked for."""

import ml_dtypes
import numpy as np
import pytest

from vit_jax import errors
from vit_jax.checkpoints.arrays import (
  DamagedArrayError,
  StoredArray,
  cast,
  read_arrays,
)


class Counted:
  """A file's array that knows how often it was read."""

  def __init__(self, values, key='qkv'):
    self.values, self.key, self.num_reads = np.asarray(values), key, 0

  def load(self):
    self.num_reads += 1
    return self.values

  def stored(self):
    return StoredArray(
      self.key, self.values.shape, self.values.dtype, self.load
    )


def damaged(key):
  def load():
    raise DamagedArrayError('Bad CRC-32')

  return StoredArray(key, (3,), np.dtype('f4'), load)


def test_views_are_known_before_anything_is_read():
  source = Counted(np.arange(30.0).reshape(6, 5))
  view = source.stored().map(lambda x: x[2:5]).map(lambda x: x.T.reshape(15, 1))
  assert view.shape == (15, 1)
  assert view.dtype == np.float64
  assert view.key == 'qkv'
  assert source.num_reads == 0
  wanted = source.values[2:5].T.reshape(15, 1)
  np.testing.assert_array_equal(view.read(), wanted)


def test_view_of_an_absurd_size_takes_no_memory():
  stored = StoredArray('x', (1 << 20, 1 << 19), np.dtype('f4'), lambda: 1 / 0)
  assert stored.map(np.transpose).shape == (1 << 19, 1 << 20)
  assert stored.size == 1 << 39


@pytest.mark.parametrize('fn', [
  lambda x: x.transpose(3, 2, 0, 1),
  lambda x: x.reshape(7, -1),
  lambda x: x[0, 0, 0],
], ids=['rank', 'size', 'index'])  # fmt: skip
def test_array_that_a_view_does_not_fit_keeps_its_shape(fn):
  source = Counted(np.zeros((3, 5)))
  assert source.stored().map(fn).shape == (3, 5)


def test_parts_of_one_array_are_read_at_once():
  qkv, bias = Counted(np.arange(6.0)), Counted(np.arange(3.0), 'bias')
  whole = qkv.stored()
  parts = {
    'query': whole.map(lambda x: x[:2]),
    'bias': bias.stored(),
    'value': whole.map(lambda x: x[4:]),
  }
  found = read_arrays(parts, 'file')
  assert [*found] == [*parts]
  assert found['query'].tolist() == [0, 1]
  assert found['value'].tolist() == [4, 5]
  assert (qkv.num_reads, bias.num_reads) == (1, 1)


def test_values_are_converted_by_name():
  arrays = {'a': StoredArray.of([1.5]), 'b': StoredArray.of([2.5])}
  found = read_arrays(arrays, 'file', lambda name, value: (name, value[0]))
  assert found == {'a': ('a', 1.5), 'b': ('b', 2.5)}


def test_all_problems_are_listed_by_the_keys_of_the_file():
  odd = Counted([1, np.nan, 2], 'norm.weight').stored()
  arrays = {
    'scale': odd,
    'fine': StoredArray.of([1.0]),
    'kernel': damaged('fc1.weight'),
    'bias': damaged('fc1.bias'),
  }
  with pytest.raises(errors.CheckpointError) as caught:
    read_arrays(arrays, 'some/file.npz')
  lines = str(caught.value).splitlines()
  assert lines[:4] == [
    'some/file.npz: 3 arrays can not be used:',
    '  fc1.bias: Bad CRC-32',
    '  fc1.weight: Bad CRC-32',
    '  norm.weight: 1 of 3 values are NaN or infinite',
  ]


@pytest.mark.parametrize('values', [
  np.zeros((0, 3), 'f4'),
  np.full(5, 3e38, 'f4'),
  np.full(5, 6e4, 'f2'),
  np.array([1e308, 1e308]),
], ids=['empty', 'sum overflows', 'f2', 'f8'])  # fmt: skip
def test_odd_but_finite_values_are_read(values):
  found = read_arrays({'x': StoredArray.of(values)}, 'file')['x']
  assert found is values


@pytest.mark.parametrize('dtype', [bool, np.int8, np.uint64])
def test_what_are_no_weights(dtype):
  arrays = {'x': StoredArray.of(np.zeros(3, dtype))}
  with pytest.raises(errors.CheckpointError) as caught:
    read_arrays(arrays, 'file')
  text = f'  x: holds {np.dtype(dtype)}, expected floating-point numbers'
  assert text in str(caught.value)


@pytest.mark.parametrize(('value', 'wide', 'narrow'), [
  (1e300, 'f8', 'f4'), (-7e4, 'f4', 'f2'), (1e39, 'f8', 'bfloat16'),
])  # fmt: skip
def test_values_that_a_narrower_dtype_can_not_hold(value, wide, narrow):
  stored = StoredArray.of(np.array([1, value], wide))
  with pytest.raises(errors.CheckpointError) as caught:
    read_arrays({'x': stored}, 'file', lambda _, x: cast(x, narrow))
  assert f'  x: as {np.dtype(narrow)}, 1 of 2 values are NaN or infi' in str(
    caught.value
  )


def test_cast_copies_only_where_it_must():
  values = np.arange(15, dtype='f4').reshape(3, 5)
  assert cast(values, 'f4') is values
  assert cast(values.T, 'f4').flags.c_contiguous
  assert cast(values, 'bfloat16').dtype == ml_dtypes.bfloat16
