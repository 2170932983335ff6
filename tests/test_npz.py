"""Reading and writing `.npz` weight files, whole and damaged ones."""

import io
import os
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from flax import traverse_util

from vit_jax import errors
from vit_jax.checkpoints import npz


def flat(params):
  return traverse_util.flatten_dict(params, sep='/')


def assert_same_bits(found, wanted):
  found, wanted = flat(found), flat(wanted)
  assert found.keys() == wanted.keys()
  for key, array in wanted.items():
    assert isinstance(found[key], np.ndarray)
    assert found[key].shape == array.shape, key
    assert found[key].dtype == array.dtype, key
    assert found[key].tobytes() == np.asarray(array).tobytes(), key


def error_of(path) -> str:
  with pytest.raises(errors.CheckpointError) as caught:
    npz.load_params(path)
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
  npz.save_params({'head': {'kernel': kernel, 'bias': -kernel[0]}}, path)
  return path


# --- Save and load -----------------------------------------------------------


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('name', parity.MINI_VITS)
def test_save_then_load_gives_the_same_bits(mini, name, dtype, tmp_path):
  params = jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), mini(name).params)
  npz.save_params(params, tmp_path / 'model.npz')
  assert_same_bits(npz.load_params(tmp_path / 'model.npz'), params)


def test_values_that_are_no_numbers_survive(tmp_path):
  bits = np.array([0x7FC00001, 0xFF800000, 0x80000000, 1], np.uint32)
  params = {'head': {'bias': bits.view(np.float32)}}
  npz.save_params(params, tmp_path / 'model.npz')
  assert_same_bits(npz.load_params(tmp_path / 'model.npz'), params)


def test_device_arrays_are_written(tmp_path):
  params = {'head': {'bias': jnp.arange(5, dtype=jnp.bfloat16)}}
  npz.save_params(params, tmp_path / 'model.npz')
  assert_same_bits(npz.load_params(tmp_path / 'model.npz'), params)


@pytest.mark.parametrize('name', parity.MINI_VITS)
def test_saved_file_is_the_published_one(mini, name, tmp_path):
  case = mini(name)
  npz.save_params(case.params, tmp_path / 'model.npz')
  with np.load(tmp_path / 'model.npz') as saved, np.load(case.path) as original:
    assert {key: saved[key].shape for key in saved} == parity.layout(name)
    for key in original:
      np.testing.assert_array_equal(saved[key], original[key])


def test_failing_save_leaves_the_old_file_and_nothing_else(
  tmp_path, monkeypatch
):
  path = tmp_path / 'model.npz'
  old = {'head': {'bias': np.arange(5, dtype='f4')}}
  npz.save_params(old, path)

  def fill_disk(file, **arrays):
    file.write(b'half of it')
    raise OSError('No space left on device')

  monkeypatch.setattr(np, 'savez', fill_disk)
  with pytest.raises(errors.CheckpointError, match='No space'):
    npz.save_params({'head': {'bias': np.zeros(7)}}, path)
  assert os.listdir(tmp_path) == ['model.npz']
  assert_same_bits(npz.load_params(path), old)


@pytest.mark.parametrize('place', ['nowhere', 'file'])
def test_save_where_there_is_no_directory(place, tmp_path):
  (tmp_path / 'file').touch()
  path = tmp_path / place / 'x.npz'
  with pytest.raises(errors.CheckpointError) as caught:
    npz.save_params({'bias': np.zeros(3)}, path)
  assert f'{path}: the weights can not be written (No' in str(caught.value)
  assert '.partial' not in str(caught.value)


def test_save_refuses_what_is_no_array(tmp_path):
  with pytest.raises(errors.CheckpointError, match='head/bias is a NoneType'):
    npz.save_params({'head': {'bias': None}}, tmp_path / 'model.npz')
  assert not os.listdir(tmp_path)


# --- Names that files have ---------------------------------------------------


def current_name(key):
  for old, new in (
    ('LayerNorm_2', 'LayerNorm_1'),
    ('MlpBlock_3', 'MlpBlock_0'),
    ('DotProductAttention_1', 'DotProductAttention_0'),
  ):
    key = key.replace(old, new)
  return key


def optimizer_state(prefix, arrays):
  return {f'{prefix}/{key}': -value for key, value in arrays.items()}


VARIANTS = {
  'current names': lambda arrays: {
    current_name(key): value for key, value in arrays.items()
  },
  'squeezed GroupNorm': lambda arrays: {
    key: value.reshape(-1) if '/gn' in f'/{key}' else value
    for key, value in arrays.items()
  },
  'opt/target/': lambda arrays: {
    **{f'opt/target/{key}': value for key, value in arrays.items()},
    **optimizer_state('opt/state/param_states', arrays),
    'opt/state/step': np.int32(3),
  },
  'params/': lambda arrays: {
    **{f'params/{key}': value for key, value in arrays.items()},
    **optimizer_state('opt/mu', arrays),
    'step': np.int32(3),
  },
  'params/ and current names': lambda arrays: {
    f'params/{current_name(key)}': value for key, value in arrays.items()
  },
  'optimizer state beside the weights': lambda arrays: {
    **arrays,
    **optimizer_state('opt/state', arrays),
  },
  'reverse order': lambda arrays: dict(reversed(arrays.items())),
}


@pytest.mark.parametrize('variant', VARIANTS)
def test_all_spellings_of_a_file_read_alike(mini, published, variant, tmp_path):
  path = tmp_path / 'variant.npz'
  np.savez(path, **VARIANTS[variant](published))
  assert_same_bits(npz.load_params(path), mini('mini-hybrid').params)


def test_compressed_files_are_read(mini, published, tmp_path):
  np.savez_compressed(tmp_path / 'small.npz', **published)
  found = npz.load_params(tmp_path / 'small.npz')
  assert_same_bits(found, mini('mini-hybrid').params)


def test_names_are_the_models_and_norms_are_vectors(mini):
  found = flat(mini('mini-hybrid').params)
  assert found['block1/unit1/gn_proj/scale'].shape == (128,)
  assert found['gn_root/bias'].shape == (32,)
  # A 1x1 convolution is no norm, whatever its shape.
  assert found['block1/unit1/conv1/kernel'].shape == (1, 1, 32, 32)
  assert 'Transformer/encoderblock_1/LayerNorm_1/bias' in found
  assert not any('LayerNorm_2' in key for key in found)


def test_legacy_and_current_name_of_one_array(published, tmp_path):
  key = 'Transformer/encoderblock_0/LayerNorm_2/bias'
  other = key.replace('LayerNorm_2', 'LayerNorm_1')
  path = tmp_path / 'both.npz'
  np.savez(path, **published, **{other: published[key] + 1})
  text = error_of(path)
  assert key in text
  assert other in text


# --- Damage ------------------------------------------------------------------


def test_truncated_anywhere(small_file):
  data = small_file.read_bytes()
  for length in range(len(data)):
    small_file.write_bytes(data[:length])
    assert 'not a readable .npz file' in error_of(small_file)


def test_flipped_bytes_never_give_wrong_numbers(small_file):
  data = small_file.read_bytes()
  whole = flat(npz.load_params(small_file))
  num_errors = 0
  for position in range(len(data)):
    damaged = bytearray(data)
    damaged[position] ^= 1 << position % 8
    small_file.write_bytes(damaged)
    try:
      found = flat(npz.load_params(small_file))
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
  assert '3 arrays are damaged' in text
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
  (single_array(), 'holds a single array, expected an .npz archive'),
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
  assert '  odd: Object arrays cannot be loaded' in text
  assert 'fine' not in text


def test_zip_of_other_things(tmp_path):
  path = tmp_path / 'torch.npz'
  with zipfile.ZipFile(path, 'w') as file:
    file.writestr('archive/data.pkl', b'\x80\x02}q\x00.')
  assert '  archive/data.pkl: not an array' in error_of(path)


@pytest.mark.parametrize('name', ['', 'nothing.npz'])
def test_no_file(name, tmp_path):
  path = tmp_path / name
  with pytest.raises(errors.CheckpointNotFoundError, match='No weight file'):
    npz.load_params(path)
