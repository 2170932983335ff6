"""Updates that are not finite are left out; the loss scale against a loop."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from vit_jax import guard, optim, train_step

SGD = ConfigDict(
  {'optimizer': 'sgd', 'optim_dtype': 'bfloat16', 'grad_norm_clip': 1.0}
)


class SlowScale:
  """The loss scale in plain Python."""

  def __init__(self):
    self.scale, self.num_good = 2.0**15, 0
    self.num_overflows = self.num_skipped = 0

  def step(self, is_loss_finite, are_grads_finite):
    if is_loss_finite and are_grads_finite:
      self.num_good += 1
      if self.num_good == 2000:
        self.scale, self.num_good = min(self.scale * 2, 2.0**24), 0
      return
    self.num_good = 0
    if is_loss_finite and self.scale > 1:
      self.scale /= 2
      self.num_overflows += 1
    else:
      self.num_skipped += 1


def make(scales_loss=True):
  schedule = optim.learning_rate_schedule(0.1, 'constant', 7, 0)
  tx = optim.make_optimizer(SGD, schedule)
  return tx, guard.guarded(tx, scales_loss=scales_loss)


@pytest.mark.parametrize('rate', [0.0, 0.001, 0.3, 0.9])
def test_scale_equals_a_slow_one(rate):
  rng = np.random.default_rng(0)
  num_steps = 23_000  # Without an overflow, long enough for the largest scale.
  is_loss_finite = rng.random(num_steps) >= rate / 10
  are_grads_finite = rng.random(num_steps) >= rate
  tx = guard.guarded(optax.sgd(0.1), scales_loss=True)

  @jax.jit
  def run(losses, grads):
    def step(state, xs):
      loss, grad = xs
      _, state = tx.update({'w': grad}, state, loss=loss)
      return state, (state.loss_scale, state.num_skipped)

    return jax.lax.scan(step, tx.init({'w': jnp.float32(1)}), (losses, grads))

  _, (found, num_skipped) = run(
    np.where(is_loss_finite, 1, np.nan).astype('f4'),
    np.where(are_grads_finite, 1, np.inf).astype('f4'),
  )
  slow, wanted = SlowScale(), []
  for flags in zip(is_loss_finite, are_grads_finite, strict=True):
    slow.step(*flags)
    counts = slow.num_good, slow.num_overflows, slow.num_skipped
    wanted.append((slow.scale, *counts))
  np.testing.assert_array_equal(
    np.stack([*found, num_skipped], axis=1), np.array(wanted)
  )
  ends = {0.0: 2.0**24, 0.9: 1.0}
  assert slow.scale == ends.get(rate, slow.scale)


@pytest.mark.parametrize('bad', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize('where', ['loss', 'grads'])
@pytest.mark.parametrize('scales_loss', [False, True])
def test_a_bad_update_changes_no_bit(scales_loss, where, bad):
  _, tx = make(scales_loss)
  params = {'w': jnp.array([0.0, -0.0, 3.0]), 'b': jnp.float32(5)}
  grads = {'w': jnp.array([1.0, 2.0, 3.0]), 'b': jnp.float32(7)}
  update = jax.jit(tx.update)
  _, state = update(grads, tx.init(params), params, loss=jnp.float32(1))
  loss = jnp.float32(bad if where == 'loss' else 1)
  if where == 'grads':
    grads['b'] = jnp.float32(bad)
  updates, after = update(grads, state, params, loss=loss)
  for found, wanted in (
    (optax.apply_updates(params, updates), params),
    (after.inner, state.inner),
  ):
    for one, other in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
      assert np.asarray(one).tobytes() == np.asarray(other).tobytes()
  is_overflow = scales_loss and where == 'grads'
  assert after.num_skipped == (0 if is_overflow else 1)
  if scales_loss:
    assert after.loss_scale.scale == (2.0**14 if is_overflow else 2.0**15)


@pytest.mark.parametrize('scales_loss', [False, True])
def test_good_updates_are_those_without_a_guard(scales_loss):
  plain, tx = make(scales_loss)
  params = {'w': jnp.array([1.0, 2.0, 3.0])}
  grads = {'w': jnp.array([0.5, -2.0, 3.0])}
  wanted, plain_state = plain.update(grads, plain.init(params), params)
  found, state = tx.update(grads, tx.init(params), params, loss=jnp.float32(1))
  for one, other in (found, wanted), (state.inner, plain_state):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(('dtype', 'on_nonfinite', 'guarded', 'scaled'), [
  ('float32', 'stop', False, False),
  ('bfloat16', 'stop', False, False),
  ('float32', 'skip', True, False),
  ('float16', 'stop', True, True),
  ('float16', 'skip', True, True),
])  # fmt: skip
def test_state_is_larger_only_where_asked(dtype, on_nonfinite, guarded, scaled):
  tx = optax.sgd(0.1, momentum=0.9)
  config = ConfigDict({'dtype': dtype, 'on_nonfinite': on_nonfinite})
  params = {'w': jnp.ones(3)}
  plain = tx.init(params)
  state = guard.guard_for(config, tx).init(params)
  is_guarded = isinstance(state, guard.GuardState)
  assert is_guarded == guarded
  inner = state.inner if isinstance(state, guard.GuardState) else state
  assert jax.tree.structure(inner) == jax.tree.structure(plain)
  assert (guard.scale_of(state) is not None) == scaled


# --- In the training step ----------------------------------------------------


class Line:
  """A model of one product, in a dtype: logits are images times weights."""

  num_classes = 3

  def __init__(self, dtype='float32'):
    self._dtype = dtype

  def apply(self, variables, images, **_):
    weights = variables['params']['kernel'].astype(self._dtype)
    logits = images[:, 0, 0, :].astype(self._dtype) @ weights
    return logits.astype('float32')


def stepper(tx, dtype='float32', accum_steps=1):
  step = jax.jit(
    lambda state, batch: train_step.train_step(
      state,
      batch,
      jax.random.key(0),
      model=Line(dtype),
      tx=tx,
      schedule=lambda count: 0.1 + count,
      transform=lambda keys, images: images,
      accum_steps=accum_steps,
    )
  )
  params = {'kernel': jnp.eye(3) * 0.5}
  return step, train_step.init_state(params, tx)


def batch_of(value=1.0, rows=4):
  images = np.random.default_rng(0).normal(size=(rows, 1, 1, 3)).astype('f4')
  images[0] *= np.float32(value)
  return {'image': images, 'label': np.arange(rows, dtype='i4') % 3}


@pytest.mark.parametrize('accum_steps', [1, 2])
def test_step_counts_on_and_the_rest_stays(accum_steps):
  _, tx = make(scales_loss=False)
  step, state = stepper(tx, accum_steps=accum_steps)
  state, metrics = step(state, batch_of())
  assert not metrics['left_out']
  after, metrics = step(state, batch_of(np.nan))
  assert metrics['left_out']
  assert metrics['num_skipped'] == 1
  assert after.step == 2
  np.testing.assert_array_equal(after.params['kernel'], state.params['kernel'])
  # The rate is that of the update which is next: one has been made.
  _, metrics = step(after, batch_of())
  assert metrics['learning_rate'] == pytest.approx(1.1)
  assert metrics['num_skipped'] == 1


@pytest.mark.parametrize('accum_steps', [1, 2])
def test_scaling_changes_no_bit_of_float32(accum_steps):
  plain, tx = make()
  step, state = stepper(plain, accum_steps=accum_steps)
  scaled_step, scaled = stepper(tx, accum_steps=accum_steps)
  for _ in range(3):
    state, metrics = step(state, batch_of())
    scaled, scaled_metrics = scaled_step(scaled, batch_of())
    for name, value in metrics.items():
      assert scaled_metrics[name] == value, name
  np.testing.assert_array_equal(scaled.params['kernel'], state.params['kernel'])


def test_scale_keeps_gradients_that_float16_has_no_number_for():
  # Such inputs make gradients of 1e-8, which are zero in float16.
  plain, tx = make()
  batch = batch_of()
  batch['image'] *= np.float32(1e-7)
  norms = {}
  for name, (optimizer, dtype) in {
    'wanted': (plain, 'float32'),
    'unscaled': (plain, 'float16'),
    'scaled': (tx, 'float16'),
  }.items():
    step, state = stepper(optimizer, dtype)
    norms[name] = float(step(state, batch)[1]['grad_norm'])
  assert norms['unscaled'] == 0
  # Of 1e-7 itself float16 has but one digit.
  assert norms['scaled'] == pytest.approx(norms['wanted'], rel=0.5)


def test_overflow_lowers_the_scale_until_it_fits():
  _, tx = make()
  step, state = stepper(tx, 'float16')
  batch = batch_of(30.0)
  left_out, scales, metrics = [], [], {}
  for _ in range(8):
    state, metrics = step(state, batch)
    left_out.append(bool(metrics['left_out']))
    scales.append(float(metrics['loss_scale']))
    assert bool(metrics['is_overflow']) == left_out[-1]
    assert np.isfinite(metrics['loss'])
  # At first it overflows, then never.
  count = sum(left_out)
  assert left_out == [True] * count + [False] * (8 - count)
  assert 0 < count < 8
  wanted = [2.0 ** (15 - min(i, count)) for i in range(8)]
  assert scales == wanted
  assert metrics['num_skipped'] == 0
  assert np.isfinite(state.params['kernel']).all()
