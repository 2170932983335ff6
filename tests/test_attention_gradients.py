"""Gradients by attention weights, and class-specific maps from them."""

import jax
import numpy as np
import parity
import pytest
import reference
from flax import traverse_util
from small_model import IMAGE_SIZE, make_model, random_params

from vit_jax import attention, errors

GRID = (2, 5)


@pytest.fixture(scope='module')
def case():
  """A model, its parameters, images, and gradients for classes 3 and 18."""
  model = make_model()
  params = random_params(model)
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  found = attention.attention_gradients(
    model, params, images, np.array([3, 18])
  )
  return model, params, images, found


def logits_with(flat, image, added):
  """Returns the logits in float64, `added` being put to the weights.

  Args:
    flat: parameters of a model with a class token.
    image: [height, width, 3].
    added: [layers, heads, tokens, tokens].
  """
  x = reference.embed(
    reference.split(image, (5, 3)), reference.below(flat, 'embedding/')
  )
  x = np.concatenate([flat['cls'][0], x])
  x = x + flat['Transformer/posembed_input/pos_embedding'][0]
  for layer, more in enumerate(added):
    block = reference.below(flat, f'Transformer/encoderblock_{layer}/')
    y = reference.layer_norm(x, reference.below(block, 'LayerNorm_0/'))
    attend = reference.below(block, 'MultiHeadDotProductAttention_0/')
    query, key, value = (
      np.einsum('td,dhe->hte', y, attend[f'{name}/kernel'])
      + attend[f'{name}/bias'][:, None]
      for name in ('query', 'key', 'value')
    )
    exp = np.exp(query @ key.swapaxes(1, 2) / query.shape[-1] ** 0.5)
    weights = exp / exp.sum(axis=-1, keepdims=True) + more
    x = x + attend['out/bias']
    x = x + np.einsum('hte,hed->td', weights @ value, attend['out/kernel'])
    y = reference.layer_norm(x, reference.below(block, 'LayerNorm_1/'))
    x = x + reference.mlp(y, reference.below(block, 'MlpBlock_0/'), 'tanh')
  norm = reference.below(flat, 'Transformer/encoder_norm/')
  return reference.head(reference.layer_norm(x, norm)[0], flat)


def test_gradients_equal_finite_differences(case):
  _, params, images, found = case
  assert found.gradients.shape == (2, 2, 3, 11, 11)
  flat = {
    key: np.asarray(value, 'f8')
    for key, value in traverse_util.flatten_dict(params, sep='/').items()
  }
  rng = np.random.default_rng(0)
  for i, index in enumerate((3, 18)):
    image = images[i].astype('f8')
    np.testing.assert_allclose(
      found.logits[i], logits_with(flat, image, np.zeros((2, 3, 11, 11))),
      atol=1e-4,
    )  # fmt: skip
    gradients = np.asarray(found.gradients[:, i], 'f8')
    # In the last layer only what the class token reads has a say.
    assert not gradients[1, :, 1:].any()
    for _ in range(5):
      step = 1e-5 * rng.normal(size=gradients.shape)
      up, down = (
        logits_with(flat, image, sign * step)[index] for sign in (1, -1)
      )
      wanted = (up - down) / 2
      np.testing.assert_allclose((gradients * step).sum(), wanted, rtol=1e-4)


def test_weights_are_those_of_the_model(case):
  model, params, images, found = case
  weights = attention.attention_weights(model, params, images)
  np.testing.assert_allclose(found.weights, weights, atol=1e-6)
  logits = jax.jit(model.apply)({'params': params}, images)
  np.testing.assert_allclose(found.logits, logits, atol=1e-5)


def contributions(weights, gradients):
  """Returns the [layers, tokens, tokens] of both, in float64."""
  weights, gradients = np.asarray(weights, 'f8'), np.asarray(gradients, 'f8')
  return np.maximum(weights * gradients, 0).mean(axis=1)


def grad_rollout(layers, discard_ratio=0.0, start_layer=0, class_token=True):
  tokens = layers.shape[-1]
  product = np.eye(tokens)
  for fused in layers[start_layer:]:
    sums = fused.sum(axis=1, keepdims=True)
    fused = fused / np.where(sums, sums, 1)
    limit = np.sort(fused, axis=None)[int(discard_ratio * tokens**2)]
    fused[:, int(class_token) :][fused[:, int(class_token) :] < limit] = 0
    mixed = 0.5 * (fused + np.eye(tokens))
    product = mixed / mixed.sum(axis=1, keepdims=True) @ product
  return product


def relevance(layers, start_layer=0):
  found = np.eye(layers.shape[-1])
  for fused in layers[start_layer:]:
    found = found + fused @ found
  return found


@pytest.mark.parametrize('discard_ratio', [0.0, 0.8])
@pytest.mark.parametrize('start_layer', [0, 1])
def test_matrices_equal_numpy(discard_ratio, start_layer):
  rng = np.random.default_rng(0)
  weights = rng.random((3, 5, 11, 11)).astype('f4') / 5
  gradients = rng.normal(size=weights.shape).astype('f4')
  layers = contributions(weights, gradients)
  found = attention.grad_rollout(
    weights, gradients, discard_ratio, start_layer, class_token=False
  )
  wanted = grad_rollout(layers, discard_ratio, start_layer, False)
  np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
  found = attention.relevance(weights, gradients, start_layer)
  wanted = relevance(layers, start_layer)
  np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_matrices_of_a_batch(case):
  *_, (weights, gradients, _) = case
  for function in (attention.grad_rollout, attention.relevance):
    found = jax.vmap(function, in_axes=1)(weights, gradients)
    assert found.shape == (2, 11, 11)
    for i in range(2):
      wanted = function(weights[:, i], gradients[:, i])
      np.testing.assert_allclose(found[i], wanted, atol=1e-5)


def test_maps_equal_numpy(case):
  model, params, images, (weights, gradients, logits) = case
  classes = np.array([3, -1])
  rolled = attention.grad_rollout_maps(model, params, images, classes, 0.3)
  relevant = attention.relevance_maps(model, params, images, classes)
  for found in (rolled, relevant):
    assert found.maps.shape == (2, *GRID)
    np.testing.assert_allclose(found.logits, logits, atol=1e-5)
  for i in range(2):
    layers = contributions(weights[:, i], gradients[:, i])
    wanted = grad_rollout(layers, 0.3)[0, 1:].reshape(GRID)
    np.testing.assert_allclose(rolled.maps[i], wanted, atol=1e-5)
    wanted = relevance(layers)[0, 1:].reshape(GRID)
    np.testing.assert_allclose(relevant.maps[i], wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('function', [
  attention.grad_rollout_maps, attention.relevance_maps,
])  # fmt: skip
def test_classes(case, function):
  model, params, images, found = case
  predicted, logits = function(model, params, images)
  classes = np.asarray(found.logits).argmax(axis=1)
  by_index, _ = function(model, params, images, classes)
  np.testing.assert_allclose(predicted, by_index, rtol=1e-5)
  np.testing.assert_allclose(logits, found.logits, atol=1e-5)
  same, _ = function(model, params, images, 5)
  of_each, _ = function(model, params, images, np.array([5, 5]))
  np.testing.assert_array_equal(same, of_each)
  assert not np.allclose(same, predicted, rtol=0.01)


def test_maps_without_class_token(mini):
  model, params, images = (
    getattr(mini('mini-vit-gap'), name)
    for name in ('model', 'params', 'images')
  )
  weights, gradients, _ = attention.attention_gradients(model, params, images)
  rolled, _ = attention.grad_rollout_maps(
    model, params, images, discard_ratio=0.5, start_layer=-1
  )
  relevant, _ = attention.relevance_maps(model, params, images, start_layer=-1)
  for i in range(2):
    layers = contributions(weights[:, i], gradients[:, i])
    wanted = grad_rollout(layers, 0.5, 1, False).mean(axis=0).reshape(4, 4)
    np.testing.assert_allclose(rolled[i], wanted, atol=1e-6)
    wanted = relevance(layers, 1).mean(axis=0).reshape(4, 4)
    np.testing.assert_allclose(relevant[i], wanted, rtol=1e-4, atol=1e-6)


# --- Mistakes ----------------------------------------------------------------


@pytest.mark.parametrize('classes, text', [
  (19, r'no class 19: valid are 0 to 18 \('),
  (np.array([0, -20]), 'no class -20: valid are 0 to 18'),
  (np.array([1, 2, 3]), 'neither one index, nor 2 of them'),
  (np.array([0.5, 1]), 'neither one index'),
])  # fmt: skip
def test_classes_that_are_not_there(case, classes, text):
  model, params, images, _ = case
  for function in (
    attention.attention_gradients,
    attention.grad_rollout_maps,
    attention.relevance_maps,
  ):
    with pytest.raises(errors.ConfigError, match=text):
      function(model, params, images, classes)


@pytest.mark.parametrize('model', [
  make_model(None), make_model(classifier='unpooled'),
  make_model(classifier='token_unpooled'),
])  # fmt: skip
def test_models_without_logits_of_images(model):
  images = np.ones((1, *IMAGE_SIZE, 3), 'f4')
  with pytest.raises(errors.ConfigError, match='one row of logits'):
    attention.relevance_maps(model, {}, images)


def test_options_that_cannot_be(case):
  model, params, images, (weights, gradients, _) = case
  for call, text in (
    (lambda: attention.grad_rollout(weights[:, 0], gradients[:, 0], 1.0),
     'discard_ratio 1.0'),
    (lambda: attention.grad_rollout_maps(
      model, params, images, discard_ratio=-1.0), 'discard_ratio -1'),
    (lambda: attention.relevance(weights[:, 0], gradients[:, 0], 2),
     'no layer 2: valid are 0 to 1'),
    (lambda: attention.relevance_maps(model, params, images, start_layer=7),
     'no layer 7: valid are 0 to 1'),
    (lambda: attention.relevance(weights[:, 0], gradients[:1, 0]),
     'different shapes'),
  ):  # fmt: skip
    with pytest.raises(errors.ConfigError, match=text):
      call()
