"""Tests of `.safetensors` files: their bytes, and what is refused of them."""

import io
import json
import os
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from vit_jax import errors
from vit_jax.checkpoints import safetensors as files
from vit_jax.checkpoints.arrays import (
  DamagedArrayError,
  StoredArray,
  read_arrays,
)

DTYPES = [
  *('float64', 'float32', 'float16', ml_dtypes.bfloat16, 'bool'),
  *('int64', 'int32', 'int16', 'int8', 'uint64', 'uint32', 'uint16', 'uint8'),
]


def make_arrays():
  """Returns arrays of several dtypes and dims, one of them with no elements."""
  kernel = np.arange(15, dtype='f4').reshape(3, 5)
  return {
    'kernel': kernel,
    'kernel transposed': kernel.T,
    'half': np.arange(7, dtype='f2'),
    'brain': np.arange(5).astype(ml_dtypes.bfloat16),
    'step': np.int64(3),
    'none': np.zeros((0, 3), 'f4'),
  }


def write(arrays, path, metadata=None):
  with open(path, 'wb') as file:
    files.write_safetensors(arrays, file, metadata or {})


def load(path):
  with files.open_safetensors(path) as stored:
    return {key: array.read() for key, array in stored.arrays.items()}


def assert_same(found, wanted):
  assert found.keys() == wanted.keys()
  for key, array in wanted.items():
    assert found[key].shape == array.shape, key
    assert found[key].dtype == array.dtype, key
    assert found[key].tobytes() == array.tobytes(), key


def error_of(path) -> str:
  with (
    pytest.raises(errors.CheckpointError) as caught,
    files.open_safetensors(path) as stored,
  ):
    read_arrays(stored.arrays, stored.path)
  assert str(path) in str(caught.value)
  return str(caught.value)


def make_file(path, header, data=b''):
  """Writes a file with any header: text, or what becomes JSON."""
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, 'little') + text + data)


def entry(shape, begin, end, dtype='F32'):
  return {'dtype': dtype, 'shape': shape, 'data_offsets': [begin, end]}


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'model.safetensors'


# --- There and back -----------------------------------------------------------


@pytest.mark.parametrize('dtype', DTYPES)
def test_write_then_read_gives_the_same_bits(path, dtype):
  arrays = {'a': np.arange(15).reshape(3, 5).astype(dtype)}
  write(arrays, path)
  assert_same(load(path), arrays)


def test_arrays_of_all_kinds(path):
  write(make_arrays(), path)
  assert_same(load(path), make_arrays())


def test_library_reads_what_we_write(path):
  write(make_arrays(), path, {'num_heads': '3'})
  assert_same(safetensors.numpy.load_file(path), make_arrays())
  with safetensors.safe_open(path, 'np') as file:
    assert file.metadata().items() >= {('format', 'pt'), ('num_heads', '3')}


def test_we_read_what_the_library_writes(path):
  arrays = {
    key: np.asarray(array, order='C') for key, array in make_arrays().items()
  }
  safetensors.numpy.save_file(arrays, path, metadata={'from': 'elsewhere'})
  assert_same(load(path), arrays)
  with files.open_safetensors(path) as stored:
    assert stored.metadata == {'from': 'elsewhere'}


def test_same_arrays_give_the_same_bytes(path, tmp_path):
  write(make_arrays(), path)
  write(dict(reversed(make_arrays().items())), tmp_path / 'other')
  assert (tmp_path / 'other').read_bytes() == path.read_bytes()


def test_no_array_is_misaligned(path):
  write(make_arrays(), path)
  data = path.read_bytes()
  size = int.from_bytes(data[:8], 'little')
  assert size % 8 == 0
  header = json.loads(data[8 : 8 + size])
  del header['__metadata__']
  for found in header.values():
    itemsize = files._DTYPES[found['dtype']].itemsize
    assert found['data_offsets'][0] % itemsize == 0


def test_metadata_come_back_without_the_checksums(path):
  write(make_arrays(), path, {'num_heads': '3', 'é': 'ü'})
  with files.open_safetensors(path) as stored:
    assert stored.metadata == {'format': 'pt', 'num_heads': '3', 'é': 'ü'}


def test_big_endian_arrays_are_turned(path):
  write({'a': np.arange(5, dtype='>f4')}, path)
  assert_same(load(path), {'a': np.arange(5, dtype='f4')})


def test_types_that_the_format_lacks(path):
  arrays = {'a': np.zeros(3, 'c8'), 'b': np.zeros(3), 'c': np.zeros(3, 'O')}
  with pytest.raises(errors.CheckpointError) as caught:
    write(arrays, path)
  assert '  a: complex64\n  c: object' in str(caught.value)
  assert not path.read_bytes()


def test_opening_reads_no_values(path):
  write(make_arrays(), path)
  data = path.read_bytes()
  with files.open_safetensors(path) as stored:
    path.write_bytes(data[: len(data) // 2])
    assert isinstance(stored.arrays['kernel'], StoredArray)
    assert stored.arrays['kernel'].shape == (3, 5)
    assert stored.arrays['brain'].dtype == ml_dtypes.bfloat16


# --- Files of ours that others wrote again ------------------------------------


def saved_again(path, changes=None, **metadata):
  """Has the library write what it reads of a file of ours."""
  write({'a': np.arange(3, dtype='f4')}, path, {'num_heads': '3'})
  with safetensors.safe_open(path, 'np') as file:
    kept = file.metadata()
  arrays = safetensors.numpy.load_file(path) | (changes or {})
  safetensors.numpy.save_file(arrays, path, metadata=kept | metadata)


def test_foreign_metadata_is_no_damage(path):
  saved_again(path, made_by='somebody', format='np')
  assert_same(load(path), {'a': np.arange(3, dtype='f4')})
  with files.open_safetensors(path) as stored:
    assert stored.metadata['made_by'] == 'somebody'


@pytest.mark.parametrize(
  ('changes', 'metadata'),
  [
    ({'a': np.ones(3, 'f4')}, {}),
    ({'a': np.arange(3, dtype='f2')}, {}),
    ({'a': np.arange(3, dtype='f4').reshape(3, 1)}, {}),
    ({'b': np.ones(3, 'f4')}, {}),
    ({}, {'num_heads': '5'}),
  ],
)
def test_checksums_that_another_program_kept(path, changes, metadata):
  saved_again(path, changes, **metadata)
  text = error_of(path)
  assert 'kept' in text and 'vit_jax.crc32' in text
  assert "metadata={'format': 'pt'}" in text


def test_arrays_that_another_program_left_out(path):
  saved_again(path, {'b': np.ones(3)}, **{'vit_jax.crc32': '{"a": 1, "c": 2}'})
  assert '  c: is missing, and has a checksum' in error_of(path)


# --- Damage -------------------------------------------------------------------


def test_truncated_anywhere(path):
  write(make_arrays(), path)
  data = path.read_bytes()
  for length in range(len(data)):
    path.write_bytes(data[:length])
    error_of(path)


def test_flipped_bytes_never_give_wrong_numbers(path):
  write(make_arrays(), path, {'num_heads': '3'})
  data = path.read_bytes()
  num_errors = 0
  for position in range(len(data)):
    damaged = bytearray(data)
    damaged[position] ^= 1 << position % 8
    path.write_bytes(damaged)
    try:
      found = load(path)
    except (errors.CheckpointError, DamagedArrayError):
      num_errors += 1
      continue
    assert_same(found, make_arrays())  # A space after the header, for one.
    with files.open_safetensors(path) as stored:
      assert stored.metadata['num_heads'] == '3'
  assert num_errors > 0.9 * len(data)


def test_damaged_arrays_are_all_named(path):
  arrays = {key: np.full(9, i, 'f4') for i, key in enumerate('abcd', start=1)}
  write(arrays, path)
  data = bytearray(path.read_bytes())
  for key in 'bd':
    data[data.index(arrays[key].tobytes()) + 7] ^= 1
  path.write_bytes(data)
  text = error_of(path)
  assert '  b: Bad CRC-32' in text and '  d: Bad CRC-32' in text
  assert '  a:' not in text


def test_file_that_shrinks_while_it_is_open(path):
  write({'a': np.arange(10_000, dtype='f4')}, path)
  with files.open_safetensors(path) as stored:
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(errors.CheckpointError, match='a: 100 bytes are missi'):
      read_arrays(stored.arrays, stored.path)


F32 = entry([3], 0, 12)
HUGE = 2**61


@pytest.mark.parametrize(('header', 'text'), [
  ({'a': entry([3], 0, 8)}, 'a: claims [3] F32, 12 bytes, at 0 to 8'),
  ({'a': entry([4], 0, 16)}, '16 bytes, at 0 to 16 of 12'),
  ({'a': entry([HUGE], 0, 12)}, 'a: claims'),
  ({'a': entry([HUGE, HUGE, 0], 0, 0)}, 'a: '),
  ({'a': entry([10**4000], 0, 12)}, 'a: its shape or place is damaged'),
  (b'{"a": ' + b'1' * 5000 + b'}', 'not a readable .safetensors file'),
  ({'a': entry([1] * 1000 + [3], 0, 12)}, 'a: its shape or place is damaged'),
  ({'a': entry([-3], 0, 12)}, 'a: its shape or place is damaged'),
  ({'a': entry([3.0], 0, 12)}, 'a: its shape or place is damaged'),
  ({'a': entry([True, 3], 0, 12)}, 'a: its shape or place is damaged'),
  ({'a': entry('3', 0, 12)}, 'a: its shape or place is damaged'),
  ({'a': entry([3], 12, 0)}, 'a: claims'),
  ({'a': F32 | {'data_offsets': [0]}}, 'a: its shape or place is damaged'),
  ({'a': F32 | {'odd': 1}}, 'a: expected dtype, shape and data_offsets'),
  ({'a': [1, 2]}, 'a: expected dtype, shape and data_offsets'),
  ({'a': F32, 'b': F32}, 'b: begins at byte 0, expected 12'),
  ({'a': entry([2], 4, 12)}, 'a: begins at byte 4, expected 0'),
  ({'a': entry([2], 0, 8)}, '4 of 12 bytes belong to no array'),
  ({}, '12 of 12 bytes belong to no array'),
  ({'a': entry([12], 0, 12, 'F8_E4M3')}, 'a: holds F8_E4M3, expected one of'),
  ({'a': entry([3], 0, 12, ['F32'])}, "a: holds ['F32'], expected one of"),
  ({'__metadata__': {'a': 1}, 'a': F32}, 'its metadata are damaged'),
  ({'__metadata__': 'pt', 'a': F32}, 'its metadata are damaged'),
  ({'__metadata__': {'vit_jax.crc32': '[1'}, 'a': F32}, 'its metadata are dam'),
  ({'__metadata__': {'vit_jax.crc32': '{}'}, 'a': F32}, 'a: has no checksum'),
  (
    {'__metadata__': {'vit_jax.crc32': '{"a": "b", "c": 1}'}, 'a': F32},
    'c: is missing',
  ),
  (
    {'__metadata__': {'vit_jax.crc32': '{"a": "b"}'}, 'a': F32},
    'a: Bad CRC-32',
  ),
  ([], 'its header is no JSON object'),
  (b'{"a": 1, "a": 2}', 'its header has a key twice'),
  (b'{"a": ' + b'[' * 100_000, 'not a readable .safetensors file'),
  (b'{"\xff": 1}', 'not a readable .safetensors file'),
  (b'{', 'not a readable .safetensors file'),
])  # fmt: skip
def test_headers_that_can_not_be(path, header, text):
  make_file(path, header, bytes(12))
  assert text in error_of(path)


def test_types_that_can_not_be_read_are_all_named(path):
  header = {
    key: entry([2], i * 2, i * 2 + 2, 'F8_E5M2') for i, key in enumerate('ab')
  }
  make_file(path, header, bytes(4))
  text = error_of(path)
  assert '  a: holds F8_E5M2' in text
  assert '  b: holds F8_E5M2' in text
  assert 'convert it to float32' in text


def test_more_arrays_than_any_model_has(path):
  empty = entry([0], 0, 0)
  make_file(path, {f'{i}': empty for i in range(files._MAX_ARRAYS + 1)})
  assert 'hold 2,001 arrays, expected at most 2,000' in error_of(path)


def test_header_too_long_to_parse(path):
  make_file(path, b' ' * (files._MAX_HEADER + 1))
  assert 'it has a header of 1,048,577 bytes' in error_of(path)


@pytest.mark.parametrize('content', [
  b'',
  b'1234567',
  b'<!DOCTYPE html>\n<title>404</title>',
  bytes(range(256)),
  bytes(8),
], ids=['empty', 'seven bytes', 'page', 'noise', 'zeros'])  # fmt: skip
def test_files_of_another_kind(content, path):
  path.write_bytes(content)
  assert 'not a readable .safetensors file' in error_of(path)


def test_no_file(path):
  with pytest.raises(errors.CheckpointError, match='No such file'):
    load(path)


def zip_of_a_pickle():
  content = io.BytesIO()
  with zipfile.ZipFile(content, 'w') as archive:
    archive.writestr('archive/data.pkl', b'\x80\x02}q\x00.')
  return content.getvalue()


@pytest.mark.parametrize('content', [
  zip_of_a_pickle(),
  # How PyTorch's old format begins, and a dict pickled by itself.
  b'\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.',
  b'\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.',
], ids=['zip', 'old', 'dict'])  # fmt: skip
def test_pickles_are_refused_with_a_remedy(content, path):
  path.write_bytes(content)
  text = error_of(path)
  assert 'never loaded, as code could be in them' in text
  assert 'safetensors.torch.save_file' in text


def test_header_that_begins_like_a_pickle(path):
  """A length of 0x0280 is written as the bytes 80 02."""
  text = json.dumps({'a': F32}).encode()
  make_file(path, text.ljust(0x280), np.arange(3, dtype='f4').tobytes())
  assert_same(load(path), {'a': np.arange(3, dtype='f4')})
