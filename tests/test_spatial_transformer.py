"""Models behind a spatial transformer: what they see, learn, save and plan."""

import functools

import jax
import numpy as np
import pytest
import reference
from flax import traverse_util
from ml_collections import ConfigDict

import vit_jax
from vit_jax import attention, checkpoints, errors, plan, trained
from vit_jax.inspection import describe
from vit_jax.models import blocks, spatial_transformer, variants
from vit_jax.plan import layers

SMALL = {'size': 12, 'features': (3, 5), 'kernel_size': 3, 'hidden_dim': 7}
SIZE = (13, 17)


def close(found, wanted, tolerance=1e-5):
  np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def model_of(name='cnn', transforms=True, dtype='float32', **fields):
  config = variants.model_config(name).to_dict()
  if name == 'cnn':
    config |= {'conv_features': (3, 4), 'dense_size': 5}
  else:
    config['patches'] = {'size': (4, 5)}
    config['transformer'] |= {'num_layers': 2}
  if transforms:
    config['spatial_transformer'] = SMALL
  return vit_jax.create_model(ConfigDict(config), 6, dtype=dtype, **fields)


def images_of(size=SIZE, num_images=2):
  rng = np.random.default_rng(1)
  return rng.uniform(-1, 1, (num_images, *size, 3)).astype(np.float32)


@functools.cache
def random_params(model, size=SIZE):
  """Returns parameters of which none is zero; transforms are moderate."""
  params = jax.jit(model.init)(jax.random.key(0), images_of(size))['params']
  rng = np.random.default_rng(2)
  return jax.tree.map(
    lambda leaf: np.asarray(leaf + rng.normal(0, 0.1, leaf.shape), 'float32'),
    params,
  )


@pytest.mark.parametrize('name', ['cnn', 'tiny'])
def test_nothing_changes_at_the_start(name):
  model, images = model_of(name), images_of()
  params = jax.jit(model.init)(jax.random.key(3), images)['params']
  made, theta = spatial_transformer.transform(model, params, images)
  close(made, images)
  identity = np.reshape(spatial_transformer.IDENTITY, (2, 3))
  assert (np.asarray(theta) == identity).all()
  assert not params['spatial_transformer']['theta']['kernel'].any()


@pytest.mark.parametrize('name', ['cnn', 'tiny'])
def test_model_sees_what_the_transformer_makes(name):
  model, images = model_of(name), images_of()
  params = random_params(model)
  made, theta = spatial_transformer.transform(model, params, images)
  assert np.abs(made - images).max() > 0.1
  behind, rest = spatial_transformer.without(model, params)
  assert spatial_transformer.of_model(behind) is None
  close(
    behind.apply({'params': rest}, made),
    model.apply({'params': params}, images),
  )
  grid = spatial_transformer.affine_grid(theta, SIZE)
  close(made, reference.bilinear_samples(images + 1.0, np.asarray(grid)) - 1)


@pytest.mark.parametrize('size', [SIZE, (12, 12)])
def test_localisation_is_the_plain_one(size):
  """With images that are resized, and such that need not be."""
  model, images = model_of(), images_of(size)
  params = random_params(model, size)
  _, theta = spatial_transformer.transform(model, params, images)
  resized = jax.image.resize(images, (2, 12, 12, 3), 'linear')
  weights = traverse_util.flatten_dict(params['spatial_transformer'], sep='/')
  for i, image in enumerate(np.asarray(resized, np.float64)):
    close(theta[i], reference.localise(image, weights))


def test_outside_is_black():
  model = model_of()
  params = random_params(model)
  theta = dict(params['spatial_transformer']['theta'], bias=np.full(6, 50.0))
  params = params | {
    'spatial_transformer': params['spatial_transformer'] | {'theta': theta}
  }
  made, _ = spatial_transformer.transform(model, params, images_of())
  assert np.median(made) == -1


def test_loss_reaches_the_localisation_network():
  model, images = model_of(), images_of()

  @jax.jit
  @jax.grad
  def gradient(params):
    return (model.apply({'params': params}, images) ** 2).sum()

  found = gradient(random_params(model))['spatial_transformer']
  assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(found))


def test_transformer_of_a_vit_takes_images_of_any_size():
  model = model_of('tiny', dtype='bfloat16')
  shapes = [
    jax.eval_shape(model.init, jax.random.key(0), images_of(size))['params'][
      'spatial_transformer'
    ]
    for size in (SIZE, (12, 12), (31, 29))
  ]
  assert shapes[0] == shapes[1] == shapes[2]
  params = random_params(model)
  made, theta = spatial_transformer.transform(model, params, images_of((8, 9)))
  assert made.shape == (2, 8, 9, 3) and made.dtype == theta.dtype == 'float32'


def test_scanned_vit_behind_a_transformer_is_the_same():
  plain, scanned = model_of('tiny'), model_of('tiny', scan_layers=True)
  params, images = random_params(plain), images_of()
  close(
    scanned.apply({'params': blocks.stack_layers(params)}, images),
    plain.apply({'params': params}, images),
  )


def test_attention_is_to_what_the_transformer_makes():
  model, images = model_of('tiny'), images_of()
  params = random_params(model)
  made, _ = spatial_transformer.transform(model, params, images)
  behind, rest = spatial_transformer.without(model, params)
  weights = attention.attention_weights(model, params, images)
  close(weights, attention.attention_weights(behind, rest, made), 1e-4)
  maps = np.random.default_rng(0).random((2, *model.grid(SIZE)))
  found, wanted = (
    attention.faithfulness_curves(*each, maps, num_steps=3)
    for each in ((model, params, images), (behind, rest, made))
  )
  close(found.deletion_area, wanted.deletion_area, 1e-4)


def test_convnet_has_no_attention():
  with pytest.raises(errors.ConfigError, match='ConvNet has no attention'):
    attention.attention_weights(model_of(), {}, images_of())


@pytest.mark.parametrize('name', ['cnn', 'tiny'])
@pytest.mark.parametrize('transforms', [False, True])
def test_file_tells_the_model(tmp_path, name, transforms):
  size = (20, 20)
  model = model_of(name, transforms)
  params, path = random_params(model, size), tmp_path / 'model.npz'
  checkpoints.save_params(params, path)
  found = describe(path)
  assert found.unknown == found.missing == ()
  assert found.family == {'cnn': 'ConvNet', 'tiny': 'ViT'}[name]
  assert found.spatial_transformer == (SMALL if transforms else None)
  if name == 'cnn':
    assert found.image_size == size and found.conv_features == (3, 4)
  opened = trained.load(str(path), size)
  assert opened.model == model
  images = images_of(size)
  np.testing.assert_array_equal(
    opened.model.apply({'params': opened.params}, images),
    model.apply({'params': params}, images),
  )


def test_weights_without_a_transformer_get_one_that_changes_nothing(tmp_path):
  path, images = tmp_path / 'model.npz', images_of((20, 20))
  plain, model = model_of('tiny', transforms=False), model_of('tiny')
  params = random_params(plain, (20, 20))
  checkpoints.save_params(params, path)
  found = checkpoints.load_pretrained(path, model, 20)
  close(
    model.apply({'params': found}, images),
    plain.apply({'params': params}, images),
    1e-4,
  )
  assert np.any(found['spatial_transformer']['conv_0']['kernel'])
  with pytest.raises(errors.CheckpointError, match='spatial_transformer/theta'):
    checkpoints.load_pretrained(path, model, 20, fresh_head=False)


def test_transformer_is_not_left_out_silently(tmp_path):
  path, model = tmp_path / 'model.npz', model_of('tiny')
  checkpoints.save_params(random_params(model, (20, 20)), path)
  with pytest.raises(errors.CheckpointError, match='not in the model'):
    checkpoints.load_pretrained(path, model_of('tiny', transforms=False), 20)


@pytest.mark.parametrize(('fields', 'text'), [
  ({'size': 10}, 'size 10 is not a multiple of 4, by which 2 poolings'),
  ({'size': 0}, 'spatial_transformer.size 0 is not positive'),
  ({'features': ()}, 'features () are not one or more numbers'),
  ({'features': (3, 0)}, 'features (3, 0) are not one or more numbers'),
  ({'kernel_size': -1}, 'kernel_size -1 is not positive'),
  ({'hidden_dim': 0}, 'hidden_dim 0 is not positive'),
  ({'feature': 3}, "Did you mean 'model.spatial_transformer.features'?"),
  ({'hidden_dim': None}, 'spatial_transformer.hidden_dim is missing'),
])  # fmt: skip
@pytest.mark.parametrize('name', ['cnn', 'tiny'])
def test_settings_that_can_not_work(name, fields, text):
  config = variants.model_config(name).to_dict()
  config['spatial_transformer'] = SMALL | fields
  with pytest.raises(errors.ConfigError) as caught:
    vit_jax.create_model(ConfigDict(config), 6)
  assert text in str(caught.value)


def test_config_may_say_that_there_is_none():
  config = variants.model_config('tiny')
  config.spatial_transformer = None
  assert vit_jax.create_model(config, 6) == vit_jax.create_model('tiny', 6)


def test_mixers_have_none():
  config = variants.model_config('mixer_s16')
  config.spatial_transformer = SMALL
  with pytest.raises(errors.ConfigError, match='fields of a ViT: spatial_tran'):
    vit_jax.create_model(config, 6)


@pytest.mark.parametrize('name', ['cnn', 'tiny'])
def test_formulas_count_what_xla_does(name):
  model, size = model_of(name), 20
  images = jax.ShapeDtypeStruct((1, size, size, 3), 'float32')
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)
  found = jax.jit(model.apply).lower(shapes, images).compile().cost_analysis()
  parts = layers.model_parts(model, size)
  assert parts[0].name == 'spatial transformer'
  assert 0.55 < layers.forward_flops(parts) / found['flops'] < 1.1


def test_plan(tmp_path):
  from configs import spatial_transformer as configs

  for argument in ('digits', 'cifar10,plain', 'digits,vit'):
    found = plan.make_plan(configs.get_config(argument), 'v100')
    assert found.memory.total > 0 and found.speed.step_seconds > 0
