"""RandAugment's and TrivialAugment's operations against Pillow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps
import pytest

from vit_jax.data import augment

_HEIGHT, _WIDTH = 31, 37
_GREY = (128, 128, 128)
_FACTORS = (0.0, 0.1, 0.7, 1.0, 1.9, 2.8)
_SHEARS = (-0.99, -0.3, 0.0, 0.15, 0.99)
_SHIFTS = (-11.0, -3.5, 0.0, 5.3, 70.0)


def _images() -> dict[str, np.ndarray]:
  """Returns noise, and what has edges, a narrow range and a flat channel."""
  rng = np.random.default_rng(0)
  shape = _HEIGHT, _WIDTH
  y, x = np.mgrid[: shape[0], : shape[1]]
  smooth = np.stack([60 + 2 * y, 40 + x + y, np.full(shape, 77)], axis=-1)
  smooth[5:17, 3:11] = 200, 90, 77
  smooth[..., :2] += rng.integers(0, 5, (*shape, 2))
  noise = rng.integers(0, 256, (*shape, 3))
  return {'noise': noise.astype(np.uint8), 'smooth': smooth.astype(np.uint8)}


_IMAGES = _images()
_apply = jax.jit(augment.apply_operation, static_argnames='fill')


def _operate(image, name, value=0.0, place=(0.0, 0.0), fill=128):
  return np.asarray(
    _apply(
      image,
      augment.OPERATIONS.index(name),
      np.float32(value),
      np.float32(place),
      fill=fill,
    )
  )


def _transformed(image, *matrix):
  return image.transform(
    image.size, PIL.Image.Transform.AFFINE, matrix, fillcolor=_GREY
  )


def _lighten(image, value):
  levels = np.asarray(image).astype(int)
  return np.where(levels < 128, np.minimum(levels + int(value), 255), levels)


# Name -> the values to try, and what Pillow makes of an image with them.
_PILLOW = {
  'identity': ((0,), lambda image, value: image),
  'autocontrast': ((0,), lambda image, v: PIL.ImageOps.autocontrast(image)),
  'equalize': ((0,), lambda image, v: PIL.ImageOps.equalize(image)),
  'invert': ((0,), lambda image, v: PIL.ImageOps.invert(image)),
  'posterize': (
    (1, 4, 6, 8),
    lambda image, v: PIL.ImageOps.posterize(image, int(v)),
  ),
  'solarize': (
    (0, 77, 128, 256),
    lambda image, v: PIL.ImageOps.solarize(image, int(v)),
  ),
  'solarize_add': ((0, 110, 220), _lighten),
  'color': (_FACTORS, lambda im, v: PIL.ImageEnhance.Color(im).enhance(v)),
  'contrast': (
    _FACTORS,
    lambda im, v: PIL.ImageEnhance.Contrast(im).enhance(v),
  ),
  'brightness': (
    _FACTORS,
    lambda im, v: PIL.ImageEnhance.Brightness(im).enhance(v),
  ),
  'sharpness': (
    _FACTORS,
    lambda im, v: PIL.ImageEnhance.Sharpness(im).enhance(v),
  ),
  'rotate': (
    (-135.0, -45.0, -7.0, 0.0, 13.0, 90.0),
    lambda image, v: image.rotate(v, fillcolor=_GREY),
  ),
  'shear_x': (_SHEARS, lambda im, v: _transformed(im, 1, v, 0, 0, 1, 0)),
  'shear_y': (_SHEARS, lambda im, v: _transformed(im, 1, 0, 0, v, 1, 0)),
  'translate_x': (_SHIFTS, lambda im, v: _transformed(im, 1, 0, v, 0, 1, 0)),
  'translate_y': (_SHIFTS, lambda im, v: _transformed(im, 1, 0, 0, 0, 1, v)),
}


def _distance(image, other):
  """Returns the largest difference of each pixel, over the channels."""
  difference = np.asarray(image).astype(int) - np.asarray(other).astype(int)
  return np.abs(difference).max(axis=-1)


def test_every_operation_has_a_reference():
  assert {*_PILLOW, 'cutout'} == {*augment.OPERATIONS}


@pytest.mark.parametrize('kind', _IMAGES)
@pytest.mark.parametrize('name', _PILLOW)
def test_operation_equals_pillow(name, kind):
  values, reference = _PILLOW[name]
  image = _IMAGES[kind]
  for value in values:
    result = _operate(image, name, value)
    distance = _distance(result, reference(PIL.Image.fromarray(image), value))
    # Where a sample falls on the line between two pixels, Pillow, with 16 bits
    # of fraction, may take the other one.
    num_others = 3 if name in ('rotate', 'shear_x', 'shear_y') else 0
    assert (distance > 1).sum() <= num_others, (name, value)
    assert result.dtype == np.uint8


@pytest.mark.parametrize('name', ['autocontrast', 'equalize'])
def test_flat_image_stays_as_it_is(name):
  flat = np.full((_HEIGHT, _WIDTH, 3), 99, np.uint8)
  np.testing.assert_array_equal(_operate(flat, name), flat)


def test_posterize_keeps_a_bit_at_least():
  image = _IMAGES['noise']
  np.testing.assert_array_equal(
    _operate(image, 'posterize', 0), image // 128 * 128
  )


@pytest.mark.parametrize('place', [(0.0, 0.0), (0.5, 0.31), (0.999, 0.7)])
@pytest.mark.parametrize('half', [0, 3, 50])
def test_cutout_fills_a_square_cut_at_the_border(place, half):
  image = _IMAGES['smooth']
  expected = image.copy()
  middle_y, middle_x = int(place[0] * _HEIGHT), int(place[1] * _WIDTH)
  for y in range(_HEIGHT):
    for x in range(_WIDTH):
      if -half <= y - middle_y < half and -half <= x - middle_x < half:
        expected[y, x] = 128
  np.testing.assert_array_equal(
    _operate(image, 'cutout', half, place), expected
  )


# Of big_vision's `level_to_arg` for 224 pixels, its overflows included.
@pytest.mark.parametrize(
  ('magnitude', 'expected'),
  [
    (0, {'color': 0.1, 'posterize': 0, 'solarize': 0, 'rotate': 0}),
    (
      10,
      {
        'rotate': 30.0,
        'posterize': 4,
        'solarize': 0,
        'solarize_add': 110,
        'color': 1.9,
        'shear_x': 0.3,
        'translate_y': 100.0,
        'cutout': 40,
      },
    ),
    (
      15,
      {
        'rotate': 45.0,
        'posterize': 6,
        'solarize': 128,
        'solarize_add': 165,
        'contrast': 2.8,
        'brightness': 2.8,
        'sharpness': 2.8,
        'shear_y': 0.45,
        'translate_x': 150.0,
        'cutout': 60,
      },
    ),
    (20, {'posterize': 8, 'solarize': 0, 'color': 3.7, 'identity': 0}),
  ],
)
def test_magnitudes_are_those_of_augreg(magnitude, expected):
  values = augment.rand_augment_values(magnitude, (224, 224))
  for name, value in expected.items():
    found = values[augment.OPERATIONS.index(name)]
    np.testing.assert_allclose(found, value, rtol=1e-6, err_msg=name)


def test_shifts_of_rand_augment_scale_with_the_side():
  values = augment.rand_augment_values(10, (112, 448))
  found = [
    values[augment.OPERATIONS.index(name)]
    for name in ('translate_y', 'translate_x', 'cutout', 'rotate')
  ]
  np.testing.assert_allclose(found, [50, 200, 20, 30])


def test_magnitudes_of_trivial_augment_are_the_wide_ones():
  values = dict(
    zip(augment.OPERATIONS, augment.trivial_augment_values().T, strict=True)
  )
  assert {each.shape for each in values.values()} == {(31,)}
  for name, ends in {
    'rotate': (0, 135),
    'posterize': (8, 2),
    'solarize': (256, 0),
    'color': (0.01, 2.0),
    'sharpness': (0.01, 2.0),
    'shear_x': (0, 0.99),
    'translate_y': (0, 32),
  }.items():
    np.testing.assert_allclose(
      values[name][[0, -1]], ends, rtol=1e-6, err_msg=name
    )
  assert values['rotate'][7] == 31  # Whole degrees: 31.5.


@functools.cache
def _keys():
  return jax.random.split(jax.random.key(0), 499)


@functools.cache
def _rand_augmented(num_layers):
  """Returns the image of each key, at magnitude 15."""
  return np.asarray(
    jax.jit(
      jax.vmap(
        lambda key: augment.rand_augment(
          key, jnp.asarray(_IMAGES['smooth']), num_layers, 15
        )
      )
    )(_keys())
  )


def _candidates(names, values, fill, signs=(1, -1)):
  """Returns (name, image) of all that may come out, cutouts aside."""
  image = _IMAGES['smooth']
  return [
    (name, _operate(image, name, sign * value[i], fill=fill))
    for i, name in enumerate(augment.OPERATIONS)
    if name in names
    for value in values
    for sign in signs[: 2 if name[:3] in ('rot', 'she', 'tra') else 1]
  ]


def _names_of(results, candidates):
  """Returns what each result may have come from."""
  images = np.stack([image for _, image in candidates])
  return [
    {candidates[i][0] for i in np.flatnonzero((images == each).all((1, 2, 3)))}
    for each in results
  ]


def test_rand_augment_does_each_operation_about_equally_often():
  values = augment.rand_augment_values(15, (_HEIGHT, _WIDTH))[None]
  names = [name for name in augment.OPERATIONS if name != 'identity']
  found = _names_of(_rand_augmented(1), _candidates(names[:-1], values, 128))
  counts = {name: sum(name in each for each in found) for name in names[:-1]}
  counts['cutout'] = sum(not each for each in found)
  # The others, in none of the candidates, have a grey square.
  image = _IMAGES['smooth']
  for result, each in zip(_rand_augmented(1), found, strict=True):
    if not each:
      is_cut = (result != image).any(axis=-1)
      assert (result[is_cut] == 128).all()
  assert 12 < min(counts.values()) <= max(counts.values()) < 55, counts


def test_rand_augment_goes_on_from_layer_to_layer():
  values = augment.rand_augment_values(15, (_HEIGHT, _WIDTH))[None]
  candidates = _candidates(augment.OPERATIONS[1:-1], values, 128)
  single = _names_of(_rand_augmented(2), candidates)
  assert sum(not each for each in single) > 350  # Of 499.
  np.testing.assert_array_equal(
    augment.rand_augment(jax.random.key(0), _IMAGES['noise'], 0, 15),
    _IMAGES['noise'],
  )


def test_trivial_augment_draws_from_its_space():
  image = jnp.asarray(_IMAGES['smooth'])
  results = jax.jit(jax.vmap(lambda key: augment.trivial_augment(key, image)))(
    _keys()
  )
  others = ('invert', 'solarize_add', 'cutout')
  names = [name for name in augment.OPERATIONS if name not in others]
  values = augment.trivial_augment_values()
  found = _names_of(np.asarray(results), _candidates(names, values, 0))
  assert all(found)
  for name in names:
    assert sum(name in each for each in found) > 15, name
