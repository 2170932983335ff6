"""Attention rollout against plain numpy, option by option."""

import jax
import numpy as np
import parity
import pytest
from small_model import IMAGE_SIZE, make_model, random_params

import vit_jax
from vit_jax import attention, errors
from vit_jax.attention import products

FUSIONS = {'mean': np.mean, 'max': np.max, 'min': np.min}


def rollout(weights, head_fusion, discard_ratio, start_layer, class_token):
  """Returns the rollout of [layers, heads, tokens, tokens], in float64."""
  tokens = weights.shape[-1]
  product = np.eye(tokens)
  for layer in weights[start_layer:].astype('f8'):
    fused = FUSIONS[head_fusion](layer, axis=0)
    smallest = np.argsort(fused, axis=None, kind='stable')
    for i in smallest[: int(discard_ratio * tokens**2)]:
      row, column = divmod(int(i), tokens)
      if column or not class_token:
        fused[row, column] = 0
    mixed = 0.5 * (fused + np.eye(tokens))
    product = mixed / mixed.sum(axis=1, keepdims=True) @ product
  return product


def random_weights(*shape, seed=0):
  """Returns attention weights as uneven as those of trained models."""
  logits = np.random.default_rng(seed).normal(0, 2, shape)
  exp = np.exp(logits)
  return (exp / exp.sum(axis=-1, keepdims=True)).astype('f4')


@pytest.mark.parametrize('class_token', [True, False])
@pytest.mark.parametrize('head_fusion, discard_ratio, start_layer', [
  ('mean', 0.0, 0), ('mean', 0.9, 0), ('mean', 0.37, 2),
  ('max', 0.0, 2), ('max', 0.9, 0),
  ('min', 0.0, 0), ('min', 0.37, 2),
])  # fmt: skip
def test_equals_numpy(head_fusion, discard_ratio, start_layer, class_token):
  weights = random_weights(3, 2, 5, 11, 11)  # [layers, batch, heads, ...]
  options = (head_fusion, discard_ratio, start_layer)
  found = attention.rollout_batch(weights, *options, class_token=class_token)
  assert found.shape == (2, 11, 11)
  assert found.dtype == np.float32
  wanted = [rollout(weights[:, i], *options, class_token) for i in range(2)]
  np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_one_image():
  weights = random_weights(3, 5, 11, 11)
  found = attention.rollout(weights, discard_ratio=0.5)
  wanted = rollout(weights, 'mean', 0.5, 0, True)
  np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_defaults():
  weights = random_weights(3, 5, 11, 11)
  wanted = rollout(weights, 'mean', 0.0, 0, True)
  np.testing.assert_allclose(attention.rollout(weights), wanted, atol=1e-6)


@pytest.mark.parametrize('options', [('mean', 0.0), ('max', 0.37)])
def test_rollout_of_every_layer(options):
  weights = random_weights(3, 5, 11, 11)
  found = attention.layer_rollouts(weights, *options)
  wanted = [rollout(weights[: i + 1], *options, 0, True) for i in range(3)]
  np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_start_layer_from_the_end():
  weights = random_weights(3, 5, 11, 11)
  found = attention.rollout(weights, start_layer=-1)
  wanted = attention.rollout(weights[2:])
  np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize('name, options', [
  ('mini-vit', ('mean', 0.0, 0)),
  ('mini-vit', ('max', 0.9, 2)),
  ('mini-vit-gap', ('mean', 0.5, 0)),
  ('mini-stem-hybrid', ('min', 0.7, 1)),
])  # fmt: skip
def test_maps_of_models_equal_numpy(mini, name, options):
  case = mini(name)
  weights = parity.expected()[f'{name}/attention']
  grid = case.model.grid((case.image_size, case.image_size))
  class_token = name != 'mini-vit-gap'
  maps, logits = attention.rollout_maps(
    case.model, case.params, case.images, *options
  )
  assert maps.shape == (2, *grid)
  for i in range(2):
    matrix = rollout(weights[:, i], *options, class_token)
    wanted = matrix[0, 1:] if class_token else matrix.mean(axis=0)
    np.testing.assert_allclose(maps[i], wanted.reshape(grid), atol=1e-5)
  wanted = parity.expected()[f'{name}/logits']
  assert parity.relative_error(logits, wanted) < 1e-5


def test_maps_of_oblong_images():
  model = make_model()
  params = random_params(model)
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  weights = attention.attention_weights(model, params, images)
  maps, _ = attention.rollout_maps(model, params, images)
  matrices = attention.rollout_batch(weights)
  wanted = attention.class_token_map(matrices, (2, 5))
  assert maps.shape == (2, 2, 5)
  np.testing.assert_allclose(maps, wanted, atol=1e-6)


def test_heads_are_fused_within_the_forward_pass():
  model = make_model(transformer={'num_layers': 7})
  images = jax.ShapeDtypeStruct((2, *IMAGE_SIZE, 3), 'float32')
  params = random_params(model)
  jaxpr = jax.make_jaxpr(lambda *args: attention.rollout_maps(model, *args))(
    params, images
  )
  assert '[2,3,11,11]' in str(jaxpr)
  assert '[7,2,3,11,11]' not in str(jaxpr)


@pytest.mark.parametrize('discard_ratio', [0.0, 0.9])
def test_rollout_keeps_one_matrix_of_each_layer(discard_ratio):
  model = vit_jax.create_model('ViT-B_16', 1000)
  images = jax.ShapeDtypeStruct((16, 224, 224, 3), 'float32')
  params = jax.eval_shape(model.init, jax.random.key(0), images)['params']

  def memory(function):  # Compiled only, neither run nor given parameters.
    compiled = jax.jit(function).lower(params, images).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  plain = memory(lambda params, images: model.apply({'params': params}, images))
  rolled = memory(
    lambda params, images: attention.rollout_maps(
      model, params, images, discard_ratio=discard_ratio
    )
  )
  fused = 4 * 16 * 197**2  # Bytes of a layer's; with all heads it's 12 times.
  assert rolled - plain < 1.5 * 12 * fused


# --- What is discarded -------------------------------------------------------


@pytest.mark.parametrize('ratio', [0.0, 0.004, 0.1, 0.63, 0.99])
def test_share_that_is_discarded(ratio):
  matrix = np.random.default_rng(0).random((3, 17, 17)).astype('f4')
  found = products.discard(matrix, ratio, False)
  assert [int((one == 0).sum()) for one in found] == [int(ratio * 17**2)] * 3
  for one, kept in zip(matrix, found, strict=True):
    np.testing.assert_array_equal(kept[kept > 0], one[kept > 0])
    assert one[kept == 0].max(initial=0) < kept[kept > 0].min()


def test_class_tokens_column_stays():
  matrix = np.random.default_rng(0).random((17, 17)).astype('f4')
  matrix[:, 0] /= 1000
  found = products.discard(matrix, 0.9, True)
  np.testing.assert_array_equal(found[:, 0], matrix[:, 0])
  assert (found[:, 1:] == 0).sum() == int(0.9 * 17**2) - 17


def test_equal_weights_stay():
  uniform = np.full((3, 2, 7, 7), 1 / 7, 'f4')
  found = attention.rollout(uniform, discard_ratio=0.9)
  np.testing.assert_array_equal(found, attention.rollout(uniform))


def test_weights_of_zero_and_one():
  weights = np.zeros((2, 3, 7, 7), 'f4')
  weights[..., 4] = 1  # All look at one patch.
  found = attention.rollout(weights, discard_ratio=0.5)
  wanted = rollout(weights, 'mean', 0.5, 0, True)
  np.testing.assert_allclose(found, wanted, atol=1e-6)


# --- Mistakes ----------------------------------------------------------------


@pytest.mark.parametrize('options, text', [
  ({'head_fusion': 'maxx'}, "head_fusion 'maxx'. Did you mean 'max'"),
  ({'discard_ratio': 1.0}, r'discard_ratio 1.0 is not in \[0, 1\)'),
  ({'discard_ratio': -0.1}, 'discard_ratio -0.1'),
  ({'discard_ratio': float('nan')}, 'discard_ratio nan'),
  ({'start_layer': 2}, 'no layer 2: valid are 0 to 1'),
])  # fmt: skip
def test_options_that_cannot_be(options, text):
  model = make_model()
  images = np.ones((1, *IMAGE_SIZE, 3), 'f4')
  weights = np.ones((2, 3, 11, 11), 'f4')
  for call in (
    lambda: attention.rollout(weights, **options),
    lambda: attention.rollout_batch(weights[:, None], **options),
    lambda: attention.rollout_maps(model, {}, images, **options),
  ):
    with pytest.raises(errors.ConfigError, match=text):
      call()
