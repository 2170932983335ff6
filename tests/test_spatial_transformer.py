"""Spatial transformers: against PyTorch, plain numpy, and what they promise.

The golden values were recorded once with PyTorch 2.9.1. For each case, with
`images` [batch, height, width, channels] and `cotangent` from a normal
distribution and `theta` [batch, 2, 3]:

  grid = F.affine_grid(theta, [batch, channels, *size], align_corners=False)
  sampled = F.grid_sample(
    images.permute(0, 3, 1, 2), grid, mode='bilinear', padding_mode='zeros',
    align_corners=False,
  ).permute(0, 2, 3, 1)
  (sampled * cotangent).sum().backward()

'square' and 'not_square' turn, scale, shear and shift; 'far_outside' looks up
to a billion image sizes away; 'at_borders' hits pixels' centres, and the
borders, exactly; 'one_pixel' is an image of one.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import vit_jax
from vit_jax import attention, checkpoints, errors, plan, trained
from vit_jax.inspection import describe
from vit_jax.models import blocks, spatial_transformer, variants
from vit_jax.models.spatial_transformer import affine_grid, grid_sample
from vit_jax.plan import layers

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'spatial_transformer.npz'
CASES = ('at_borders', 'far_outside', 'not_square', 'one_pixel', 'square')
SMALL = {'size': 12, 'features': (3, 5), 'kernel_size': 3, 'hidden_dim': 7}
SIZE = (13, 17)


@functools.cache
def golden(case):
  with np.load(GOLDEN) as stored:
    found = {key: stored[key] for key in stored if key.startswith(f'{case}/')}
  return {key.partition('/')[2]: value for key, value in found.items()}


def close(found, wanted, tolerance=1e-5):
  np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def test_golden_file_has_these_cases():
  with np.load(GOLDEN) as stored:
    assert {key.partition('/')[0] for key in stored} == {*CASES}


@pytest.mark.parametrize('case', CASES)
def test_grid_is_pytorchs(case):
  values = golden(case)
  size = values['grid'].shape[1:3]
  close(affine_grid(jnp.asarray(values['theta']), size), values['grid'], 1e-6)


@pytest.mark.parametrize('case', CASES)
def test_sampler_and_gradients_are_pytorchs(case):
  values = golden(case)
  found, vjp = jax.vjp(grid_sample, values['images'], values['grid'])
  close(found, values['sampled'])
  of_images, of_grid = vjp(values['cotangent'])
  close(of_images, values['images_grad'])
  close(of_grid, values['grid_grad'])


@pytest.mark.parametrize('case', CASES)
def test_gradient_of_the_transform_is_pytorchs(case):
  values = golden(case)
  size = values['grid'].shape[1:3]
  _, vjp = jax.vjp(
    lambda theta: grid_sample(values['images'], affine_grid(theta, size)),
    values['theta'],
  )
  close(vjp(values['cotangent'])[0], values['theta_grad'], 2e-5)


def slow_sample(images, grid):
  """Returns the same in float64, a pixel at a time."""
  height, width = images.shape[1:3]
  found = np.zeros((*grid.shape[:3], images.shape[3]))
  for place in np.ndindex(*grid.shape[:3]):
    x = ((grid[place][0] + 1) * width - 1) / 2
    y = ((grid[place][1] + 1) * height - 1) / 2
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
      for column in (int(np.floor(x)), int(np.floor(x)) + 1):
        if 0 <= row < height and 0 <= column < width:
          share = (1 - abs(y - row)) * (1 - abs(x - column))
          found[place] += share * images[place[0], row, column]
  return found


def random_case(seed, shape=(2, 5, 7, 3), size=(3, 4), spread=0.8):
  rng = np.random.default_rng(seed)
  images = rng.normal(size=shape).astype(np.float32)
  theta = rng.normal(0, spread, (shape[0], 2, 3)).astype(np.float32)
  return images, np.asarray(affine_grid(jnp.asarray(theta), size))


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('spread', [0.3, 1.0, 4.0])
def test_sampler_is_the_slow_one(seed, spread):
  images, grid = random_case(seed, spread=spread)
  close(grid_sample(images, grid), slow_sample(images, grid))


def test_gradients_are_finite_differences():
  images, grid = random_case(5)
  cotangent = np.random.default_rng(6).normal(size=(2, 3, 4, 3))
  _, vjp = jax.vjp(grid_sample, images, grid)
  found = [np.asarray(each) for each in vjp(cotangent.astype(np.float32))]
  inputs, step = [images.astype(np.float64), grid.astype(np.float64)], 1e-6
  for i, gradient in enumerate(found):
    for place in list(np.ndindex(*gradient.shape))[::3]:
      values = []
      for sign in (1, -1):
        moved = [each.copy() for each in inputs]
        moved[i][place] += sign * step
        values.append((slow_sample(*moved) * cotangent).sum())
      close(gradient[place], (values[0] - values[1]) / (2 * step), 1e-3)


@pytest.mark.parametrize('size', [(5, 7), (1, 4), (8, 8)])
def test_identity_keeps_every_pixel(size):
  images = np.random.default_rng(0).normal(size=(2, *size, 3))
  images = images.astype(np.float32)
  theta = jnp.asarray(spatial_transformer.IDENTITY).reshape(1, 2, 3)
  grid = affine_grid(jnp.tile(theta, (2, 1, 1)), size)
  close(grid_sample(images, grid), images)


def test_whole_pixels_and_the_outermost_half():
  image = jnp.arange(1.0, 5.0).reshape(1, 1, 4, 1)

  def at(*x):
    grid = jnp.stack([jnp.asarray(x), jnp.zeros(len(x))], -1)[None, None]
    return grid_sample(image, grid)[0, 0, :, 0]

  # Centres, borders, halfway between two, and a pixel's width outside.
  close(at(-0.75, 0.75, -1, 1, 0, 1.25, -1.25), [1, 4, 0.5, 2, 2.5, 0, 0])
  close(at(np.float32(3e38), -1e30), [0, 0])


def test_other_shapes_are_refused():
  images, _ = random_case(0)
  for shape in ((6,), (2, 6), (2, 3, 2), (2, 3, 3)):
    with pytest.raises(errors.ConfigError, match=r'expected \[batch, 2, 3\]'):
      affine_grid(jnp.zeros(shape), (3, 3))
  for shape in ((1, 3, 4, 2), (2, 3, 4, 3), (2, 12, 2)):
    with pytest.raises(errors.ConfigError, match=r'expected \[2, rows, colu'):
      grid_sample(images, jnp.zeros(shape))


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16', 'float32'])
def test_grid_of_large_images_is_exact_to_a_hundredth_of_a_pixel(dtype):
  theta = jnp.asarray([[[1, 0, 0], [0, 1, 0]]], dtype)
  found = affine_grid(theta, (3, 769))[0, 1, :, 0]
  wanted = (2 * np.arange(769) + 1) / 769 - 1
  np.testing.assert_allclose(found, wanted, atol=0.01 * 2 / 769)


def test_nan_is_not_hidden():
  images, grid = random_case(0)
  grid = grid.copy()
  grid[0, 0, 0, 0] = np.nan
  found = np.asarray(grid_sample(images, grid))
  assert np.isnan(found[0, 0, 0]).all() and np.isfinite(found[1]).all()


@pytest.mark.parametrize('dtype', ['bfloat16', 'uint8'])
def test_dtype_of_images_is_kept(dtype):
  images = jnp.full((1, 4, 4, 3), 7, dtype)
  theta = jnp.asarray([[[0.5, 0, 0], [0, 0.5, 0]]], jnp.bfloat16)
  found = grid_sample(images, affine_grid(theta, (3, 3)))
  assert found.dtype == dtype
  assert (np.asarray(found, np.float32) == 7).all()


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
  grid = affine_grid(theta, SIZE)
  close(made, slow_sample(images + 1.0, np.asarray(grid)) - 1)


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
