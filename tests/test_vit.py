"""The Vision Transformer against numpy, and its classifiers, grids, dtypes."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from flax import traverse_util

import vit_jax
from vit_jax import errors
from vit_jax.models import vit

# Distinct primes, so that swapped dimensions can't go unnoticed. An image of
# 11 by 17 pixels has 2 by 5 whole patches and pixels beyond them.
CONFIG = {
  'patches': {'size': (5, 3)},
  'hidden_size': 21,
  'transformer': {'mlp_dim': 13, 'num_heads': 3, 'num_layers': 2},
}
IMAGE_SIZE = (11, 17)
GRID = (2, 5)


def make_model(num_classes=19, dtype='float32', param_dtype='float32', **edits):
  config = CONFIG | edits
  config['transformer'] = CONFIG['transformer'] | edits.get('transformer', {})
  return vit_jax.create_model(
    config, num_classes, dtype=dtype, param_dtype=param_dtype
  )


def random_params(module, shape=(1, *IMAGE_SIZE, 3)):
  """Returns parameters none of which is zero, so that each has a say."""
  rng = np.random.default_rng(0)
  inputs = jax.ShapeDtypeStruct(shape, 'float32')
  init = functools.partial(module.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), inputs)['params']
  return jax.tree.map(
    lambda array: rng.normal(0, 0.4, array.shape).astype('f4'), shapes
  )


# --- A whole model in numpy, one example and one head at a time --------------


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


@pytest.mark.parametrize('pooling, representation_size', [
  ('token', 7), ('gap', None),
])  # fmt: skip
def test_oblong_images_and_patches_equal_numpy(pooling, representation_size):
  model = make_model(
    classifier=pooling, representation_size=representation_size
  )
  params = random_params(model)
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  wanted = numpy_logits(params, images, (5, 3), pooling)
  logits = jax.jit(model.apply)({'params': params}, images)
  assert logits.shape == (2, 19)
  assert parity.relative_error(logits, wanted) < 1e-5


# --- Shapes ------------------------------------------------------------------


def output_of(model, size=IMAGE_SIZE, **kwargs):
  """Returns (output, variables) as shapes; nothing is computed."""
  images = jax.ShapeDtypeStruct((2, *size, 3), 'float32')
  init = functools.partial(model.init_with_output, **kwargs)
  return jax.eval_shape(init, jax.random.key(0), images)


@pytest.mark.parametrize('num_classes, representation_size, width', [
  (19, None, 19), (19, 7, 19), (None, None, 21), (None, 7, 7),
])  # fmt: skip
@pytest.mark.parametrize('classifier, tokens', [
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


# --- Dtypes ------------------------------------------------------------------


def models_of_both_kinds(**kwargs):
  resnet = {'num_layers': (1, 1), 'width_factor': 0.5}
  return [
    make_model(representation_size=7, **kwargs),
    make_model(resnet=resnet, patches={'size': (1, 2)}, **kwargs),
  ]


def products(jaxpr):
  """Yields every matrix product and convolution of a jaxpr, nested ones too."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name in ('dot_general', 'conv_general_dilated'):
      yield eqn
    for value in eqn.params.values():
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from products(inner)


@pytest.mark.parametrize('kind', [0, 1], ids=['vit', 'hybrid'])
def test_dtype_reaches_every_layer(kind):
  model = models_of_both_kinds(dtype='bfloat16')[kind]
  output, variables = output_of(
    model, capture_intermediates=True, mutable=True
  )
  assert output.dtype == jnp.float32
  assert {x.dtype for x in jax.tree.leaves(variables['params'])} == {
    np.dtype('float32')
  }
  layers = traverse_util.flatten_dict(variables['intermediates'])
  for path, values in layers.items():
    exact = path[-1] == 'attention_weights' or path == ('__call__',)
    dtype = 'float32' if exact else 'bfloat16'
    assert {str(value.dtype) for value in values} == {dtype}, path

  images = jax.ShapeDtypeStruct((2, *IMAGE_SIZE, 3), 'float32')
  jaxpr = jax.make_jaxpr(model.apply)({'params': variables['params']}, images)
  eqns = list(products(jaxpr.jaxpr))
  # Two products with four projections and two dense layers in each block.
  assert len(eqns) >= 2 * 8 + 2
  for eqn in eqns:
    assert [var.aval.dtype for var in eqn.invars] == [jnp.bfloat16] * 2


@pytest.mark.parametrize('kind', [0, 1], ids=['vit', 'hybrid'])
@pytest.mark.parametrize('param_dtype', ['bfloat16', 'float16'])
def test_param_dtype_reaches_every_parameter(kind, param_dtype):
  model = models_of_both_kinds(param_dtype=param_dtype)[kind]
  output, variables = output_of(model)
  assert output.dtype == jnp.float32
  dtypes = {x.dtype for x in jax.tree.leaves(variables['params'])}
  assert dtypes == {jnp.dtype(param_dtype)}


def test_bfloat16_logits_are_close_to_float32(mini):
  case = mini('mini-vit')
  config = parity.configs()['mini-vit']['config']
  model = vit_jax.create_model(config, case.num_classes, dtype='bfloat16')
  logits = jax.jit(model.apply)({'params': case.params}, case.images)
  assert logits.dtype == np.float32
  wanted, _ = case.apply(case.params, case.images)
  # bfloat16 has 8 bits: each of some dozen roundings is off by up to 0.4 %.
  assert 1e-5 < parity.relative_error(logits, wanted) < 0.1


# --- Dropout and drop-path ---------------------------------------------------

RATES = ('dropout_rate', 'attention_dropout_rate', 'drop_path_rate')


@pytest.mark.parametrize('rate', RATES)
def test_dropping_depends_on_the_key_and_on_training(rate):
  model = make_model(transformer={rate: 0.5})
  params = random_params(model)
  images = parity.make_images(3, *IMAGE_SIZE, 0)
  apply = jax.jit(model.apply, static_argnames='train')

  def logits(seed):
    rngs = {'dropout': jax.random.key(seed)}
    return apply({'params': params}, images, train=True, rngs=rngs)

  assert np.array_equal(logits(0), logits(0))
  assert not np.allclose(logits(0), logits(1))
  evaluated = apply({'params': params}, images, train=False)
  assert not np.allclose(logits(0), evaluated)
  undropped = jax.jit(make_model().apply)({'params': params}, images)
  np.testing.assert_array_equal(evaluated, undropped)


def test_training_without_rates_needs_no_key():
  output, _ = output_of(make_model(), train=True)
  assert output.shape == (2, 19)


def test_sown_weights_are_those_before_dropout():
  block = vit.MultiHeadDotProductAttention(3, dropout_rate=0.5)
  x = np.random.default_rng(0).normal(size=(2, 7, 15)).astype('f4')

  @jax.jit
  def weights_and_output(params):
    output, state = block.apply(
      {'params': params},
      x,
      train=True,
      mutable=['intermediates'],
      rngs={'dropout': jax.random.key(1)},
    )
    return state['intermediates']['attention_weights'][0], output

  weights, _ = weights_and_output(random_params(block, x.shape))
  np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)


def test_drop_path_drops_whole_branches_and_keeps_the_expectation():
  block = vit.EncoderBlock(num_heads=1, mlp_dim=3, drop_path_rate=0.25)
  x = np.random.default_rng(0).normal(size=(512, 2, 5)).astype('f4')
  params = random_params(block, x.shape)
  apply = jax.jit(block.apply, static_argnames='train')
  rngs = {'dropout': jax.random.key(3)}
  kept = []
  for module, layer in (
    ('MultiHeadDotProductAttention_0', 'out'), ('MlpBlock_0', 'Dense_1')
  ):  # fmt: skip
    # With one branch silenced, the other is the whole difference to the input.
    silent = jax.tree.map(np.zeros_like, params[module][layer])
    silenced = params | {module: params[module] | {layer: silent}}
    whole = apply({'params': silenced}, x, train=False) - x
    dropped = apply({'params': silenced}, x, train=True, rngs=rngs) - x
    kept.append(np.abs(dropped).max((1, 2)) > 0)
    # A branch is there for all tokens and channels, scaled up, or for none.
    wanted = np.where(kept[-1][:, None, None], whole / 0.75, 0)
    np.testing.assert_allclose(dropped, wanted, atol=1e-5)
    # The mean of 512 draws lies within four standard deviations.
    assert abs(kept[-1].mean() - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 512)
  # The two branches of a block are drawn apart.
  assert np.any(kept[0] != kept[1])


def test_drop_path_is_linear_in_depth():
  model = make_model(transformer={'drop_path_rate': 0.6, 'num_layers': 4})
  rates = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, vit.EncoderBlock):
      rates.append(context.module.drop_path_rate)
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    output_of(model)
  np.testing.assert_allclose(rates, [0, 0.2, 0.4, 0.6])
