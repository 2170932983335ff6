"""Reading and writing `.npz` weight files, whole and damaged ones."""

import copy
import io
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from trees import assert_same_bits, flat

from vit_jax import checkpoints, errors
from vit_jax.checkpoints import npz


def error_of(path) -> str:
  with pytest.raises(errors.CheckpointError) as caught:
    checkpoints.load_params(path)
  assert str(path) in str(caught.value)
  return str(caught.value)


@pytest.fixture
def published(checkpoint_file):
  """Arrays of a hybrid's file, by the keys it has on disk."""
  with np.load(checkpoint_file('mini-hybrid')) as file:
    return dict(file)


@pytest.fixture
def small_file(tmp_path):
  """A file of two arrays, small enough to be damaged byte by byte."""
  path = tmp_path / 'small.npz'
  kernel = np.arange(15, dtype='f4').reshape(3, 5)
  checkpoints.save_params(
    {'head': {'kernel': kernel, 'bias': -kernel[0]}}, path
  )
  return path


def test_compressed_files_are_read(mini, published, tmp_path):
  np.savez_compressed(tmp_path / 'small.npz', **published)
  found = checkpoints.load_params(tmp_path / 'small.npz')
  assert_same_bits(found, mini('mini-hybrid').params)


# --- Damage ------------------------------------------------------------------


def test_truncated_anywhere(small_file):
  data = small_file.read_bytes()
  for length in range(len(data)):
    small_file.write_bytes(data[:length])
    assert 'not a readable .npz file' in error_of(small_file)


def test_flipped_bytes_never_give_wrong_numbers(small_file):
  data = small_file.read_bytes()
  whole = flat(checkpoints.load_params(small_file))
  num_errors = 0
  for position in range(len(data)):
    damaged = bytearray(data)
    damaged[position] ^= 1 << position % 8
    small_file.write_bytes(damaged)
    try:
      found = flat(checkpoints.load_params(small_file))
    except errors.CheckpointError:
      num_errors += 1
      found = {}
    for key in found:  # Dates, for one, matter to nobody.
      np.testing.assert_array_equal(found[key], whole[key])
  assert num_errors > len(data) / 2


def test_damaged_arrays_are_all_named(published, tmp_path):
  path = tmp_path / 'damaged.npz'
  np.savez(path, **published)
  data = bytearray(path.read_bytes())
  damaged = ('embedding/kernel', 'head/bias', 'block1/unit1/conv1/kernel')
  for key in damaged:
    content = published[key].tobytes()
    data[data.index(content) + len(content) // 2] ^= 1
  path.write_bytes(data)
  text = error_of(path)
  assert '3 arrays can not be used' in text
  for key in damaged:
    assert f'  {key}: Bad CRC-32' in text
  assert 'embedding/bias' not in text


def object_array():
  file = io.BytesIO()
  np.save(file, np.array([{'a': 1}], object), allow_pickle=True)
  return file.getvalue()


def single_array():
  file = io.BytesIO()
  np.save(file, np.zeros(3))
  return file.getvalue()


@pytest.mark.parametrize(('content', 'text'), [
  (b'', 'not a readable .npz file'),
  (b'PK', 'not a readable .npz file'),
  (b'<!DOCTYPE html>\n<title>404</title>', 'not a readable .npz file'),
  (bytes(range(256)), 'not a readable .npz file'),
  (single_array(), 'not a readable .npz file'),
  (object_array(), 'not a readable .npz file'),
], ids=['empty', 'two bytes', 'page', 'noise', 'array', 'objects'])  # fmt: skip
def test_files_of_another_kind(content, text, tmp_path):
  path = tmp_path / 'odd.npz'
  path.write_bytes(content)
  assert text in error_of(path)


def test_object_arrays_are_not_unpickled(tmp_path):
  path = tmp_path / 'objects.npz'
  np.savez(path, fine=np.zeros(3), odd=np.array([print], object))
  text = error_of(path)
  assert '  odd: Object arrays are not loaded' in text
  assert 'fine' not in text


def test_zip_of_other_things(tmp_path):
  path = tmp_path / 'other.npz'
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('notes.txt', b'hello')
  assert '  notes.txt: not an array' in error_of(path)


def test_zip_of_pytorch(tmp_path):
  path = tmp_path / 'torch.npz'
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('archive/data.pkl', b'\x80\x02}q\x00.')
  assert f'{path}: a pickle, as PyTorch writes' in error_of(path)


@pytest.mark.parametrize(
  'compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]
)
@pytest.mark.parametrize('shape', [
  (1 << 40,), (-7, -5), (3, 5, 7), (34,), (1 << 70, 0, 3), (2**64 + 35,),
], ids=str)  # fmt: skip
def test_header_that_claims_another_size(shape, compression, tmp_path):
  content = io.BytesIO()
  header = {'descr': '<f4', 'fortran_order': False, 'shape': shape}
  np.lib.format.write_array_header_1_0(content, header)
  path = tmp_path / 'absurd.npz'
  with zipfile.ZipFile(path, 'w', compression) as file:
    file.writestr('head/bias.npy', content.getvalue() + bytes(140))
  text = error_of(path)
  assert '  head/bias: its header claims' in text
  assert f'{shape} float32' in text
  assert '140 are there' in text


@pytest.mark.parametrize(
  'compression', [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]
)
@pytest.mark.parametrize(
  ('size', 'content', 'wanted'),
  [
    (600 << 20, b' ' * (15 << 20), 'header of 629,145,600 bytes, expected at'),
    (15 << 20, b' ' * (15 << 20), 'bytes, expected at most 4,096'),
    (9_000, b'{' * 9_000, 'header of 9,000 bytes, expected at most 4,096'),
    (4_000, b'(' * 4_000, 'its header is damaged'),
    (9, b'().__doc_', 'its header is damaged'),
    (9, b'{}', 'header of 9 bytes, expected at most 14'),
  ],
  ids=['claimed', 'long', 'nested', 'less nested', 'odd', 'cut'],
)
def test_header_that_is_not_parsed(
  size, content, wanted, compression, tmp_path
):
  path = tmp_path / 'long.npz'
  header = b'\x93NUMPY\x02\x00' + size.to_bytes(4, 'little')
  with zipfile.ZipFile(path, 'w', compression) as file:
    file.writestr('head/bias.npy', header + content)
  tracemalloc.start()
  try:
    text = error_of(path)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert wanted in text
  assert 'pickle' not in text
  assert peak < 2 << 20


@pytest.mark.parametrize('method', [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compression_that_numpy_does_not_write(method, tmp_path):
  path = tmp_path / 'odd.npz'
  content = io.BytesIO()
  np.save(content, np.zeros(3))
  with zipfile.ZipFile(path, 'w', method) as file:
    file.writestr('head/bias.npy', content.getvalue())
  assert f'compressed by method {method}, expected deflate' in error_of(path)


def test_more_arrays_than_any_model_has(tmp_path):
  path = tmp_path / 'many.npz'
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('a.npy', single_array())
    file.filelist *= 20_001
  assert 'hold 20,001 arrays, expected at most 20,000' in error_of(path)


def test_directory_that_fills_the_file(tmp_path):
  path = tmp_path / 'directory.npz'
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('a.npy', single_array())
    file.filelist *= 100_000
  tracemalloc.start()
  try:
    text = error_of(path)
    peak = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert '00 bytes, expected at most 4,194,304' in text
  assert peak < 1 << 20


def test_unpacking_takes_the_memory_of_the_array(tmp_path):
  path = tmp_path / 'large.npz'
  np.savez_compressed(path, **{'head/bias': np.zeros(6 << 20, 'f2')})
  with npz.open_npz(path) as stored:
    tracemalloc.start()
    try:
      values = stored.arrays['head/bias'].read()
      peak = tracemalloc.get_traced_memory()[1]
    finally:
      tracemalloc.stop()
  assert values.nbytes < peak < values.nbytes + (4 << 20)


def test_not_all_problems_of_a_file_are_told(tmp_path):
  path = tmp_path / 'notes.npz'
  with zipfile.ZipFile(path, 'w') as file:
    for i in range(60):
      file.writestr(f'{i}.txt', b'hello')
  text = error_of(path)
  assert '60 arrays are damaged' in text
  assert text.count('not an array') == 50


def test_bomb_is_not_unpacked(tmp_path):
  path = tmp_path / 'bomb.npz'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as file:
    for i in range(3):
      file.writestr(f'head/{i}.npy', bytes(1 << 24))
  assert 'claim to hold 50,331,648' in error_of(path)
  assert 'may be a zip bomb' in error_of(path)


def test_members_that_share_their_bytes(tmp_path):
  """What makes archives that unpack to petabytes: all entries are one."""
  path = tmp_path / 'shared.npz'
  np.savez(path, **{'head/bias': np.zeros(1 << 20)})
  with zipfile.ZipFile(path) as file:
    info = file.infolist()[0]
  with zipfile.ZipFile(path, 'a') as file:
    for i in range(3):
      entry = copy.copy(info)
      entry.filename = f'head/{i}.npy'
      file.filelist.append(entry)
      file.NameToInfo[entry.filename] = entry
    file._didModify = True
  assert 'may be a zip bomb' in error_of(path)


def test_array_that_is_there_twice(tmp_path):
  path = tmp_path / 'twice.npz'
  np.savez(path, **{'head/bias': np.zeros(3)})
  with zipfile.ZipFile(path, 'a') as file, warnings.catch_warnings():
    warnings.simplefilter('ignore')
    file.writestr('head/bias.npy', file.read('head/bias.npy'))
  assert '  head/bias: is in the file twice' in error_of(path)


@pytest.mark.parametrize('values', [
  np.array(['a', 'b']),
  np.array([1j]),
  np.zeros(3, [('a', 'f4')]),
  np.zeros(3, 'M8[s]'),
], ids=['text', 'complex', 'struct', 'dates'])  # fmt: skip
def test_what_is_no_number(values, tmp_path):
  path = tmp_path / 'odd.npz'
  np.savez(path, **{'head/bias': values})
  assert f'  head/bias: holds {values.dtype}, expected numbers' in error_of(
    path
  )


@pytest.mark.parametrize('dtype', ['<f4', '>f4'])
@pytest.mark.parametrize('order', ['C', 'F'])
def test_order_of_dims_and_bytes(order, dtype, tmp_path):
  path = tmp_path / 'order.npz'
  kernel = np.arange(15, dtype=dtype).reshape(3, 5).copy(order)
  np.savez(path, **{'head/kernel': kernel})
  found = checkpoints.load_params(path)['head']['kernel']
  assert found.dtype == np.float32
  assert found.dtype.isnative
  np.testing.assert_array_equal(found, kernel)


def test_no_file(tmp_path):
  path = tmp_path / 'nothing.npz'
  with pytest.raises(errors.CheckpointNotFoundError, match='No weight file'):
    checkpoints.load_params(path)
