"""Fitting a file's parameters to a model: positions, head, `pre_logits`."""

import math

import jax
import ml_dtypes
import numpy as np
import parity
import pytest
from flax import traverse_util

import vit_jax
from vit_jax import checkpoints, errors
from vit_jax.checkpoints import adapt

POSITIONS = 'Transformer/posembed_input/pos_embedding'


def flat(params):
  return traverse_util.flatten_dict(params, sep='/')


def load(path, name, size, num_classes, **edits):
  """Loads a file into the mini model called `name`, some fields edited."""
  config = parity.configs()[name]['config'] | edits
  model = vit_jax.create_model(config, num_classes)
  return flat(checkpoints.load_pretrained(path, model, size))


def error_of(*args, **kwargs) -> str:
  with pytest.raises(errors.CheckpointError) as caught:
    load(*args, **kwargs)
  return str(caught.value)


@pytest.fixture
def edited_file(mini, tmp_path):
  """Gives (edit, name) -> mini-vit's file after `edit(flat parameters)`."""

  def write(edit, name='mini-vit'):
    params = dict(flat(mini(name).params))
    edit(params)
    path = tmp_path / 'edited.npz'
    checkpoints.save_params(traverse_util.unflatten_dict(params, '/'), path)
    return path

  return write


# --- Position embeddings ------------------------------------------------------


def numpy_resize(patches, grid):
  """Resizes [side, side, width] point by point, corners on corners."""
  side = len(patches)
  out = np.empty((*grid, patches.shape[-1]))

  def neighbours(index, size):
    position = index * (side - 1) / (size - 1) if size > 1 else 0.0
    low = min(math.floor(position), side - 1)
    return low, min(low + 1, side - 1), position - low

  for row in range(grid[0]):
    top, bottom, down = neighbours(row, grid[0])
    for column in range(grid[1]):
      left, right, across = neighbours(column, grid[1])
      upper = (1 - across) * patches[top, left] + across * patches[top, right]
      lower = (1 - across) * patches[bottom, left] + (
        across * patches[bottom, right]
      )
      out[row, column] = (1 - down) * upper + down * lower
  return out


@pytest.mark.parametrize('has_class_token', [True, False])
@pytest.mark.parametrize(('side', 'grid'), [
  (7, (13, 13)), (13, (7, 7)), (5, (11, 3)), (2, (17, 19)), (3, (2, 23)),
  (1, (5, 3)), (7, (1, 1)), (5, (1, 13)), (14, (24, 24)), (3, (3, 5)),
])  # fmt: skip
def test_resize_equals_numpy(side, grid, has_class_token):
  slots = 1 if has_class_token else 0
  rng = np.random.default_rng(side)
  embedding = rng.normal(size=(1, slots + side**2, 6)).astype('f4')
  found = adapt.resize_position_embedding(embedding, grid, has_class_token)
  wanted = numpy_resize(
    embedding[0, slots:].astype('f8').reshape(side, side, 6), grid
  )
  assert found.dtype == np.float32
  assert found.shape == (1, slots + grid[0] * grid[1], 6)
  np.testing.assert_array_equal(found[:, :slots], embedding[:, :slots])
  np.testing.assert_allclose(found[0, slots:], wanted.reshape(-1, 6), atol=1e-6)


@pytest.mark.parametrize('grid', [(5, 5), (3, 11)])
def test_same_grid_is_left_alone(grid):
  # Not square: only a file that was made for the same images has this many.
  embedding = np.random.default_rng(0).normal(
    size=(1, 1 + grid[0] * grid[1], 7)
  )
  found = adapt.resize_position_embedding(embedding, grid, True)
  np.testing.assert_array_equal(found, embedding)
  assert found.dtype == embedding.dtype


def test_resize_keeps_bfloat16():
  embedding = np.ones((1, 9, 5), ml_dtypes.bfloat16)
  found = adapt.resize_position_embedding(embedding, (7, 2), False)
  assert found.dtype == ml_dtypes.bfloat16
  np.testing.assert_array_equal(found, np.ones((1, 14, 5)))


@pytest.mark.parametrize('tokens', [15, 0])
def test_grid_that_is_not_square(tokens):
  embedding = np.zeros((1, 1 + tokens, 7))
  with pytest.raises(errors.CheckpointError) as caught:
    adapt.resize_position_embedding(embedding, (2, 3), True)
  for part in (f'found {tokens} patches', 'expected one or 2 by 3'):
    assert part in str(caught.value)


def test_grid_that_is_not_square_is_listed_with_the_other_misfits(edited_file):
  def spoil(params):
    params[POSITIONS] = params[POSITIONS][:, :-3]
    params['embedding/bias'] = np.zeros(47)

  path = edited_file(spoil)
  assert error_of(path, 'mini-vit', 64, 10).splitlines()[1:4] == [
    '  other shape (2):',
    f'    {POSITIONS}: found 61 patches, which is no square grid, expected one '
    'or 8 by 8; set the image size that the file was made for',
    '    embedding/bias: found (47,), expected (48,)',
  ]


@pytest.mark.parametrize(('name', 'size', 'slots'), [
  ('mini-vit', (40, 72), 1), ('mini-vit-gap', (88, 24), 0),
  ('mini-hybrid', (50, 31), 1),
])  # fmt: skip
def test_oblong_images(mini, name, size, slots):
  case = mini(name)
  found = load(case.path, name, size, 10)
  original = flat(case.params)
  grid = case.model.grid(size)
  side = math.isqrt(original[POSITIONS].shape[1])
  wanted = numpy_resize(
    original[POSITIONS][0, slots:].reshape(side, side, 48), grid
  )
  np.testing.assert_allclose(
    found[POSITIONS][0, slots:], wanted.reshape(-1, 48), atol=1e-6
  )
  unchanged = {key for key in original if key != POSITIONS}
  assert found.keys() == original.keys()
  for key in unchanged:
    np.testing.assert_array_equal(found[key], original[key])


# --- Head and pre_logits ------------------------------------------------------


@pytest.mark.parametrize('name', parity.MINI_VITS)
def test_nothing_changes_where_all_fits(mini, name):
  case = mini(name)
  found = load(case.path, name, case.image_size, case.num_classes)
  wanted = flat(case.params)
  assert found.keys() == wanted.keys()
  for key in wanted:
    assert found[key].tobytes() == wanted[key].tobytes()


def test_result_fits_the_model(mini):
  case = mini('mini-hybrid')
  found = checkpoints.load_pretrained(case.path, case.model, 64)
  wanted = jax.eval_shape(case.model.init, jax.random.key(0), case.images)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == jax.tree.map(
    lambda x: (x.shape, x.dtype), wanted['params']
  )


def test_another_number_of_classes_gives_a_fresh_head(mini):
  found = load(mini('mini-vit').path, 'mini-vit', 64, 7, head_bias_init=-2.5)
  np.testing.assert_array_equal(found['head/kernel'], np.zeros((48, 7), 'f4'))
  np.testing.assert_array_equal(found['head/bias'], np.full(7, -2.5, 'f4'))


def test_file_without_a_head_gives_a_fresh_one(edited_file):
  path = edited_file(
    lambda params: [params.pop(f'head/{leaf}') for leaf in ('kernel', 'bias')]
  )
  found = load(path, 'mini-vit', 64, 10)
  assert not found['head/kernel'].any()
  assert not found['head/bias'].any()


def test_half_a_head_is_none(edited_file):
  path = edited_file(lambda params: params.pop('head/bias'))
  found = load(path, 'mini-vit', 64, 10)
  assert not found['head/kernel'].any()
  assert not found['head/bias'].any()


def test_model_without_a_head_drops_the_files(mini):
  found = load(mini('mini-vit').path, 'mini-vit', 64, None)
  assert not any(key.startswith('head') for key in found)


def test_pre_logits_are_kept_where_the_model_has_them(mini):
  case = mini('mini-vit-prelogits')
  found = load(case.path, case.name, 32, 7)
  wanted = flat(case.params)['pre_logits/kernel']
  np.testing.assert_array_equal(found['pre_logits/kernel'], wanted)
  assert not found['head/kernel'].any()


@pytest.mark.parametrize('width', [40, 48])
def test_pre_logits_are_dropped_with_the_head_that_read_them(
  edited_file, width
):
  def widen(params):
    params['pre_logits/kernel'] = np.ones((48, width), 'f4')
    params['head/kernel'] = np.ones((width, 21), 'f4')

  path = edited_file(widen, 'mini-vit-prelogits')
  found = load(path, 'mini-vit-prelogits', 32, 21, representation_size=None)
  assert not any(key.startswith('pre_logits') for key in found)
  assert found['head/kernel'].shape == (48, 21)
  assert not found['head/kernel'].any()


def test_parameters_get_the_models_dtype(mini):
  config = parity.configs()['mini-vit']['config']
  model = vit_jax.create_model(config, 7, param_dtype='bfloat16')
  path = mini('mini-vit').path
  found = checkpoints.load_pretrained(path, model, 40)
  assert {x.dtype for x in jax.tree.leaves(found)} == {
    np.dtype(ml_dtypes.bfloat16)
  }


# --- What doesn't fit ---------------------------------------------------------


def test_all_misfits_in_one_error(edited_file):
  def spoil(params):
    del params['cls'], params['Transformer/encoder_norm/bias']
    params['stray/kernel'] = np.zeros(3)
    params['MAPHead_0/probe'] = np.zeros(3)
    params['embedding/kernel'] = np.zeros((4, 4, 3, 48))
    params['embedding/bias'] = np.zeros(47)

  path = edited_file(spoil)
  assert error_of(path, 'mini-vit', 64, 10).splitlines()[:10] == [
    f'{path} does not fit the model:',
    '  missing (2):',
    '    Transformer/encoder_norm/bias',
    '    cls',
    '  not in the model (2):',
    '    MAPHead_0/probe',
    '    stray/kernel',
    '  other shape (2):',
    '    embedding/bias: found (47,), expected (48,)',
    '    embedding/kernel: found (4, 4, 3, 48), expected (8, 8, 3, 48)',
  ]


def test_class_token_in_the_file_alone(mini):
  text = error_of(mini('mini-vit').path, 'mini-vit', 64, 10, classifier='gap')
  assert 'not in the model (1):\n    cls\n' in text
  assert f'{POSITIONS}: found (1, 65, 48), expected (1, 64, 48)' in text


def test_class_token_in_the_model_alone(mini):
  path = mini('mini-vit-gap').path
  text = error_of(path, 'mini-vit-gap', 32, 10, classifier='token')
  assert 'missing (1):\n    cls\n' in text
  assert f'{POSITIONS}: found (1, 16, 48), expected (1, 17, 48)' in text


def test_positions_of_another_rank_are_a_misfit(edited_file):
  def squeeze(params):
    params[POSITIONS] = params[POSITIONS][0]

  text = error_of(edited_file(squeeze), 'mini-vit', 64, 10)
  assert f'{POSITIONS}: found (65, 48), expected (1, 65, 48)' in text


def test_file_of_a_deeper_model(mini):
  config = parity.configs()['mini-vit']['config']['transformer']
  text = error_of(
    mini('mini-vit').path, 'mini-vit', 64, 10,
    transformer=config | {'num_layers': 3},
  )  # fmt: skip
  assert 'not in the model (16):' in text
  assert 'encoderblock_3/MlpBlock_0/Dense_1/kernel' in text


def test_head_that_does_not_fit_is_an_error_where_none_is_to_be_made(mini):
  model = vit_jax.create_model(parity.configs()['mini-vit']['config'], 7)
  with pytest.raises(errors.CheckpointError, match=r'head/kernel: found'):
    checkpoints.load_pretrained(
      mini('mini-vit').path, model, 64, fresh_head=False
    )


@pytest.mark.parametrize('scale', [0, 1])
def test_head_of_zeros_is_warned_about(scale, edited_file, caplog):
  def zero(params):
    params['head/kernel'] = scale * params['head/kernel']

  load(edited_file(zero), 'mini-vit', 64, 10)
  assert ('all zeros' in caplog.text) == (scale == 0)


@pytest.mark.parametrize('size', [np.int64(64), (64, 64), [64, np.int32(64)]])
def test_image_size_is_a_number_or_a_pair(mini, size):
  case = mini('mini-vit')
  found = checkpoints.load_pretrained(case.path, case.model, size)
  assert flat(found).keys() == flat(case.params).keys()


@pytest.mark.parametrize('size', [0, -4, 16.0, (64,), (64, 64, 3), '64', None])
def test_image_size_that_is_none(mini, size):
  case = mini('mini-vit')
  with pytest.raises(errors.ConfigError) as caught:
    checkpoints.load_pretrained(case.path, case.model, size)
  assert f'image_size is {size!r}, expected a number' in str(caught.value)


def test_arrays_are_put_where_the_shardings_say(mini):
  case = mini('mini-vit')
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  shardings = jax.tree.map(lambda _: place, case.params)
  found = checkpoints.load_pretrained(
    case.path, case.model, 64, shardings=shardings
  )
  for key, array in flat(found).items():
    assert isinstance(array, jax.Array)
    assert array.sharding == place
    np.testing.assert_array_equal(array, flat(case.params)[key])


def test_mixer_at_another_size(mini):
  case = mini('mini-mixer')
  with pytest.raises(errors.CheckpointError) as caught:
    checkpoints.load_pretrained(case.path, case.model, 48)
  text = str(caught.value)
  assert (
    'token_mixing/Dense_0/kernel: found (16, 24), expected (36, 24)' in text
  )
  assert text.endswith('that the file was made for (config.pp.crop).')
