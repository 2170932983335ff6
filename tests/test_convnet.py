"""The small convolutional classifier, its config and the distorted digits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

import vit_jax
from configs import spatial_transformer
from vit_jax import config_checks, errors
from vit_jax.data import digits, sources
from vit_jax.models import variants
from vit_jax.models.convolutions import apply_convolutions

# Angle, scale and shift of the first scan.
RECORDED = (
  16.435402478574517,
  0.6332073477391531,
  -8.875668485033529,
  -9.348350590843923,
)
MODELS = ('convnet', 'plain', 'wide', 'vit', 'vit_plain')


class Convolutions(nn.Module):
  """Two of them, and the same by Flax's own pooling."""

  @nn.compact
  def __call__(self, x):
    return apply_convolutions(x, (5, 3), 3)

  @nn.compact
  def by_flax(self, x):
    for i, features in enumerate((5, 3)):
      x = nn.relu(nn.Conv(features, (3, 3), name=f'conv_{i}')(x))
      x = nn.max_pool(x, (2, 2), strides=(2, 2))
    return x


@pytest.mark.parametrize('size', [(12, 8), (11, 7), (6, 13)])
def test_convolutions_are_flaxs(size):
  images = np.random.default_rng(0).normal(size=(2, *size, 3))
  module = Convolutions()
  variables = module.init(jax.random.key(0), images)

  def loss(variables, method):
    found = module.apply(variables, images, method=method)
    return (found**2).sum(), found

  results = [
    jax.grad(loss, has_aux=True)(variables, method)
    for method in ('__call__', 'by_flax')
  ]
  assert results[0][1].shape == (2, size[0] // 4, size[1] // 4, 3)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5),
    *results,
  )


def small(**fields):
  config = variants.model_config('cnn')
  config.update(conv_features=(3, 4), dense_size=5, **fields)
  return config


def test_features_without_a_head():
  model = vit_jax.create_model(small(), None)
  found, _ = model.init_with_output(jax.random.key(0), jnp.zeros((2, 9, 13, 3)))
  assert found.shape == (2, 5) and found.dtype == 'float32'


def test_dropout_is_for_training():
  model = vit_jax.create_model(small(dropout_rate=0.5), None)
  images = np.random.default_rng(0).normal(size=(3, 8, 8, 3))
  variables = model.init(jax.random.key(0), images)
  plain = model.apply(variables, images)
  dropped = model.apply(
    variables, images, train=True, rngs={'dropout': jax.random.key(1)}
  )
  kept = np.asarray(dropped) != 0
  np.testing.assert_allclose(dropped[kept], 2 * plain[kept], rtol=1e-5)
  assert (np.asarray(plain)[~kept] != 0).any()


def test_images_of_another_size_are_refused():
  model = vit_jax.create_model(small(), 6)
  variables = model.init(jax.random.key(0), jnp.zeros((1, 12, 8, 3)))
  with pytest.raises(errors.ConfigError, match='have 9 places'):
    model.apply(variables, jnp.zeros((1, 12, 12, 3)))
  with pytest.raises(errors.ConfigError, match='too small for 2 poolings'):
    model.init(jax.random.key(0), jnp.zeros((1, 3, 9, 3)))


@pytest.mark.parametrize(('fields', 'text'), [
  ({'conv_features': (3, 0)}, 'conv_features (3, 0) are not all positive'),
  ({'dense_size': 0}, 'dense_size 0 is not positive'),
  ({'conv_kernel_size': -2}, 'conv_kernel_size -2 is not positive'),
  ({'dropout_rate': 1.5}, 'dropout_rate 1.5 is not in [0, 1)'),
  ({'hidden_size': 3}, 'fields of a ViT: hidden_size. With model.conv_feat'),
  ({'num_blocks': 3}, 'fields of a Mixer: num_blocks. With model.conv_feat'),
  ({'dense_sizes': 3}, "Did you mean 'model.dense_size'?"),
])  # fmt: skip
def test_settings_that_can_not_work(fields, text):
  config = ConfigDict(small().to_dict() | fields)
  with pytest.raises(errors.ConfigError) as caught:
    vit_jax.create_model(config, 6)
  assert text in str(caught.value)


def test_fields_of_a_convnet_in_a_vit():
  config = ConfigDict(variants.model_config('tiny').to_dict())
  config.dense_size = 5
  with pytest.raises(
    errors.ConfigError, match=r'ConvNet: dense_size. Without model.conv_feat'
  ):
    vit_jax.create_model(config, 6)


@pytest.mark.parametrize('dataset', ['digits', 'cifar10'])
@pytest.mark.parametrize('model', MODELS)
def test_configs(dataset, model):
  argument = dataset if model == 'convnet' else f'{dataset},{model}'
  config = spatial_transformer.get_config(argument)
  config_checks.check_config(config, num_devices=1)
  assert config.pp.crop == 32 and not config.pretrained_dir
  transforms = model in ('convnet', 'vit')
  assert ('spatial_transformer' in config.model) == transforms
  if dataset == 'cifar10':
    assert (config.batch, config.base_lr) == (256, 0.01)
    assert config.optimizer == 'sgd' and config.pp.augment == 'shift_flip'
    assert config.warmup_steps == 200 and config.decay_type == 'cosine'
    assert config.total_steps == 50 * 49_000 // 256
  else:
    assert config.dataset == 'digits/distorted'
    assert config.base_lr == (5e-4 if 'vit' in model else 2e-3)
    assert config.pp.augment == 'affine' and not config.best_metric


def num_params(argument):
  config = spatial_transformer.get_config(argument)
  model = vit_jax.create_model(config.model, 10)
  images = jax.ShapeDtypeStruct((1, 32, 32, 3), 'float32')
  params = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_wide_has_as_many_parameters_as_with_a_transformer():
  assert num_params('digits,plain') == 136_874
  assert num_params('digits') == 136_874 + 36_822
  assert num_params('digits,wide') == pytest.approx(
    num_params('digits'), rel=0.002
  )


@pytest.mark.parametrize('models', [MODELS[:3], MODELS[3:]])
@pytest.mark.parametrize('dataset', ['digits', 'cifar10'])
def test_configs_differ_in_the_model_alone(dataset, models):
  first, *others = (
    spatial_transformer.get_config(f'{dataset},{model}').to_dict()
    for model in models
  )
  for other in others:
    assert other | {'model': None} == first | {'model': None}


@pytest.mark.parametrize(('argument', 'texts'), [
  ('', ['lacks a data set', 'vit_plain', 'cifar10']),
  ('digit', ["Did you mean 'digits'?"]),
  ('digit,vits', ["mean 'digits'?", "Did you mean 'vit'?"]),
])  # fmt: skip
def test_arguments_that_mean_nothing(argument, texts):
  with pytest.raises(errors.ConfigError) as caught:
    spatial_transformer.get_config(argument)
  assert all(text in str(caught.value) for text in texts)


def test_images_too_small_are_told_before_training():
  config = spatial_transformer.get_config('digits')
  config.pp.crop = 3
  with pytest.raises(errors.ConfigError, match='too small for the 2 poolings'):
    config_checks.check_config(config, num_devices=1)


def test_distortions_are_functions_of_index_and_seed():
  found = [digits.distortion(i) for i in range(200)]
  assert found == [digits.distortion(i) for i in range(200)]
  assert found[3] != digits.distortion(3, seed=1)
  angles, scales = ([getattr(x, n) for x in found] for n in ('angle', 'scale'))
  assert -60 <= min(angles) < -55 and 55 < max(angles) <= 60
  assert 0.5 <= min(scales) < 0.52 and 1.15 < max(scales) <= 1.2
  for each in found:
    room = (32 - 20 * each.scale) / 2
    assert max(map(abs, each.shift)) <= room
  # Written down, as runs of years should have had the same images.
  first = found[0]
  assert first.angle == pytest.approx(RECORDED[0], abs=1e-9)
  assert (first.scale, *first.shift) == pytest.approx(RECORDED[1:], abs=1e-9)


def brightest(image):
  total = image.sum()
  rows, columns = np.indices(image.shape)
  return (rows * image).sum() / total, (columns * image).sum() / total


def test_scan_is_turned_scaled_and_shifted():
  scan = np.zeros((8, 8), np.uint8)
  scan[0, 3:5] = 240  # Above the middle.

  def place(angle=0.0, scale=1.0, shift=(0.0, 0.0)):
    image = digits.distort(scan, digits.Distortion(angle, scale, shift))
    assert image.shape == (32, 32) and image.dtype == np.uint8
    return np.subtract(brightest(image.astype(float)), 15.5)

  # 3.5 pixels of a scan, each of which is 2.5 of the canvas.
  close = functools.partial(np.testing.assert_allclose, atol=0.3)
  close(place(), (-8.75, 0))
  close(place(angle=90.0), (0, -8.75))  # Anticlockwise: to the left.
  close(place(scale=0.5), (-4.375, 0))
  close(place(shift=(3.0, -2.0)), (-5.75, -2))


def test_distorted_scans_are_those_of_scikit_learn(tmp_path):
  from sklearn import datasets

  config = {
    'dataset': 'digits/distorted',
    'tfds_data_dir': str(tmp_path),
    'tfds_manual_dir': None,
  }
  scans = datasets.load_digits()
  pixels = np.rint(scans.images * 255 / 16).astype(np.uint8)
  for split, part in (('train', range(1437)), ('test', range(1437, 1797))):
    source = sources.load_source(ConfigDict(config), split)
    assert source.images.shape == (len(part), 32, 32, 3)
    found = sorted(
      image[..., 0].tobytes() + bytes([label])
      for image, label in zip(source.images, source.labels, strict=True)
    )
    assert found == sorted(
      digits.distort(pixels[i], digits.distortion(i)).tobytes()
      + bytes([scans.target[i]])
      for i in part
    )
