"""The Vision Transformer against numpy, its shapes and attention weights."""

import functools
import re

import jax
import numpy as np
import parity
import pytest
import reference
from flax import traverse_util
from small_model import IMAGE_SIZE, make_model, output_of, random_params

import vit_jax
from vit_jax import errors
from vit_jax.models import positions

# Parameters of what is added to the tokens, layer by layer.
ADDED = re.compile('cls|embedding|/out/|/Dense_1/')

# --- Against numpy -----------------------------------------------------------


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
    wanted = reference.vit_logits(
      traverse_util.flatten_dict(scaled, sep='/'),
      images,
      patch=(5, 3),
      num_heads=3,
      classifier=pooling,
    )
    logits = apply({'params': scaled}, images)
    assert logits.shape == (2, 19)
    assert parity.relative_error(logits, wanted) < 1e-5


@pytest.mark.parametrize(('classifier', 'position_embedding', 'gelu'), [
  ('map', 'learned', 'tanh'),
  ('map', 'sincos2d', 'exact'),
  ('token', 'sincos2d', 'tanh'),
  ('token', 'learned', 'exact'),
  ('gap', 'sincos2d', 'exact'),
  ('unpooled', 'sincos2d', 'tanh'),
  ('token_unpooled', 'sincos2d', 'exact'),
])  # fmt: skip
def test_variants_equal_numpy(classifier, position_embedding, gelu):
  fields = {'classifier': classifier, 'position_embedding': position_embedding}
  model = make_model(hidden_size=12, gelu=gelu, **fields)
  params = random_params(model)
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  found = jax.jit(model.apply)({'params': params}, images)
  flat = traverse_util.flatten_dict(params, sep='/')
  logits = functools.partial(
    reference.vit_logits, flat, images, patch=(5, 3), num_heads=3, **fields
  )
  assert parity.relative_error(found, logits(gelu=gelu)) < 1e-5
  # What is compared would show the other GELU.
  other = {'tanh': 'exact', 'exact': 'tanh'}[gelu]
  assert parity.relative_error(found, logits(gelu=other)) > 5e-5


def test_gelu_of_the_call_goes_before_the_config():
  config = vit_jax.model_config('tiny')
  assert vit_jax.create_model(config, 7).gelu == 'tanh'
  assert vit_jax.create_model(config, 7, gelu='exact').gelu == 'exact'
  config.gelu = 'exact'
  assert vit_jax.create_model(config, 7).gelu == 'exact'
  assert vit_jax.create_model(config, 7, gelu='tanh').gelu == 'tanh'
  with pytest.raises(errors.ConfigError, match="Unknown gelu 'erf'"):
    vit_jax.create_model(config, 7, gelu='erf')


# --- Positions and pooling ---------------------------------------------------


@pytest.mark.parametrize(('grid', 'width'), [
  ((3, 5), 28), ((7, 2), 4), ((1, 1), 8), ((37, 53), 12),
])  # fmt: skip
def test_sines_and_cosines(grid, width):
  found = jax.jit(lambda: positions.sincos2d(grid, width))()
  assert found.shape == (grid[0] * grid[1], width)
  assert found.dtype == np.float32
  wanted = reference.sincos2d(grid, width)
  np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_sines_have_no_parameter():
  learned, fixed = (
    output_of(make_model(hidden_size=12, position_embedding=kind))[1]['params']
    for kind in ('learned', 'sincos2d')
  )
  assert 'posembed_input' not in fixed['Transformer']
  del learned['Transformer']['posembed_input']
  assert learned == fixed


def test_width_that_sines_and_cosines_cannot_share():
  with pytest.raises(errors.ConfigError, match='hidden_size 21 is not a multi'):
    make_model(position_embedding='sincos2d')


def test_parameters_of_attention_pooling():
  _, variables = output_of(make_model(classifier='map'))
  params = traverse_util.flatten_dict(variables['params'], sep='/')
  found = {
    key.removeprefix('MAPHead_0/'): array.shape
    for key, array in params.items()
    if key.startswith('MAPHead_0/')
  }
  attention = 'MultiHeadDotProductAttention_0'
  projections = {
    f'{attention}/{name}/{kind}': shape
    for name in ('query', 'key', 'value')
    for kind, shape in {'kernel': (21, 3, 7), 'bias': (3, 7)}.items()
  }
  assert found == projections | {
    'probe': (1, 1, 21),
    f'{attention}/out/kernel': (3, 7, 21),
    f'{attention}/out/bias': (21,),
    'LayerNorm_0/scale': (21,),
    'LayerNorm_0/bias': (21,),
    'MlpBlock_0/Dense_0/kernel': (21, 13),
    'MlpBlock_0/Dense_0/bias': (13,),
    'MlpBlock_0/Dense_1/kernel': (13, 21),
    'MlpBlock_0/Dense_1/bias': (21,),
  }


def test_attention_pooling_in_bfloat16():
  model = make_model(classifier='map', dtype='bfloat16')
  output, variables = output_of(model, capture_intermediates=True, mutable=True)
  assert output.dtype == np.float32
  layers = variables['intermediates']['MAPHead_0']
  (weights,) = layers['MultiHeadDotProductAttention_0'].pop('attention_weights')
  assert weights.shape == (2, 3, 1, 10)
  assert weights.dtype == np.float32
  assert {str(x.dtype) for x in jax.tree.leaves(layers)} == {'bfloat16'}


# --- Shapes ------------------------------------------------------------------


@pytest.mark.parametrize(('num_classes', 'representation_size', 'width'), [
  (19, None, 19), (19, 7, 19), (None, None, 21), (None, 7, 7),
])  # fmt: skip
@pytest.mark.parametrize(('classifier', 'tokens'), [
  ('token', ()), ('gap', ()), ('map', ()),
  ('unpooled', (10,)), ('token_unpooled', (11,)),
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
