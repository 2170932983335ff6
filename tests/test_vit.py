"""The Vision Transformer against numpy, its shapes and attention weights."""

import functools
import math
import re

import jax
import numpy as np
import parity
import pytest
from flax import traverse_util
from small_model import IMAGE_SIZE, make_model, output_of, random_params

from vit_jax import errors

# --- A whole model in numpy, one example and one head at a time --------------


# Parameters of what is added to the tokens, layer by layer.
ADDED = re.compile('cls|embedding|/out/|/Dense_1/')


def numpy_layer_norm(x, scale, bias):
  centred = x - x.mean(-1, keepdims=True)
  variance = (centred**2).mean(-1, keepdims=True)
  return centred / np.sqrt(variance + 1e-6) * scale + bias


def numpy_gelu(x):
  return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def numpy_attention(x, weights):
  out = weights['out/bias'].copy()
  for head in range(weights['query/kernel'].shape[1]):
    query, key, value = (
      x @ weights[f'{name}/kernel'][:, head] + weights[f'{name}/bias'][head]
      for name in ('query', 'key', 'value')
    )
    logits = query @ key.T / math.sqrt(query.shape[-1])
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = exp / exp.sum(-1, keepdims=True)
    out = out + probabilities @ value @ weights['out/kernel'][head]
  return out


def numpy_logits(params, images, patch, pooling):
  """Returns the logits of a ViT in float64, from flat parameters."""
  flat = traverse_util.flatten_dict(params, sep='/')
  flat = {key: np.asarray(value, 'f8') for key, value in flat.items()}

  def below(prefix):
    keys = [key for key in flat if key.startswith(prefix)]
    return {key.removeprefix(prefix): flat[key] for key in keys}

  logits = []
  for image in images.astype('f8'):
    tokens = [] if pooling == 'gap' else [flat['cls'][0, 0]]
    for top in range(0, image.shape[0] - patch[0] + 1, patch[0]):
      for left in range(0, image.shape[1] - patch[1] + 1, patch[1]):
        pixels = image[top : top + patch[0], left : left + patch[1]]
        tokens.append(
          np.einsum('hwc,hwcd->d', pixels, flat['embedding/kernel'])
          + flat['embedding/bias']
        )
    x = np.stack(tokens) + flat['Transformer/posembed_input/pos_embedding'][0]
    block = 0
    while weights := below(f'Transformer/encoderblock_{block}/'):
      norms = [
        (weights[f'LayerNorm_{i}/scale'], weights[f'LayerNorm_{i}/bias'])
        for i in range(2)
      ]
      attention = f'encoderblock_{block}/MultiHeadDotProductAttention_0/'
      x = x + numpy_attention(
        numpy_layer_norm(x, *norms[0]), below(f'Transformer/{attention}')
      )
      y = numpy_layer_norm(x, *norms[1])
      y = y @ weights['MlpBlock_0/Dense_0/kernel']
      y = numpy_gelu(y + weights['MlpBlock_0/Dense_0/bias'])
      y = y @ weights['MlpBlock_0/Dense_1/kernel']
      x = x + y + weights['MlpBlock_0/Dense_1/bias']
      block += 1
    norm = below('Transformer/encoder_norm/')
    x = numpy_layer_norm(x, norm['scale'], norm['bias'])
    x = x.mean(0) if pooling == 'gap' else x[0]
    if 'pre_logits/kernel' in flat:
      x = np.tanh(x @ flat['pre_logits/kernel'] + flat['pre_logits/bias'])
    logits.append(x @ flat['head/kernel'] + flat['head/bias'])
  return np.stack(logits)


@pytest.mark.parametrize('name', ['mini-vit', 'mini-vit-prelogits'])
def test_mini_model_equals_numpy(mini, name):
  case = mini(name)
  wanted = numpy_logits(case.params, case.images, (8, 8), 'token')
  logits, _ = case.apply(case.params, case.images)
  assert parity.relative_error(logits, wanted) < 1e-5


@pytest.mark.parametrize(('pooling', 'representation_size'), [
  ('token', 7), ('gap', None),
])  # fmt: skip
def test_oblong_images_and_patches_equal_numpy(pooling, representation_size):
  model = make_model(
    classifier=pooling, representation_size=representation_size
  )
  params = traverse_util.flatten_dict(random_params(model), sep='/')
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  apply = jax.jit(model.apply)
  for scale in (1, 1e-3):
    # With all that is added to the tokens this small, their variance is near
    # the 1e-6 of the norms.
    scaled = traverse_util.unflatten_dict(
      {
        key: array * np.float32(scale) if ADDED.search(key) else array
        for key, array in params.items()
      },
      sep='/',
    )
    wanted = numpy_logits(scaled, images, (5, 3), pooling)
    logits = apply({'params': scaled}, images)
    assert logits.shape == (2, 19)
    assert parity.relative_error(logits, wanted) < 1e-5


# --- Shapes ------------------------------------------------------------------


@pytest.mark.parametrize(('num_classes', 'representation_size', 'width'), [
  (19, None, 19), (19, 7, 19), (None, None, 21), (None, 7, 7),
])  # fmt: skip
@pytest.mark.parametrize(('classifier', 'tokens'), [
  ('token', ()), ('gap', ()), ('unpooled', (10,)), ('token_unpooled', (11,)),
])  # fmt: skip
def test_output_shapes(
  classifier, tokens, num_classes, representation_size, width
):
  model = make_model(
    num_classes, classifier=classifier, representation_size=representation_size
  )
  output, variables = output_of(model)
  assert output.shape == (2, *tokens, width)
  params = variables['params']
  assert ('cls' in params) == classifier.startswith('token')
  assert ('head' in params) == (num_classes is not None)
  assert ('pre_logits' in params) == (representation_size is not None)


def test_representation_is_a_tanh():
  model = make_model(None, representation_size=7)
  params = random_params(model)
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  found = jax.jit(model.apply)({'params': params}, images)
  assert np.abs(found).max() < 1
  layer = params.pop('pre_logits')
  features = jax.jit(make_model(None).apply)({'params': params}, images)
  wanted = np.tanh(features @ layer['kernel'] + layer['bias'])
  np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize('size', [(37, 53), (64, 65), (71, 41), (97, 33)])
@pytest.mark.parametrize('stem', [None, (), (1,), (2, 1), (1, 1, 1), (1,) * 4])
def test_grid_is_that_of_the_tokens(stem, size):
  edits = {'patches': {'size': (3, 2)}} if stem == () else {}
  if stem is not None:
    edits |= {'resnet': {'num_layers': stem, 'width_factor': 0.5}}
    edits = {'patches': {'size': (1, 2)}} | edits
  model = make_model(classifier='unpooled', **edits)
  output, variables = output_of(
    model,
    size,
    capture_intermediates=lambda module, _: module.name == 'embedding',
    mutable=True,
  )
  (embedding,) = variables['intermediates']['embedding']['__call__']
  rows, columns = model.grid(size)
  assert embedding.shape[1:3] == (rows, columns)
  assert output.shape[1] == rows * columns


def test_images_smaller_than_a_patch():
  with pytest.raises(errors.ConfigError, match='Images of 7 by 2 pixels'):
    output_of(make_model(), (7, 2))


def test_fresh_head_is_zero_with_its_bias():
  model = make_model(head_bias_init=-3.5)
  images = np.ones((1, *IMAGE_SIZE, 3), np.float32)
  # All but the head is compiled away.
  init = jax.jit(lambda key: model.init(key, images)['params']['head'])
  head = init(jax.random.key(0))
  np.testing.assert_array_equal(head['kernel'], np.zeros((21, 19), 'f4'))
  np.testing.assert_array_equal(head['bias'], np.full(19, -3.5, 'f4'))


# --- Attention weights -------------------------------------------------------


@pytest.mark.parametrize('name', parity.MINI_VITS)
def test_attention_rows_sum_to_one(mini, name):
  case = mini(name)
  _, weights = case.apply(case.params, case.images)
  assert weights.dtype == np.float32
  assert weights.min() >= 0
  np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)


def test_attention_weights_are_put_out_on_request_only():
  model = make_model()
  params = random_params(model)
  images = np.zeros((2, *IMAGE_SIZE, 3), np.float32)

  def jaxpr(**kwargs):
    apply = functools.partial(model.apply, **kwargs)
    return jax.make_jaxpr(apply)({'params': params}, images).jaxpr

  plain, asked = jaxpr(), jaxpr(mutable=['intermediates'])
  assert len(plain.outvars) == 1
  assert len(asked.outvars) == 1 + 2  # One more for each block.
  assert len(plain.eqns) == len(asked.eqns)
