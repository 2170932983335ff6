"""The training step against the original, and its independence of the rest."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from ml_collections import ConfigDict

import vit_jax
from configs import vit
from vit_jax import checkpoints, optim, sharding, train_step

_SGD = ConfigDict(
  {'optimizer': 'sgd', 'optim_dtype': 'bfloat16', 'grad_norm_clip': 1.0}
)


def _no_transform(keys, images):
  del keys
  return images


def _model(num_classes=5, **rates):
  config = vit_jax.model_config('tiny')
  config.classifier = 'token'
  config.patches.size = (3, 3)
  config.hidden_size = 14
  config.transformer.update(mlp_dim=22, num_heads=2, num_layers=2, **rates)
  return vit_jax.create_model(config, num_classes)


def _batch(size, num_classes=5, side=6):
  rng = np.random.default_rng(0)
  return {
    'image': rng.normal(size=(size, side, side, 3)).astype(np.float32),
    'label': rng.integers(0, num_classes, size).astype(np.int32),
  }


def _setup(model, **kwargs):
  """Returns a fresh state with a lively head, and the jitted step."""
  schedule = optim.learning_rate_schedule(0.1, 'constant', 7, 0)
  tx = optim.make_optimizer(_SGD, schedule)
  params = train_step.init_params(model, jax.random.key(0), 6)
  params['head']['kernel'] = jax.random.normal(
    jax.random.key(1), params['head']['kernel'].shape
  )
  step = functools.partial(
    train_step.train_step,
    model=model,
    tx=tx,
    schedule=schedule,
    transform=kwargs.pop('transform', _no_transform),
    **kwargs,
  )
  return train_step.init_state(params, tx), jax.jit(step)


@pytest.mark.parametrize(
  # Rounding decides how far the trainings stay together. Starting from weights
  # that differ in their last bit, the hybrid's logits end 3e-3 to 5e-3 from the
  # recorded ones: bfloat16 momentum rounds differently after a few steps.
  ('name', 'accum_steps', 'num_close', 'loss_atol', 'logits_error'),
  [
    ('mini-vit', 1, 8, 2e-6, 1e-4),
    ('mini-vit', 4, 8, 2e-6, 1e-4),
    ('mini-hybrid', 1, 5, 1e-5, 1e-2),
    pytest.param('mini-hybrid', 4, 5, 1e-5, 1e-2, marks=pytest.mark.slow),
  ],
)
def test_eight_steps_equal_the_original(
  name, num_close, loss_atol, logits_error, accum_steps, checkpoint_file
):
  spec = parity.configs()[name]
  size, num_classes = spec['image_size'], spec['num_classes']
  model = vit_jax.create_model(ConfigDict(spec['config']), num_classes)
  params = checkpoints.load_pretrained(checkpoint_file(name), model, size)
  params['head'] = jax.tree.map(np.zeros_like, params['head'])
  schedule = optim.learning_rate_schedule(0.03, 'cosine', 8, 3)
  tx = optim.make_optimizer(_SGD, schedule)
  state = train_step.init_state(params, tx)
  step = jax.jit(
    functools.partial(
      train_step.train_step,
      model=model,
      tx=tx,
      schedule=schedule,
      transform=_no_transform,
      accum_steps=accum_steps,
    )
  )
  losses = []
  for i in range(8):
    rng = np.random.default_rng(2000 + i)
    batch = {
      'image': parity.make_images(16, size, size, 1000 + i),
      'label': rng.integers(0, num_classes, 16),
    }
    state, metrics = step(state, batch, jax.random.key(0))
    losses.append(metrics['loss'])
  logits = model.apply(
    {'params': state.params}, parity.make_images(2, size, size, 0)
  )
  expected = parity.expected()
  prefix = f'{name}/train_accum{accum_steps}_'
  np.testing.assert_allclose(
    losses[:num_close],
    expected[prefix + 'losses'][:num_close],
    rtol=0,
    atol=loss_atol,
  )
  np.testing.assert_allclose(
    losses, expected[prefix + 'losses'], rtol=0, atol=1e-3
  )
  error = parity.relative_error(logits, expected[prefix + 'logits'])
  assert error < logits_error


def test_accumulation_gives_the_gradient_of_the_whole_batch():
  batch = _batch(12)
  results = []
  for accum_steps in (1, 3):
    state, step = _setup(_model(), accum_steps=accum_steps)
    after, metrics = step(state, batch, jax.random.key(0))
    results.append((after.params, metrics))
  for one, three in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(one, three, rtol=2e-5, atol=1e-6)


def test_each_micro_batch_has_its_own_dropout():
  # Every row the same, so micro-batches differ by their dropout alone: with one
  # key for all of them, two would do what one does.
  model = _model(dropout_rate=0.5)
  row = _batch(1)
  grad_norms = []
  for copies, accum_steps in ((1, 1), (2, 2), (3, 3)):
    batch = {k: np.repeat(v, copies, axis=0) for k, v in row.items()}
    state, step = _setup(model, accum_steps=accum_steps)
    _, metrics = step(state, batch, jax.random.key(0))
    grad_norms.append(float(metrics['grad_norm']))
  assert len(set(grad_norms)) == 3


def test_dropout_follows_the_step_and_the_key():
  state, step = _setup(_model(dropout_rate=0.5))
  batch = _batch(3)

  def loss(step_number, seed):
    at = state.replace(step=jnp.int32(step_number))
    return float(step(at, batch, jax.random.key(seed))[1]['loss'])

  assert loss(0, 0) == loss(0, 0)
  assert len({loss(0, 0), loss(1, 0), loss(0, 1)}) == 3


def test_each_image_is_transformed_with_its_own_key():
  def noise(keys, images):
    del images
    return jax.vmap(lambda key: jax.random.normal(key, (6, 6, 3)))(keys)

  seen = []

  def spy(keys, images):
    inputs = noise(keys, images)
    jax.debug.callback(lambda x: seen.append(np.asarray(x)), inputs)
    return inputs

  state, step = _setup(_model(), transform=spy, accum_steps=2)
  step(state, _batch(6), jax.random.key(0))
  jax.effects_barrier()
  rows = np.concatenate(seen).reshape(6, -1)
  assert len(np.unique(rows, axis=0)) == 6


def test_first_update_of_a_warmup_changes_nothing():
  model = _model()
  schedule = optim.learning_rate_schedule(0.1, 'cosine', 7, 2)
  tx = optim.make_optimizer(_SGD, schedule)
  params = train_step.init_params(model, jax.random.key(0), 6)
  state = train_step.init_state(params, tx)
  after, metrics = train_step.train_step(
    state,
    _batch(3),
    jax.random.key(0),
    model=model,
    tx=tx,
    schedule=schedule,
    transform=_no_transform,
  )
  assert metrics['learning_rate'] == 0
  assert after.step == 1
  jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_label_smoothing_is_cross_entropy_to_a_smoothed_target():
  logits = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
  labels = np.array([4, 0, 2])
  targets = np.full((3, 5), 0.3 / 5)
  targets[np.arange(3), labels] += 0.7
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  np.testing.assert_allclose(
    train_step.softmax_cross_entropy(logits, np.eye(5)[labels], 0.3),
    -(targets * log_probs).sum(-1).mean(),
    rtol=1e-6,
  )


def test_gradient_equals_finite_differences():
  with jax.enable_x64(True):  # In float32 small steps drown in rounding.
    model = _model(num_classes=3).clone(
      dtype=jnp.float64, param_dtype=jnp.float64
    )
    rng = np.random.default_rng(0)
    params = train_step.init_params(model, jax.random.key(0), 6)
    params['head']['kernel'] = rng.normal(size=params['head']['kernel'].shape)
    params['cls'] = rng.normal(size=params['cls'].shape)
    direction = jax.tree.map(lambda p: rng.normal(size=p.shape), params)
    batch = _batch(4, num_classes=3)

    @jax.jit
    def loss(distance):
      moved = jax.tree.map(lambda p, d: p + distance * d, params, direction)
      logits = model.apply({'params': moved}, batch['image'])
      targets = jax.nn.one_hot(batch['label'], 3)
      return train_step.softmax_cross_entropy(logits, targets)

    step = 1e-4
    numeric = (loss(step) - loss(-step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(loss)(0.0), numeric, rtol=2e-3)


def test_bfloat16_computes_but_keeps_float32_parameters_and_loss():
  config = vit_jax.model_config('tiny')
  config.transformer.num_layers = 1
  model = vit_jax.create_model(config, 5, dtype='bfloat16')
  state, step = _setup(model)
  after, metrics = step(state, _batch(3), jax.random.key(0))
  assert {str(p.dtype) for p in jax.tree.leaves(after.params)} == {'float32'}
  assert metrics['loss'].dtype == jnp.float32
  text = str(jax.make_jaxpr(step)(state, _batch(3), jax.random.key(0)))
  products = [line for line in text.splitlines() if 'dot_general[' in line]
  assert products
  assert all('bf16' in line.split('=')[0] for line in products[:3])


def test_mixup_trains_on_blended_targets():
  # Two examples with the same image: whatever the weight, the blend of the
  # images is the image, and only the targets tell that they were mixed.
  batch = {
    'image': np.repeat(_batch(1)['image'], 2, axis=0),
    'label': np.array([0, 3], np.int32),
  }
  gradients = []
  for mixup_alpha in (0.0, 5.0):
    state, step = _setup(_model(), mixup_alpha=mixup_alpha)
    logits = _model().apply({'params': state.params}, batch['image'])
    _, metrics = step(state, batch, jax.random.key(0))
    # The two rows' mean loss is the same for any weight ...
    np.testing.assert_allclose(
      metrics['loss'],
      train_step.softmax_cross_entropy(logits, np.eye(5)[batch['label']]),
      rtol=1e-5,
    )
    gradients.append(float(metrics['grad_norm']))
  # ... and so is its gradient.
  np.testing.assert_allclose(*gradients, rtol=1e-4)


def test_jitted_step_takes_all_of_the_state():
  config = vit.get_config('tiny,digits')
  config.pp.crop = 8
  model = vit_jax.create_model('tiny', 10)
  schedule = optim.learning_rate_schedule(0.1, 'constant', 7, 0)
  tx = optim.make_optimizer(config, schedule)
  mesh = sharding.make_mesh()
  params = train_step.init_params(model, jax.random.key(0), 8)
  shardings = sharding.tree_shardings(mesh, train_step.init_state(params, tx))
  state = jax.device_put(train_step.init_state(params, tx), shardings)
  step = train_step.make_train_step(
    model, tx, schedule, config, cropped=False, shardings=shardings, mesh=mesh
  )
  batch = {'image': np.zeros((2, 8, 8, 3), 'uint8'), 'label': np.zeros(2, 'i4')}
  after, _ = step(state, batch, jax.random.key(0))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after))
