"""Attention weights of whole models, and maps from them."""

import numpy as np
import parity
import pytest
import reference
from flax import traverse_util
from small_model import IMAGE_SIZE, make_model, random_params

from vit_jax import attention, errors

# --- Weights -----------------------------------------------------------------


@pytest.mark.parametrize('name', parity.MINI_VITS)
def test_weights_equal_the_originals(mini, name):
  case = mini(name)
  weights = attention.attention_weights(case.model, case.params, case.images)
  wanted = parity.expected()[f'{name}/attention']
  assert weights.shape == wanted.shape
  assert weights.dtype == np.float32
  for layer in range(len(wanted)):
    assert parity.relative_error(weights[layer], wanted[layer]) < 1e-5


@pytest.mark.parametrize(('classifier', 'tokens'), [
  ('token', 11), ('gap', 10), ('map', 10), ('unpooled', 10),
  ('token_unpooled', 11),
])  # fmt: skip
def test_weights_of_oblong_images_equal_numpy(classifier, tokens):
  model = make_model(classifier=classifier)
  params = random_params(model)
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  found = attention.attention_weights(model, params, images)
  assert found.shape == (2, 2, 3, tokens, tokens)
  flat = traverse_util.flatten_dict(params, sep='/')
  for i in range(2):
    wanted = first_weights(flat, images[i], classifier.startswith('token'))
    np.testing.assert_allclose(found[0, i], wanted, atol=1e-5)


def first_weights(flat, image, class_token):
  """Returns the [heads, tokens, tokens] of the first block."""
  flat = {key: np.asarray(value, 'f8') for key, value in flat.items()}
  patches = reference.split(np.asarray(image, 'f8'), (5, 3))
  x = reference.embed(patches, reference.below(flat, 'embedding/'))
  if class_token:
    x = np.concatenate([flat['cls'][0], x])
  x = x + flat['Transformer/posembed_input/pos_embedding'][0]
  block = reference.below(flat, 'Transformer/encoderblock_0/')
  x = reference.layer_norm(x, reference.below(block, 'LayerNorm_0/'))
  layer = reference.below(block, 'MultiHeadDotProductAttention_0/')
  query, key = (
    np.einsum('td,dhe->hte', x, layer[f'{name}/kernel'])
    + layer[f'{name}/bias'][:, None]
    for name in ('query', 'key')
  )
  exp = np.exp(query @ key.swapaxes(1, 2) / query.shape[-1] ** 0.5)
  return exp / exp.sum(axis=-1, keepdims=True)


def test_raw_maps_need_not_all_weights(mini):
  for name in ('mini-stem-hybrid', 'mini-vit-gap'):
    case = mini(name)
    size = (case.image_size, case.image_size)
    grid = case.model.grid(size)
    found, logits = attention.class_token_maps(
      case.model, case.params, case.images
    )
    wanted = attention.class_token_map(
      parity.expected()[f'{name}/attention'], grid
    )
    assert found.shape == (2, 2, 3, *grid)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    wanted = parity.expected()[f'{name}/logits']
    assert parity.relative_error(logits, wanted) < 1e-5


def test_weights_are_float32_in_bfloat16():
  model = make_model(dtype='bfloat16')
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  weights = attention.attention_weights(model, random_params(model), images)
  assert weights.dtype == np.float32
  np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)


# --- Maps --------------------------------------------------------------------


def test_class_token_map():
  matrix = np.random.default_rng(0).random((7, 11, 11))
  found = attention.class_token_map(matrix, (2, 5))
  np.testing.assert_allclose(
    found, matrix[:, 0, 1:].reshape(7, 2, 5), rtol=1e-6
  )
  one = attention.class_token_map(matrix[3], (5, 2))
  np.testing.assert_array_equal(one.ravel(), found[3].ravel())


def test_mean_row_where_there_is_no_class_token():
  matrix = np.random.default_rng(0).random((10, 10))
  found = attention.class_token_map(matrix, (2, 5))
  wanted = matrix.mean(axis=0).reshape(2, 5)
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize('tokens', [10, 11])
def test_row_of_a_patch(tokens):
  matrix = np.random.default_rng(0).random((tokens, tokens))
  found = attention.patch_map(matrix, (2, 5), (1, 3))
  patches = matrix[tokens - 10 :, tokens - 10 :]
  np.testing.assert_allclose(found, patches[8].reshape(2, 5), rtol=1e-6)
  last = attention.patch_map(matrix, (2, 5), (-1, -2))
  np.testing.assert_array_equal(last, found)


def test_raw_map_of_layer_and_head():
  weights = np.random.default_rng(0).random((5, 3, 11, 11)).astype('f4')
  grid = (2, 5)

  def check(found, wanted):
    np.testing.assert_allclose(found, wanted.reshape(grid), rtol=1e-6)

  check(attention.raw_map(weights, grid), weights[4, :, 0, 1:].mean(0))
  check(attention.raw_map(weights, grid, 1, 2), weights[1, 2, 0, 1:])
  check(attention.raw_map(weights, grid, -5, -3), weights[0, 0, 0, 1:])
  patch = attention.raw_map(weights, grid, 3, patch=(1, 0))
  check(patch, weights[3, :, 6, 1:].mean(0))


def test_size_of_a_token():
  assert attention.token_size(make_model()) == (5, 3)
  hybrid = make_model(resnet={'num_layers': (1, 1), 'width_factor': 0.5})
  assert attention.token_size(hybrid) == (40, 24)


# --- Mistakes ----------------------------------------------------------------


@pytest.mark.parametrize('function', [
  attention.attention_weights,
  attention.class_token_maps,
  attention.rollout_maps,
  attention.grad_rollout_maps,
  attention.relevance_maps,
  attention.attention_gradients,
  attention.attention_distances,
])  # fmt: skip
def test_mixers_and_single_images(mini, function):
  case = mini('mini-mixer')
  with pytest.raises(errors.ConfigError, match='MlpMixer has no attention'):
    function(case.model, case.params, case.images)
  with pytest.raises(errors.ConfigError, match=r'images\[None\]'):
    function(make_model(), {}, np.ones((5, 3, 3), 'f4'))


@pytest.mark.parametrize('grid', [(3, 4), (5, 1), (-2, -5), (0, 10)])
def test_other_grid(grid):
  with pytest.raises(errors.ConfigError, match='tokens are not those of'):
    attention.class_token_map(np.ones((11, 11)), grid)


@pytest.mark.parametrize('where, text', [
  ({'layer': 2}, r'no layer 2: valid are 0 to 1 \(or -2 to -1'),
  ({'layer': -3}, 'no layer -3: valid are 0 to 1'),
  ({'head': 3}, 'no head 3: valid are 0 to 2'),
  ({'patch': (2, 0)}, 'no row 2: valid are 0 to 1'),
  ({'patch': (0, 5)}, 'no column 5: valid are 0 to 4'),
])  # fmt: skip
def test_indices_out_of_range(where, text):
  with pytest.raises(errors.ConfigError, match=text):
    attention.raw_map(np.ones((2, 3, 11, 11)), (2, 5), **where)
