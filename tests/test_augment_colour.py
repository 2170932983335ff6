"""Colour jitter and random erasing against slow references."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.data import augment

_IMAGE = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
_IMAGE[0, :3] = [[0, 0, 0], [77, 77, 77], [255, 255, 255]]  # No hue at all.
_LUMA = (0.299, 0.587, 0.114)


def _slow_hue(levels, turn):
  result = np.zeros(levels.shape)
  for place in np.ndindex(levels.shape[:2]):
    hue, saturation, value = colorsys.rgb_to_hsv(*(levels[place] / 255))
    turned = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
    result[place] = 255 * np.array(turned)
  return result


def _slow_blend(start, levels, factor):
  return np.clip(factor * levels + (1 - factor) * start, 0, 255)


# Of levels and the factor, as torchvision's functional documentation has it.
_REFERENCES = {
  'brightness': lambda levels, factor: _slow_blend(0, levels, factor),
  'contrast': lambda levels, factor: _slow_blend(
    (levels @ _LUMA).mean(), levels, factor
  ),
  'saturation': lambda levels, factor: _slow_blend(
    (levels @ _LUMA)[..., None], levels, factor
  ),
  'hue': _slow_hue,
}


@pytest.mark.parametrize('name', _REFERENCES)
def test_adjustment_equals_slow_reference(name):
  levels = _IMAGE.astype(np.float32)
  adjust = jax.jit(getattr(augment, f'adjust_{name}'))
  amounts = (-0.5, -0.13, 0, 1 / 3) if name == 'hue' else (0, 0.4, 1, 1.7)
  for amount in amounts:
    np.testing.assert_allclose(
      adjust(levels, jnp.float32(amount)),
      _REFERENCES[name](levels.astype(np.float64), amount),
      atol=2e-3,
      err_msg=f'{amount}',
    )


def test_jitter_without_strengths_changes_nothing():
  result = augment.color_jitter(jax.random.key(0), _IMAGE)
  np.testing.assert_array_equal(result, _IMAGE)


@pytest.mark.parametrize(
  ('strength', 'low', 'high'), [(0.3, 0.7, 1.3), (1.5, 0.0, 2.5)]
)
def test_factors_are_uniform_in_their_range(strength, low, high):
  grey = np.full((1, 1, 3), 100, np.uint8)
  keys = jax.random.split(jax.random.key(0), 499)
  results = jax.vmap(
    lambda key: augment.color_jitter(key, grey, brightness=strength)
  )(keys)
  factors = np.asarray(results)[:, 0, 0, 0] / 100
  assert low <= factors.min() < low + 0.05 * (high - low)
  assert high >= factors.max() > high - 0.05 * (high - low)
  np.testing.assert_allclose(factors.mean(), (low + high) / 2, atol=0.1)


def test_hues_turn_either_way_within_their_range():
  red = np.zeros((1, 1, 3), np.uint8)
  red[..., 0] = 255
  keys = jax.random.split(jax.random.key(0), 199)
  results = jax.vmap(lambda key: augment.color_jitter(key, red, hue=0.1))(keys)
  turns = [
    colorsys.rgb_to_hsv(*each)[0] for each in np.asarray(results)[:, 0, 0]
  ]
  turns = (np.array(turns) + 0.5) % 1 - 0.5
  assert -0.1 <= turns.min() < -0.09
  assert 0.09 < turns.max() <= 0.1


def _erased(probability):
  image = np.zeros((23, 29, 3), np.uint8)
  keys = jax.random.split(jax.random.key(0), 299)
  return np.asarray(
    jax.jit(
      jax.vmap(lambda key: augment.random_erasing(key, image, probability))
    )(keys)
  )


def test_erasing_puts_noise_into_boxes_of_their_ranges():
  results = _erased(1.0)
  areas, ratios = [], []
  for result in results:
    # A level of noise is 0 now and then, but not all three of a row.
    is_noise = result.any(axis=-1)
    rows, columns = (np.flatnonzero(is_noise.any(axis=axis)) for axis in (1, 0))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert is_noise[rows.min() :][:height, columns.min() :][:, :width].all()
    areas.append(height * width / (23 * 29))
    ratios.append(width / height)
  # Whole pixels are a little less than the box drawn.
  assert 0.01 < min(areas) < 0.05
  assert 0.36 < max(areas) <= 0.4
  assert 0.4 < (np.array(ratios) > 1).mean() < 0.6
  noise = results[results > 0]
  np.testing.assert_allclose(noise.mean(), 128, atol=2)
  assert noise.max() == 255


def test_erasing_spares_the_other_images():
  is_erased = _erased(0.3).any(axis=(1, 2, 3))
  assert 0.22 < is_erased.mean() < 0.38
  assert not _erased(0.0).any()
