"""What is done to batches: mixed, repeated, and by the names of presets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

from configs import vit
from vit_jax import config_checks, errors, train_step
from vit_jax.data import augment, pipeline, sources

_HEIGHT, _WIDTH = 11, 13


def _batch(size=6, num_classes=7):
  rng = np.random.default_rng(0)
  images = rng.normal(size=(size, _HEIGHT, _WIDTH, 3)).astype(np.float32)
  return images, np.eye(num_classes, dtype=np.float32)[np.arange(size)]


def test_cutmix_pastes_one_box_and_blends_targets_by_its_area():
  images, targets = _batch()
  cutmix = jax.jit(lambda key: augment.cutmix(key, images, targets, 1.0))
  shares = []
  for seed in range(29):
    mixed, blended = map(np.asarray, cutmix(jax.random.key(seed)))
    is_other = (mixed != images).any(axis=-1)
    assert (is_other == is_other[0]).all()
    rows, columns = (np.flatnonzero(is_other[0].any(axis=i)) for i in (1, 0))
    if len(rows):
      box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
      assert is_other[0][box].all()
      np.testing.assert_array_equal(
        mixed[:, *box], images[::-1][:, *box], strict=True
      )
    share = is_other[0].mean()
    np.testing.assert_allclose(
      blended, (1 - share) * targets + share * targets[::-1], atol=1e-6
    )
    shares.append(share)
  assert min(shares) < 0.1
  assert max(shares) > 0.6


def test_mix_of_none_and_of_one_is_what_it_says():
  images, targets = _batch()
  key = jax.random.key(3)
  for alphas, expected in {
    (0.0, 0.0): (images, targets),
    (0.5, 0.0): augment.mixup(key, images, targets, 0.5),
    (0.0, 0.5): augment.cutmix(key, images, targets, 0.5),
  }.items():
    found = augment.mix(key, images, targets, *alphas)
    for a, b in zip(found, expected, strict=True):
      np.testing.assert_array_equal(a, b)


def test_mix_of_both_does_each_half_of_the_time():
  images, targets = _batch()
  mix = jax.jit(lambda key: augment.mix(key, images, targets, 9.0, 9.0))
  num_cut = 0
  for seed in range(41):
    mixed, _ = mix(jax.random.key(seed))
    # Mixup with so large an alpha leaves no pixel as it was.
    num_cut += bool((mixed == images).any())
  assert 12 < num_cut < 29


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('none', (0.0, 0, 0)),
    ('light1', (0.0, 2, 0)),
    ('light2', (0.2, 2, 10)),
    ('medium1', (0.2, 2, 15)),
    ('medium2', (0.5, 2, 15)),
    ('strong1', (0.5, 2, 20)),
    ('strong2', (0.8, 2, 20)),
  ],
)
def test_presets_are_those_of_the_paper(name, expected):
  config = vit.get_config('tiny,digits')
  assert augment.mixup_alpha(config) == config.mixup_alpha == 0.2
  config.pp.preset = name
  assert augment.find_preset(config.pp) == expected
  assert augment.mixup_alpha(config) == expected[0]
  assert len(augment.PRESETS) == 7


def _pp(**changes):
  pp = vit.get_config('tiny,digits').pp
  pp.update(augment='none', crop=_WIDTH, **changes)
  return pp


def _transformed(keys, images, **changes):
  transform = augment.train_transform(_pp(**changes), cropped=False)
  return np.asarray(jax.jit(transform)(keys, images))


@pytest.fixture(scope='module')
def images():
  rng = np.random.default_rng(0)
  return rng.integers(0, 256, (5, _WIDTH, _WIDTH, 3)).astype(np.uint8)


@pytest.fixture(scope='module')
def keys():
  return jax.random.split(jax.random.key(0), 5)


def test_preset_none_and_missing_fields_leave_images_alone(keys, images):
  plain = np.asarray(augment.normalize(images))
  for result in (
    _transformed(keys, images, preset='none'),
    _transformed(keys, images, policy='none'),
  ):
    np.testing.assert_allclose(result, plain, atol=1e-5)
  pp = ConfigDict({'crop': _WIDTH, 'augment': 'none'})
  result = augment.train_transform(pp, cropped=False)(keys, images)
  np.testing.assert_allclose(result, plain, atol=1e-5)


def test_preset_overrules_the_fields_it_stands_for(keys, images):
  by_preset = _transformed(
    keys, images, preset='medium2', policy='trivialaugment'
  )
  by_fields = _transformed(
    keys,
    images,
    policy='randaugment',
    randaugment={'num_layers': 2, 'magnitude': 15},
  )
  np.testing.assert_array_equal(by_preset, by_fields)
  # Whole levels, as the models of the paper were trained on.
  levels = by_preset * 127.5 + 127.5
  np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)


def test_policy_jitter_and_erasing_go_together(keys, images):
  settings = {'policy': 'trivialaugment', 'color_jitter': {'brightness': 0.4}}
  before = _transformed(keys, images, **settings)
  after = _transformed(keys, images, **settings, erasing=1.0)
  is_erased = (before != after).any(axis=-1)
  assert 0.01 < is_erased.mean() < 0.45
  # No row depends on the others.
  others = images.copy()
  others[1:] = 255 - others[1:]
  alone = _transformed(keys, others, **settings)
  np.testing.assert_array_equal(alone[0], before[0])
  assert (alone[1:] != before[1:]).any()


@pytest.mark.parametrize('batch', [6, 12])
def test_examples_are_repeated_in_a_batch(batch):
  config = vit.get_config('tiny,digits')
  config.update(batch=batch, num_threads=0)
  labels = np.arange(17, dtype=np.int32)
  images = labels[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
  source = sources.Source(
    'small', 'train', ('a',) * 17, labels=labels, images=images.astype(np.uint8)
  )

  def stream(start, repeats):
    config.pp.repeats = repeats
    batches = pipeline.train_batches(config, start, source)
    return np.concatenate([next(batches)['label'] for _ in range(36 // batch)])

  single = stream(0, 1)
  repeated = stream(0, 3)
  np.testing.assert_array_equal(repeated, np.repeat(single[:12], 3))
  # A run that begins later has the same batches.
  np.testing.assert_array_equal(stream(1, 3)[:batch], repeated[batch:][:batch])


class _Recorder:
  """Stands for a model, and keeps what it is given."""

  num_classes = 5

  def __init__(self):
    self.inputs, self.targets = [], []

  def apply(self, variables, inputs, train, rngs):
    del train, rngs
    jax.debug.callback(self.inputs.append, inputs, ordered=True)
    means = inputs.mean(axis=(1, 2, 3))[:, None]
    return variables['params']['scale'] * means * jnp.arange(5.0)


@pytest.mark.parametrize('accum_steps', [1, 3])
def test_inputs_told_are_those_that_the_step_has(accum_steps, monkeypatch):
  config = vit.get_config('tiny,digits')
  config.pp.update(augment='crop_flip', crop=5)
  config.update(accum_steps=accum_steps, cutmix_alpha=1.0)
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.integers(0, 256, (6, 7, 7, 3)).astype(np.uint8),
    'label': np.arange(6, dtype=np.int32) % 5,
  }
  model = _Recorder()

  def loss(logits, targets, smoothing):
    del smoothing
    jax.debug.callback(model.targets.append, targets, ordered=True)
    return logits.mean()

  monkeypatch.setattr(train_step, 'softmax_cross_entropy', loss)
  tx = optax.sgd(0.1)
  state = train_step.init_state({'scale': jnp.float32(1)}, tx)
  _, key = train_step.run_keys(config.seed)
  train_step.train_step(
    state.replace(step=jnp.int32(4)),
    batch,
    key,
    model=model,
    tx=tx,
    schedule=optax.constant_schedule(0.1),
    transform=augment.train_transform(config.pp, cropped=False),
    accum_steps=accum_steps,
    mixup_alpha=augment.mixup_alpha(config),
    cutmix_alpha=config.cutmix_alpha,
  )
  jax.effects_barrier()
  told = train_step.make_inputs(config, 5, cropped=False)(key, 4, batch)
  for found, seen in zip(told, (model.inputs, model.targets), strict=True):
    assert len(seen) == accum_steps
    # Micro-batches take every accum_steps-th row.
    rows = np.stack(seen, axis=1).reshape(found.shape)
    np.testing.assert_allclose(found, rows, atol=1e-5)


@pytest.mark.parametrize(
  ('field', 'value', 'text'),
  [
    ('cutmix_alpha', -1.0, 'should not be negative'),
    ('pp.color_jitter.contrast', -0.1, 'should not be negative'),
    ('pp.color_jitter.hue', 0.6, r'should be in \[0, 0.5\]'),
    ('pp.erasing', 1.1, r'should be in \[0, 1\]'),
    ('pp.randaugment.magnitude', 31.0, r'should be in \[0, 30\]'),
    ('pp.randaugment.num_layers', -1, 'should not be negative'),
    ('pp.repeats', 3, 'divide config.batch=64'),
    ('pp.repeats', 0, 'at least 1'),
    ('pp.shift.pad', -1, 'should not be negative'),
    ('pp.color_jitter.saturation', float('nan'), 'is not finite'),
  ],
)
def test_settings_that_cannot_work_are_told(field, value, text):
  config = vit.get_config('tiny,digits')
  config.update_from_flattened_dict({field: value})
  with pytest.raises(
    errors.ConfigError, match=f'config.{field}={value} .*{text}'
  ):
    config_checks.check_config(config, 1)
