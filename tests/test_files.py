"""Weight files written and read back, of any container and any names."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from flax import traverse_util
from trees import assert_same_bits

from vit_jax import checkpoints, errors
from vit_jax.checkpoints import files, state


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16', 'float16'])
@pytest.mark.parametrize('name', parity.MINI_VITS)
def test_save_then_load_gives_the_same_bits(mini, name, dtype, tmp_path):
  params = jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), mini(name).params)
  checkpoints.save_params(params, tmp_path / 'model.npz')
  assert_same_bits(checkpoints.load_params(tmp_path / 'model.npz'), params)


def test_odd_numbers_survive(tmp_path):
  # A negative zero, the smallest number, and two whose sum overflows.
  bits = np.array([0x80000000, 1, 0x7F7FFFFF, 0x7F7FFFFF], np.uint32)
  params = {'head': {'bias': bits.view(np.float32)}}
  checkpoints.save_params(params, tmp_path / 'model.npz')
  assert_same_bits(checkpoints.load_params(tmp_path / 'model.npz'), params)


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64', 'bfloat16'])
def test_values_that_are_no_numbers_are_refused_by_key(dtype, tmp_path):
  bias = np.arange(5).astype(jnp.dtype(dtype))
  path = tmp_path / 'model.npz'
  odd = {
    'a': np.where(bias == 2, np.array(np.nan, bias.dtype), bias),
    'b': np.where(bias < 2, np.array(-np.inf, bias.dtype), bias),
    # Whose sum is NaN.
    'c': np.array([[np.inf, -np.inf, 0, 1, 2], bias], bias.dtype),
    'd': bias,
  }
  checkpoints.save_params({'head': odd}, path)
  with pytest.raises(errors.CheckpointError) as caught:
    checkpoints.load_params(path)
  text = str(caught.value)
  assert str(path) in text
  assert '3 arrays can not be used' in text
  assert '  head/a: 1 of 5 values are NaN or infinite' in text
  assert '  head/b: 2 of 5' in text
  assert '  head/c: 2 of 10' in text
  assert 'head/d' not in text


def test_device_arrays_are_written(tmp_path):
  params = {'head': {'bias': jnp.arange(5, dtype=jnp.bfloat16)}}
  checkpoints.save_params(params, tmp_path / 'model.npz')
  assert_same_bits(checkpoints.load_params(tmp_path / 'model.npz'), params)


@pytest.mark.parametrize('name', parity.MINI_VITS)
def test_saved_file_is_the_published_one(mini, name, tmp_path):
  case = mini(name)
  checkpoints.save_params(case.params, tmp_path / 'model.npz')
  with np.load(tmp_path / 'model.npz') as saved, np.load(case.path) as original:
    assert {key: saved[key].shape for key in saved} == parity.layout(name)
    for key in original:
      np.testing.assert_array_equal(saved[key], original[key])


def test_failing_save_leaves_the_old_file_and_nothing_else(
  tmp_path, monkeypatch
):
  path = tmp_path / 'model.npz'
  old = {'head': {'bias': np.arange(5, dtype='f4')}}
  checkpoints.save_params(old, path)

  def fill_disk(file, array, **_):
    file.write(b'half of it')
    raise OSError('No space left on device')

  monkeypatch.setattr(np.lib.format, 'write_array', fill_disk)
  with pytest.raises(errors.CheckpointError, match='No space'):
    checkpoints.save_params({'head': {'bias': np.zeros(7)}}, path)
  assert os.listdir(tmp_path) == ['model.npz']
  assert_same_bits(checkpoints.load_params(path), old)


@pytest.mark.parametrize('place', ['nowhere', 'file'])
def test_save_where_there_is_no_directory(place, tmp_path):
  (tmp_path / 'file').touch()
  path = tmp_path / place / 'x.npz'
  with pytest.raises(errors.CheckpointError) as caught:
    checkpoints.save_params({'bias': np.zeros(3)}, path)
  assert f'{path}: the weights can not be written (No' in str(caught.value)
  assert '.partial' not in str(caught.value)


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors'])
@pytest.mark.parametrize(('value', 'text'), [
  (None, 'head/bias is a NoneType of object'),
  ('abc', 'head/bias is a str of <U3'),
  (np.zeros(3, complex), 'head/bias is a ndarray of complex128'),
  (np.zeros(3, int), 'head/bias is a ndarray of int64'),
], ids=['none', 'text', 'complex', 'int'])  # fmt: skip
def test_save_refuses_what_are_no_weights(value, text, suffix, tmp_path):
  params = {'head': {'bias': value, 'kernel': np.zeros((3, 5))}}
  with pytest.raises(errors.CheckpointError) as caught:
    checkpoints.save_params(params, tmp_path / f'model{suffix}')
  assert text in str(caught.value)
  assert 'kernel' not in str(caught.value)
  assert not os.listdir(tmp_path)


def test_save_of_nothing(tmp_path):
  with pytest.raises(errors.CheckpointError, match='nothing to write'):
    checkpoints.save_params({}, tmp_path / 'model.npz')
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize('names', ['timm', 'transformers'])
def test_save_does_not_lose_the_heads(mini, names, tmp_path):
  with pytest.raises(errors.CheckpointError, match='how many attention heads'):
    checkpoints.save_params(
      mini('mini-vit').params, tmp_path / 'model.npz', names=names
    )
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize('name', ['x', 'x.bin', 'x.npz.old'])
def test_save_needs_to_know_the_format(name, tmp_path):
  with pytest.raises(errors.CheckpointError, match='.npz or .safetensors'):
    checkpoints.save_params({'head': {'bias': np.zeros(3)}}, tmp_path / name)
  assert not os.listdir(tmp_path)


def test_save_with_names_that_nobody_has(tmp_path):
  params = {'head': {'bias': np.zeros(3)}}
  with pytest.raises(errors.CheckpointError, match="Did you mean 'timm'"):
    checkpoints.save_params(params, tmp_path / 'x.npz', names='tim')
  assert not os.listdir(tmp_path)


# --- From one format to the other ---------------------------------------------


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', [*parity.MINI_VITS, 'mini-mixer'])
def test_npz_to_safetensors_and_back_is_the_same_file(
  mini, name, dtype, tmp_path
):
  params = jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), mini(name).params)
  first, other, last = (
    tmp_path / file for file in ('model.npz', 'x.safetensors', 'back.npz')
  )
  checkpoints.save_params(params, first)
  checkpoints.save_params(checkpoints.load_params(first), other)
  back = checkpoints.load_params(other)
  assert_same_bits(back, params)
  checkpoints.save_params(back, last)
  assert last.read_bytes() == first.read_bytes()


def test_container_and_names_are_told_by_the_content(mini, tmp_path):
  case = mini('mini-vit')
  for names in ('google', 'timm', 'transformers'):
    path = tmp_path / f'{names}.safetensors'
    checkpoints.save_params(case.params, path, names=names)
    # As a file is called in a cache that goes by content.
    path = path.rename(tmp_path / '4a1f')
    assert_same_bits(checkpoints.load_params(path), case.params)


def test_npz_with_the_names_of_others(mini, tmp_path):
  case = mini('mini-vit')
  checkpoints.save_params(case.params, tmp_path / 'x.safetensors')
  with files.open_file(tmp_path / 'x.safetensors') as stored:
    values = {key: array.read() for key, array in stored.arrays.items()}
  np.savez(tmp_path / 'x.npz', **values)
  found = checkpoints.load_params(tmp_path / 'x.npz', num_heads=3)
  assert_same_bits(found, case.params)


def test_class_slot_of_an_oblong_grid_is_no_patch(mini, tmp_path):
  """3 x 5 patches and the class token are 16, which looks like 4 x 4."""
  params = traverse_util.flatten_dict(mini('mini-vit').params)
  positions = ('Transformer', 'posembed_input', 'pos_embedding')
  params[positions] = params[positions][:, :16]
  params = traverse_util.unflatten_dict(params)
  path = tmp_path / 'oblong.safetensors'
  checkpoints.save_params(params, path)
  assert_same_bits(checkpoints.load_params(path), params)


@pytest.mark.parametrize('content', [
  b'', b'PK', b'<!DOCTYPE html>', b'\x80\x02}q\x00.', bytes(range(256)),
], ids=['empty', 'two bytes', 'page', 'pickle', 'noise'])  # fmt: skip
@pytest.mark.parametrize('suffix', ['', '.npz', '.safetensors', '.pth'])
def test_files_of_another_kind(suffix, content, tmp_path):
  path = tmp_path / f'odd{suffix}'
  path.write_bytes(content)
  with pytest.raises(errors.CheckpointError) as caught:
    checkpoints.load_params(path)
  assert str(path) in str(caught.value)


def test_weights_of_something_else(tmp_path):
  np.savez(tmp_path / 'bert.npz', a=np.zeros(3), b=np.zeros(5))
  with pytest.raises(errors.CheckpointError) as caught:
    checkpoints.load_params(tmp_path / 'bert.npz')
  assert 'not the weights of a Vision Transformer' in str(caught.value)
  assert '(it has a, b)' in str(caught.value)


# --- Run directories ----------------------------------------------------------


def write_states(run, *steps):
  """Writes checkpoints as a run does, with the step as every value."""
  with state.StateCheckpoints(run / 'checkpoints', 5, None) as saved:
    for step in steps:
      params = {'head': {'kernel': jnp.full((3, 5), step, jnp.bfloat16)}}
      opt_state = {'mu': {'head': {'kernel': jnp.zeros((3, 5))}}}
      tree = {'params': params, 'opt_state': opt_state, 'step': step}
      saved.save(step, tree, state.Standing(), None)


def test_run_directory_is_its_model(tmp_path):
  write_states(tmp_path, 2)
  params = {'head': {'bias': np.arange(5, dtype='f4')}}
  checkpoints.save_params(params, tmp_path / 'model.npz')
  assert_same_bits(checkpoints.load_params(tmp_path), params)


def test_run_that_goes_on_is_its_newest_checkpoint(tmp_path):
  write_states(tmp_path, 2, 10)
  (tmp_path / 'checkpoints' / '12.orbax-checkpoint-tmp').mkdir()
  with files.open_weights(tmp_path) as stored:
    assert stored.path == str(tmp_path / 'checkpoints' / '10' / 'state')
    assert [*stored.arrays] == ['head/kernel']
  wanted = {'head': {'kernel': np.full((3, 5), 10, jnp.bfloat16)}}
  assert_same_bits(checkpoints.load_params(tmp_path), wanted)


def test_directory_that_is_no_run(tmp_path):
  with pytest.raises(errors.CheckpointNotFoundError) as caught:
    checkpoints.load_params(tmp_path)
  assert f'{tmp_path} has neither a model.npz nor check' in str(caught.value)


def test_checkpoint_that_is_damaged(tmp_path):
  write_states(tmp_path, 3)
  for path in tmp_path.rglob('*'):
    if path.is_file() and 'METADATA' not in path.name.upper():
      path.write_bytes(path.read_bytes()[:-7])
  with pytest.raises(errors.CheckpointError) as caught:
    checkpoints.load_params(tmp_path)
  assert str(tmp_path / 'checkpoints' / '3') in str(caught.value)
