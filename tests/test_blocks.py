"""Scanned, recomputed and fused models are the plain one, dropout included."""

import functools

import jax
import numpy as np
import parity
import pytest
import trees
from ml_collections import ConfigDict
from small_model import CONFIG, IMAGE_SIZE, make_model, random_params
from trees import flat

from vit_jax import attention, errors, optim, train_step
from vit_jax.models import blocks, create_model

RATES = {
  'dropout_rate': 0.3,
  'attention_dropout_rate': 0.2,
  'drop_path_rate': 0.4,
}
MIXER = {
  'patches': {'size': (5, 3)},
  'hidden_dim': 11,
  'num_blocks': 3,
  'tokens_mlp_dim': 7,
  'channels_mlp_dim': 13,
}


def make(**kwargs):
  transformer = CONFIG['transformer'] | {'num_layers': 3} | RATES
  config = CONFIG | {'transformer': transformer}
  return create_model(config, 19, **kwargs)


def make_mixer(**kwargs):
  return create_model(MIXER, 19, **kwargs)


def loss_and_gradients(model, *, train=True, key=None):
  """Returns (loss, gradients in the published layout)."""
  params = train_step.as_in_state(model, random_params(model))
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  rngs = {'dropout': jax.random.key(3) if key is None else key}

  @jax.jit
  @jax.value_and_grad
  def loss(params):
    logits = model.apply({'params': params}, images, train=train, rngs=rngs)
    return (logits**2).mean()

  value, grads = loss(params)
  return value, blocks.unstack_layers(grads)


def assert_close(found, wanted, rtol=1e-5):
  np.testing.assert_allclose(found[0], wanted[0], rtol=rtol)
  found, wanted = flat(found[1]), flat(wanted[1])
  assert found.keys() == wanted.keys()
  largest = max(np.abs(array).max() for array in wanted.values())
  for name, array in wanted.items():
    error = np.abs(found[name] - array).max() / largest
    assert error < rtol, name


@pytest.fixture(scope='module')
def plain():
  return {
    'vit': loss_and_gradients(make()),
    'mixer': loss_and_gradients(make_mixer()),
  }


@pytest.mark.parametrize(('remat', 'scan_layers'), [
  ('none', True), ('dots', False), ('full', False), ('full', True),
])  # fmt: skip
def test_training_is_the_same_dropout_included(remat, scan_layers, plain):
  model = make(remat=remat, scan_layers=scan_layers)
  assert_close(loss_and_gradients(model), plain['vit'])


def test_a_mixer_is_the_same(plain):
  model = make_mixer(remat='dots', scan_layers=True)
  assert_close(loss_and_gradients(model), plain['mixer'])


def test_keys_of_the_old_kind_drop_the_same(plain):
  # As keys of that kind are made of the same numbers, so is what is dropped.
  key = jax.random.PRNGKey(3)
  found = loss_and_gradients(make(scan_layers=True), key=key)
  assert_close(found, plain['vit'])


@pytest.mark.parametrize('build', [make, make_mixer])
def test_evaluation_is_the_same_scanned_in_either_layout(build):
  params = random_params(build())
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  looped = jax.jit(build().apply)({'params': params}, images)
  scanned = jax.jit(build(scan_layers=True).apply)
  for layout in params, blocks.stack_layers(params):
    found = scanned({'params': layout}, images)
    assert parity.relative_error(found, looped) < 1e-6


@pytest.mark.parametrize('build', [make, make_mixer])
def test_first_parameters_are_the_same_scanned(build):
  looped, scanned = (
    jax.jit(functools.partial(train_step.init_params, model, image_size=15))(
      jax.random.key(0)
    )
    for model in (build(), build(scan_layers=True))
  )
  unstacked = jax.device_get(blocks.unstack_layers(scanned))
  trees.assert_same_bits(unstacked, looped)


def test_stacked_mixer_refuses_images_of_another_size():
  model = make_mixer(scan_layers=True)
  params = blocks.stack_layers(random_params(model))
  with pytest.raises(errors.ConfigError, match='this Mixer mixes 10'):
    model.apply({'params': params}, np.zeros((1, 22, 17, 3), 'f4'))


# --- Layouts of the parameters -----------------------------------------------


@pytest.mark.parametrize('build', [make, make_mixer])
def test_stacking_there_and_back(build):
  params = random_params(build())
  stacked = blocks.stack_layers(params)
  name = 'MixerBlock' if build is make_mixer else 'Transformer/encoderblock'
  for key, array in trees.flat(stacked).items():
    if not key.startswith(f'{name}/'):
      np.testing.assert_array_equal(array, trees.flat(params)[key])
      continue
    assert array.shape[0] == 3
    for i, layer in enumerate(array):
      one = trees.flat(params)[key.replace(name, f'{name}_{i}')]
      np.testing.assert_array_equal(layer, one)
  trees.assert_same_bits(blocks.unstack_layers(stacked), params)
  trees.assert_same_bits(
    jax.device_get(jax.jit(blocks.unstack_layers)(stacked)), params
  )
  trees.assert_same_bits(
    jax.device_get(jax.jit(blocks.stack_layers)(params)), stacked
  )


def test_stacks_are_in_the_order_of_the_numbers():
  params = {f'MixerBlock_{i}': {'b': np.full(1, i)} for i in (10, *range(10))}
  found = blocks.stack_layers(params)['MixerBlock']['b']
  assert found[:, 0].tolist() == [*range(11)]


def test_layers_of_numpy_arrays_are_views():
  stacked = {'MixerBlock': {'bias': np.zeros((3, 7))}}
  layers = blocks.unstack_layers(stacked)
  assert layers['MixerBlock_2']['bias'].base is stacked['MixerBlock']['bias']


def test_weights_of_stacks_are_decayed_as_those_of_blocks():
  schedule = optim.learning_rate_schedule(0.1, 'constant', 7, 0)
  config = ConfigDict({'optimizer': 'adamw', 'optim_dtype': 'float32'})
  config.update(weight_decay=0.1, grad_norm_clip=0.0)
  tx = optim.make_optimizer(config, schedule)

  def updates(params):
    zeros = jax.tree.map(np.zeros_like, params)
    return tx.update(zeros, tx.init(params), params)[0]

  params = random_params(make())
  found = blocks.unstack_layers(updates(blocks.stack_layers(params)))
  jax.tree.map(np.testing.assert_array_equal, found, updates(params))


def test_stacked_parameters_of_a_loop_are_an_error_that_tells_what_to_do():
  params = blocks.stack_layers(random_params(make()))
  images = np.zeros((1, *IMAGE_SIZE, 3), 'f4')
  for scan_layers, mutable in (False, False), (True, ['intermediates']):
    model = make(scan_layers=scan_layers)
    with pytest.raises(errors.ConfigError, match='unstack_layers.params.'):
      model.apply({'params': params}, images, mutable=mutable)


# --- What is compiled, and kept ----------------------------------------------


def num_products(jaxpr):
  """Returns how many matrix products there are, nested ones included."""
  count = 0
  for eqn in jaxpr.eqns:
    count += eqn.primitive.name == 'dot_general'
    for value in eqn.params.values():
      inner = getattr(value, 'jaxpr', value)
      count += num_products(inner) if hasattr(inner, 'eqns') else 0
  return count


@pytest.mark.parametrize('train', [False, True])
def test_a_scan_has_the_products_of_one_block(train):
  params = random_params(make())
  stacked = blocks.stack_layers(params)
  images = np.zeros((2, *IMAGE_SIZE, 3), 'f4')
  rngs = {'dropout': jax.random.key(3)}

  def products(model, params):
    jaxpr = jax.make_jaxpr(
      lambda p: model.apply({'params': p}, images, train=train, rngs=rngs)
    )(params)
    return num_products(jaxpr.jaxpr)

  # Four projections, two products and two dense layers a block; the head.
  assert products(make(), params) == 3 * 8 + 1
  assert products(make(scan_layers=True), stacked) == 8 + 1


def num_equations(jaxpr, primitive):
  return sum(eqn.primitive.name == primitive for eqn in jaxpr.eqns)


def test_keys_of_a_scan_are_folded_at_once():
  model = make(scan_layers=True)
  params = blocks.stack_layers(random_params(model))
  images = np.zeros((2, *IMAGE_SIZE, 3), 'f4')
  jaxpr = jax.make_jaxpr(
    lambda key: model.apply(
      {'params': params}, images, train=True, rngs={'dropout': key}
    )
  )(jax.random.key(3))
  # That of the dropout before the blocks, and those of all blocks.
  assert num_equations(jaxpr.jaxpr, 'random_fold_in') == 2


@pytest.mark.parametrize('scan_layers', [False, True])
def test_recomputing_keeps_less_for_the_backward_pass(scan_layers):
  params = random_params(make())
  images = np.zeros((31, *IMAGE_SIZE, 3), 'f4')
  rngs = {'dropout': jax.random.key(3)}

  def num_kept(remat):
    model = make(remat=remat, scan_layers=scan_layers)

    def backward(params):
      apply = functools.partial(model.apply, train=True, rngs=rngs)
      return jax.vjp(lambda p: apply({'params': p}, images), params)[1]

    kept = jax.tree.leaves(jax.eval_shape(backward, params))
    return sum(array.size for array in kept)

  none, dots, full = map(num_kept, ('none', 'dots', 'full'))
  assert full < 0.5 * dots
  assert dots < 0.5 * none


# --- Fused attention ---------------------------------------------------------


@pytest.mark.parametrize('classifier', ['token', 'map'])
@pytest.mark.parametrize('train', [False, True])
def test_fused_attention_is_the_same(classifier, train):
  models = (
    make_model(classifier=classifier).clone(attention=kind)
    for kind in ('plain', 'fused')
  )
  plain, fused = (loss_and_gradients(m, train=train) for m in models)
  assert_close(fused, plain)


def test_fused_attention_gives_way_to_who_asks_for_weights():
  params = random_params(make_model())
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  wanted = attention.attention_weights(make_model(), params, images)
  model = make_model().clone(attention='fused', scan_layers=True, remat='full')
  found = attention.attention_weights(model, params, images)
  np.testing.assert_array_equal(found, wanted)
  _, state = jax.jit(
    lambda p: model.apply({'params': p}, images, mutable=['intermediates'])
  )(params)
  layers = state['intermediates']['Transformer']
  for i in range(2):
    layer = layers[f'encoderblock_{i}']['MultiHeadDotProductAttention_0']
    np.testing.assert_allclose(
      layer['attention_weights'][0], wanted[i], atol=1e-6
    )


def test_attention_dropout_is_not_lost_to_fused_attention(plain):
  found = loss_and_gradients(make(attention='fused'))
  assert_close(found, plain['vit'])


@pytest.mark.parametrize(('field', 'value'), [
  ('attention', 'flash'), ('remat', 'all'),
])  # fmt: skip
def test_unknown_choices(field, value):
  with pytest.raises(errors.ConfigError, match=f"Unknown {field} '{value}'"):
    make(**{field: value})
