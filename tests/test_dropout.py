"""Dropout and drop-path: where, how often, and by which key."""

import math

import flax.linen as nn
import jax
import numpy as np
import parity
import pytest
from small_model import IMAGE_SIZE, make_model, output_of, random_params

from vit_jax.models import attention, encoder

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
  block = attention.MultiHeadDotProductAttention(3, dropout_rate=0.5)
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

  weights, _ = weights_and_output(random_params(block, x.shape, train=False))
  np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)


def test_drop_path_drops_whole_branches_and_keeps_the_expectation():
  block = encoder.EncoderBlock(num_heads=1, mlp_dim=3, drop_path_rate=0.25)
  x = np.random.default_rng(0).normal(size=(512, 2, 5)).astype('f4')
  params = random_params(block, x.shape, train=False)
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


@pytest.mark.parametrize('train', [True, False])
def test_where_and_how_often_is_dropped(train):
  rates = {
    'dropout_rate': 0.3,
    'attention_dropout_rate': 0.1,
    'drop_path_rate': 0.6,
  }
  model = make_model(transformer=rates | {'num_layers': 4})
  found = []

  def record(call, args, kwargs, context):
    if isinstance(context.module, nn.Dropout):
      found.append(context.module.rate)
      assert context.module.deterministic == (not train)
    return call(*args, **kwargs)

  with nn.intercept_methods(record):
    output_of(model, train=train)
  wanted = [0.3]  # The embedded tokens.
  for depth in range(4):
    path = 0.2 * depth  # Linear, so that the first block is always kept.
    wanted += [0.1, 0.3, path]  # Attention weights, its output, its branch.
    wanted += [0.3, 0.3, path]  # Both layers of the MLP, its branch.
  np.testing.assert_allclose(found, wanted)
