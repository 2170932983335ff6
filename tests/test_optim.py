"""Schedules against recorded values, and what the optimisers do to a tree."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import parity
import pytest
from ml_collections import ConfigDict

from vit_jax import errors, optim

_CONFIG = {
  'optimizer': 'sgd',
  'optim_dtype': 'bfloat16',
  'grad_norm_clip': 1.0,
  'weight_decay': 0.1,
}


def _optimizer(lr=0.1, **overrides):
  return optim.make_optimizer(ConfigDict(_CONFIG | overrides), lambda _: lr)


@pytest.mark.parametrize('decay_type', ['cosine', 'linear'])
def test_schedule_equals_the_original(decay_type):
  schedule = optim.learning_rate_schedule(0.03, decay_type, 8, 3)
  expected = parity.expected()[f'schedule/{decay_type}_0.03_warmup3_total8']
  np.testing.assert_allclose(
    [schedule(step) for step in range(9)], expected, rtol=1e-6, atol=1e-12
  )


def test_constant_schedule_only_warms_up():
  schedule = optim.learning_rate_schedule(0.5, 'constant', 7, 2)
  rates = [float(schedule(jnp.int32(step))) for step in range(8)]
  assert rates == [0.0, 0.25] + [0.5] * 6


def test_schedule_without_warmup_starts_at_the_base():
  schedule = optim.learning_rate_schedule(0.5, 'cosine', 7, 0)
  assert schedule(jnp.int32(0)) == 0.5


def test_schedule_of_warmup_alone_is_finite():
  schedule = optim.learning_rate_schedule(0.5, 'linear', 3, 3)
  assert np.isfinite([float(schedule(step)) for step in range(5)]).all()


def test_momentum_accumulates_in_optim_dtype():
  params = {'kernel': jnp.ones((2, 3))}
  for dtype in ('bfloat16', 'float32'):
    state = _optimizer(optim_dtype=dtype).init(params)
    traces = [x for x in jax.tree.leaves(state) if x.shape == (2, 3)]
    assert [x.dtype for x in traces] == [dtype]


def test_sgd_is_clipped_momentum_descent():
  tx = _optimizer(optim_dtype='float32')
  params = {'kernel': jnp.array([3.0, 4.0])}
  grads = {'kernel': jnp.array([3.0, 4.0])}  # Norm 5, clipped to 1.
  state = tx.init(params)
  for expected in ([-0.06, -0.08], [-0.114, -0.152]):  # Momentum 0.9.
    updates, state = tx.update(grads, state, params)
    np.testing.assert_allclose(updates['kernel'], expected, rtol=1e-6)


@pytest.mark.parametrize('clip', [0.0, None])
def test_no_clipping_where_none_is_wanted(clip):
  tx = _optimizer(grad_norm_clip=clip, optim_dtype='float32')
  grads = {'kernel': jnp.array([30.0, 40.0])}
  updates, _ = tx.update(grads, tx.init(grads), grads)
  np.testing.assert_allclose(updates['kernel'], [-3.0, -4.0], rtol=1e-6)


def test_adamw_decays_kernels_only():
  tx = _optimizer(optimizer='adamw')
  params = {
    'Dense_0': {'kernel': jnp.ones((2, 3)), 'bias': jnp.ones(3)},
    'LayerNorm_0': {'scale': jnp.ones(3)},
    'pos_embedding': jnp.ones((1, 5, 3)),
  }
  zeros = jax.tree.map(jnp.zeros_like, params)
  updates, _ = tx.update(zeros, tx.init(params), params)
  after = optax.apply_updates(params, updates)
  np.testing.assert_allclose(after['Dense_0']['kernel'], 0.99, rtol=1e-6)
  del after['Dense_0']['kernel']
  assert all((leaf == 1).all() for leaf in jax.tree.leaves(after))


def test_unknown_names_are_answered_with_the_closest():
  with pytest.raises(errors.ConfigError, match="Did you mean 'cosine'"):
    optim.learning_rate_schedule(0.1, 'cosin', 8, 3)
  with pytest.raises(errors.ConfigError, match="Did you mean 'adamw'"):
    _optimizer(optimizer='adam')
  with pytest.raises(errors.ConfigError, match="Did you mean 'bfloat16'"):
    _optimizer(optim_dtype='float16')
