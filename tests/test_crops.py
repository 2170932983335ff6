"""Random crops and resizing on the host: where they sample, what they cut."""

import numpy as np

from vit_jax.data import crops


def test_squash_samples_half_pixel_centres_without_antialiasing():
  ramp = np.tile(
    np.arange(0, 240, 24, dtype=np.uint8)[None, :, None], (4, 1, 3)
  )
  down = crops.resize_squash(ramp, 5)
  np.testing.assert_array_equal(down[0, :, 0], [12, 60, 108, 156, 204])
  spike = np.zeros((9, 9, 3), np.uint8)
  spike[4, 4] = 255
  # The centre of three pixels is one of them, at full height.
  assert crops.resize_squash(spike, 3)[1, 1, 0] == 255


def test_crop_is_a_function_of_the_generator():
  image = np.random.default_rng(0).integers(
    256, size=(31, 47, 3), dtype=np.uint8
  )
  first, again, other = (
    crops.random_resized_crop(np.random.default_rng(seed), image, 13)
    for seed in (3, 3, 5)
  )
  assert first.shape == (13, 13, 3)
  assert first.dtype == np.uint8
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


def test_boxes_lie_inside_with_area_and_ratio_in_range():
  rng = np.random.default_rng(0)
  height, width = 301, 499
  boxes = np.array(
    [
      crops._random_box(rng, height, width, (0.05, 1.0), (3 / 4, 4 / 3))
      for _ in range(500)
    ]
  )
  top, left, box_height, box_width = boxes.T
  assert (top >= 0).all()
  assert (top + box_height <= height).all()
  assert (left >= 0).all()
  assert (left + box_width <= width).all()
  share = box_height * box_width / (height * width)
  ratio = box_width / box_height
  whole = (box_height == height) & (box_width == width)  # Ten misses.
  assert share.min() > 0.045
  assert share[~whole].max() <= 1
  assert ratio[~whole].min() > 0.73
  assert ratio[~whole].max() < 1.36
  assert share.min() < 0.1
  assert share.max() > 0.6


def test_boxes_are_as_often_upright_as_lying():
  rng = np.random.default_rng(0)
  boxes = np.array(
    [
      crops._random_box(rng, 499, 499, (0.1, 0.5), (1 / 4, 4))
      for _ in range(500)
    ]
  )
  assert 0.44 < (boxes[:, 2] > boxes[:, 3]).mean() < 0.56


def test_image_too_long_for_any_box_is_used_whole():
  box = crops._random_box(
    np.random.default_rng(0), 2, 1000, (0.9, 1.0), (3 / 4, 4 / 3)
  )
  assert box == (0, 0, 2, 1000)
