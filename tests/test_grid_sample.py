"""The affine grid and its sampler: against PyTorch and plain numpy.

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
import reference

from vit_jax import errors
from vit_jax.models import spatial_transformer
from vit_jax.models.spatial_transformer import affine_grid, grid_sample

GOLDEN = pathlib.Path(__file__).parent / 'golden' / 'spatial_transformer.npz'
CASES = ('at_borders', 'far_outside', 'not_square', 'one_pixel', 'square')


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


def random_case(seed, shape=(2, 5, 7, 3), size=(3, 4), spread=0.8):
  rng = np.random.default_rng(seed)
  images = rng.normal(size=shape).astype(np.float32)
  theta = rng.normal(0, spread, (shape[0], 2, 3)).astype(np.float32)
  return images, np.asarray(affine_grid(jnp.asarray(theta), size))


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('spread', [0.3, 1.0, 4.0])
def test_sampler_is_the_slow_one(seed, spread):
  images, grid = random_case(seed, spread=spread)
  close(grid_sample(images, grid), reference.bilinear_samples(images, grid))


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
        values.append((reference.bilinear_samples(*moved) * cotangent).sum())
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
