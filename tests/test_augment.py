"""Device-side augmentation against slow references."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from vit_jax import errors
from vit_jax.data import augment

_IMAGE = np.random.default_rng(0).integers(0, 256, (11, 13, 3)).astype(np.uint8)
_PP = {
  'crop': 7,
  'augment': 'crop_flip',
  'area_range': (0.05, 1.0),
  'ratio_range': (3 / 4, 4 / 3),
  'affine': {'rotate': 15.0, 'scale': 0.1, 'shear': 5.0, 'shift': 0.1},
  'shift': {'pad': 4, 'mode': 'reflect'},
}


def _slow_sample(image, y, x, outside):
  """Bilinear interpolation at one real position, pixel by pixel."""
  total = np.zeros(image.shape[-1])
  for row in (int(np.floor(y)), int(np.floor(y)) + 1):
    for column in (int(np.floor(x)), int(np.floor(x)) + 1):
      weight = (1 - abs(y - row)) * (1 - abs(x - column))
      inside = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
      if inside:
        total += weight * image[row, column]
      elif outside == 'edge':
        row_in = np.clip(row, 0, image.shape[0] - 1)
        column_in = np.clip(column, 0, image.shape[1] - 1)
        total += weight * image[row_in, column_in]
  return total


def _slow_resize(image, box, size):
  top, left, height, width = box
  result = np.zeros((*size, image.shape[-1]))
  for i in range(size[0]):
    for j in range(size[1]):
      y = top + (i + 0.5) * height / size[0] - 0.5
      x = left + (j + 0.5) * width / size[1] - 0.5
      result[i, j] = _slow_sample(image, y, x, 'edge')
  return result


@pytest.mark.parametrize('box', [(0, 0, 11, 13), (2.3, 1.7, 5.9, 8.2)])
@pytest.mark.parametrize('size', [(5, 7), (17, 19)])
def test_crop_and_resize_equals_slow_reference(box, size):
  box = tuple(map(float, box))
  result = augment.crop_and_resize(_IMAGE, box, size)
  np.testing.assert_allclose(result, _slow_resize(_IMAGE, box, size), atol=2e-3)


def test_resize_to_own_size_changes_nothing():
  np.testing.assert_allclose(
    augment.resize(_IMAGE, (11, 13)), _IMAGE, atol=1e-3
  )


def test_random_boxes_keep_to_their_ranges():
  # The image's own coordinates, so that the result tells which box it was.
  rows, columns = np.mgrid[0:101, 0:103].astype(np.float32)
  image = np.stack([rows, columns], axis=-1)
  keys = jax.random.split(jax.random.key(0), 499)
  crops = jax.vmap(
    lambda key: augment.random_resized_crop(
      key, image, 47, (0.1, 0.5), (0.5, 2.0)
    )
  )(keys)
  height = (crops[:, -1, 0, 0] - crops[:, 0, 0, 0]) * 47 / 46
  width = (crops[:, 0, -1, 1] - crops[:, 0, 0, 1]) * 47 / 46
  area, ratio = height * width / (101 * 103), width / height
  assert area.min() > 0.09
  assert area.max() < 0.51
  assert area.max() - area.min() > 0.35
  assert ratio.min() > 0.48
  assert ratio.max() < 2.1
  # Log-uniform: as many tall boxes as wide ones.
  assert 0.4 < (ratio > 1).mean() < 0.6
  assert crops.min() >= 0
  assert crops[..., 0].max() <= 100
  assert crops[..., 1].max() <= 102


def test_boxes_that_never_fit_are_cut_to_the_image():
  image = np.ones((5, 97, 3), np.float32)
  crop = augment.random_resized_crop(
    jax.random.key(0), image, 7, (1.0, 1.0), (0.5, 0.5)
  )
  np.testing.assert_allclose(crop, 1.0, rtol=1e-6)


def test_crops_are_functions_of_the_key():
  crop = jax.jit(lambda key: augment.random_resized_crop(key, _IMAGE, 5))
  first, again, other = map(crop, map(jax.random.key, (0, 0, 1)))
  assert (first == again).all()
  assert (first != other).any()


def test_flip_mirrors_about_half_of_the_images():
  keys = jax.random.split(jax.random.key(0), 199)
  flipped = jax.vmap(lambda key: augment.random_flip(key, _IMAGE))(keys)
  mirrored = (flipped == _IMAGE[:, ::-1]).all(axis=(1, 2, 3))
  untouched = (flipped == _IMAGE).all(axis=(1, 2, 3))
  assert (mirrored ^ untouched).all()
  assert 0.35 < mirrored.mean() < 0.65


def test_affine_without_ranges_is_a_resize():
  result = augment.random_affine(jax.random.key(0), _IMAGE, (17, 19))
  np.testing.assert_allclose(
    result, augment.resize(_IMAGE, (17, 19)), atol=2e-3
  )


def test_samples_are_bilinear_and_black_outside():
  rng = np.random.default_rng(0)
  for _ in range(2):
    y, x = rng.uniform(-2, 12, (5, 7)), rng.uniform(-2, 14, (5, 7))
    inside = (y > -0.5) & (y < 10.5) & (x > -0.5) & (x < 12.5)
    expected = [
      _slow_sample(_IMAGE, *at, 'edge')
      for at in zip(y.flat, x.flat, strict=True)
    ]
    expected = np.reshape(expected, (5, 7, 3)) * inside[..., None]
    np.testing.assert_allclose(
      augment.bilinear_sample(_IMAGE, y, x), expected, atol=2e-3
    )
    assert inside.any() and not inside.all()


def test_affine_turns_around_the_centre():
  # A spot three pixels off the centre stays three pixels off, at any angle.
  image = np.zeros((9, 9, 1), np.float32)
  image[1, 4] = 1.0

  def turned(key):
    return augment.random_affine(key, image, 9, rotate=180.0)[..., 0]

  spots = jax.vmap(turned)(jax.random.split(jax.random.key(0), 101))
  y, x = np.mgrid[0:9, 0:9] - 4
  mass = spots.sum(axis=(1, 2))
  radius = np.hypot((spots * y).sum((1, 2)), (spots * x).sum((1, 2))) / mass
  np.testing.assert_allclose(radius, 3.0, atol=0.35)
  angles = np.arctan2((spots * y).sum((1, 2)), (spots * x).sum((1, 2)))
  assert angles.max() - angles.min() > 5.0  # All the way around.


def test_affine_shifts_and_scales_within_their_ranges():
  # A wide smooth blob, whose centre and spread tell shift and scale.
  y, x = np.mgrid[0:41, 0:41] - 20.0
  image = np.exp(-(y**2 + x**2) / 18)[..., None].astype(np.float32)
  keys = jax.random.split(jax.random.key(1), 101)
  blobs = jax.vmap(
    lambda key: augment.random_affine(key, image, 41, scale=0.2, shift=0.1)
  )(keys)[..., 0]
  mass = blobs.sum(axis=(1, 2))
  centre_y = (blobs * y).sum((1, 2)) / mass
  assert np.abs(centre_y).max() < 4.2  # A tenth of 41 pixels.
  assert np.abs(centre_y).max() > 3.0
  spread = (blobs * (y - centre_y[:, None, None]) ** 2).sum((1, 2)) / mass
  zoom = np.sqrt(spread / 9)
  assert 0.78 < zoom.min() < 0.9
  assert 1.1 < zoom.max() < 1.22


@pytest.mark.parametrize('mode', augment.PAD_MODES)
def test_shifts_are_all_crops_of_the_padded_image(mode):
  keys = jax.random.split(jax.random.key(0), 499)
  shifted = jax.jit(
    jax.vmap(lambda key: augment.random_shift(key, _IMAGE, 2, mode))
  )(keys)
  padded = np.pad(_IMAGE, ((2, 2), (2, 2), (0, 0)), mode)
  crops = [
    padded[top : top + 11, left : left + 13]
    for top in range(5)
    for left in range(5)
  ]
  found = [
    [i for i, crop in enumerate(crops) if (crop == each).all()]
    for each in np.asarray(shifted)
  ]
  assert shifted.dtype == np.uint8
  assert all(len(each) == 1 for each in found)
  counts = np.bincount([each[0] for each in found], minlength=25)
  assert 5 < counts.min() <= counts.max() < 40  # 20 of each on average.


@pytest.mark.parametrize('name', augment.AUGMENTS)
def test_train_transform_gives_model_inputs(name):
  transform = augment.train_transform(
    ConfigDict(_PP | {'augment': name}), cropped=False
  )
  keys = jax.random.split(jax.random.key(0), 3)
  images = np.stack([_IMAGE] * 3)
  inputs = jax.jit(transform)(keys, images)
  assert inputs.shape == (3, 7, 7, 3)
  assert inputs.dtype == jnp.float32
  assert inputs.min() >= -1
  assert inputs.max() <= 1
  assert (name == 'none') == bool((inputs[0] == inputs[1]).all())
  # Of earlier versions, whose runs are continued with the same images.
  recorded = {
    'crop_flip': [
      0.5491999983787537,
      -0.15410000085830688,
      -0.1736000031232834,
    ],
    'affine': [-0.4047999978065491, -0.54830002784729, 0.16200000047683716],
    'none': [-0.1462000012397766, -0.1462000012397766, -0.1462000012397766],
  }
  if name in recorded:
    np.testing.assert_allclose(inputs[:, 2, 3, 1], recorded[name], atol=2e-4)


def test_cropped_images_are_only_flipped():
  transform = augment.train_transform(ConfigDict(_PP), cropped=True)
  images = np.stack([_IMAGE[:7, :7]] * 5)
  inputs = transform(jax.random.split(jax.random.key(0), 5), images)
  plain = augment.normalize(images)
  distance = np.minimum(
    np.abs(inputs - plain).max(axis=(1, 2, 3)),
    np.abs(inputs - plain[:, :, ::-1]).max(axis=(1, 2, 3)),
  )
  np.testing.assert_allclose(distance, 0, atol=1e-6)


@pytest.mark.parametrize('cropped', [False, True])
def test_crop_alone_never_mirrors(cropped):
  # Dark to the left and light to the right, as is every box of it.
  ramp = np.tile(np.arange(7, dtype=np.uint8)[:, None] * 30, (7, 1, 3))
  images, keys = np.stack([ramp] * 31), jax.random.split(jax.random.key(0), 31)

  def inputs(name):
    pp = ConfigDict(_PP | {'augment': name})
    return augment.train_transform(pp, cropped=cropped)(keys, images)

  rises = np.diff(inputs('crop'), axis=2)
  assert rises.min() >= -1e-6
  assert rises.max() > 0
  assert np.diff(inputs('crop_flip'), axis=2).min() < -0.01
  if cropped:  # By the host; nothing is left to do.
    np.testing.assert_array_equal(inputs('crop'), augment.normalize(images))
  else:
    one = augment.random_resized_crop(
      keys[3], ramp, 7, _PP['area_range'], _PP['ratio_range']
    )
    np.testing.assert_allclose(
      inputs('crop')[3], augment.normalize(one), atol=1e-5
    )


def test_normalize_maps_bytes_to_minus_one_to_one():
  pixels = np.array([0, 255, 51], np.uint8).reshape(1, 1, 3)
  np.testing.assert_allclose(
    augment.normalize(pixels)[0, 0], [-1, 1, -0.6], rtol=1e-6
  )


def test_eval_transform_squashes_the_whole_image():
  inputs = augment.eval_transform(ConfigDict(_PP))(_IMAGE[None])
  whole = _slow_resize(_IMAGE, (0, 0, 11, 13), (7, 7))
  np.testing.assert_allclose(inputs[0], whole / 127.5 - 1, atol=1e-4)


def test_eval_transform_cuts_the_middle_out():
  pp = ConfigDict(_PP | {'test_resize': 10})
  inputs = augment.eval_transform(pp)(_IMAGE[None])
  side = 0.7 * 11
  box = ((11 - side) / 2, (13 - side) / 2, side, side)
  middle = _slow_resize(_IMAGE, box, (7, 7))
  np.testing.assert_allclose(inputs[0], middle / 127.5 - 1, atol=1e-4)
  # What the host has cut already.
  done = _IMAGE[None, :7, :7]
  np.testing.assert_allclose(
    augment.eval_transform(pp)(done), augment.normalize(done), atol=1e-6
  )


@pytest.mark.parametrize(
  ('field', 'name', 'closest'),
  [
    ('augment', 'afine', 'affine'),
    ('augment', 'shift', 'shift_flip'),
    ('policy', 'RandAugment2', 'randaugment'),
    ('preset', 'strong_2', 'strong2'),
  ],
)
def test_unknown_name_is_answered_with_the_closest(field, name, closest):
  with pytest.raises(
    errors.ConfigError, match=f"config.pp.{field} '{name}'.*mean '{closest}'"
  ):
    augment.train_transform(ConfigDict(_PP | {field: name}), cropped=False)


def test_unknown_padding_is_answered_with_the_closest():
  pp = ConfigDict(_PP | {'augment': 'shift_flip'})
  pp.shift.mode = 'reflekt'
  with pytest.raises(errors.ConfigError, match="Did you mean 'reflect'"):
    augment.train_transform(pp, cropped=False)


@pytest.mark.parametrize('alpha', [0.2, 1.0])
def test_mixup_blends_with_the_mirrored_batch_and_keeps_the_larger_part(alpha):
  images = np.random.default_rng(0).normal(size=(5, 3, 2, 1))
  targets = np.eye(7)[[0, 1, 2, 3, 4]]
  weights = []
  for seed in range(7):
    mixed, blended = augment.mixup(jax.random.key(seed), images, targets, alpha)
    weight = float(blended[0, 0])
    np.testing.assert_allclose(
      mixed, weight * images + (1 - weight) * images[::-1], atol=1e-5
    )
    np.testing.assert_allclose(
      blended, weight * targets + (1 - weight) * targets[::-1], atol=1e-6
    )
    weights.append(weight)
  assert 0.5 <= min(weights) < max(weights) <= 1
