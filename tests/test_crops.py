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


def test_middle_of_a_resized_image_is_what_an_average_leaves():
  image = np.zeros((6, 10, 3), np.uint8)
  image[:, :5] = 200
  image[2:4, 4:6] = 40  # A cell of 2 by 2 pixels becomes one.
  found = crops.resize_and_crop(image, shorter=3, size=1)
  np.testing.assert_array_equal(found, [[[40, 40, 40]]])
  wider = crops.resize_and_crop(image, shorter=3, size=3)
  expected = [[200, 100, 0], [200, 40, 0], [200, 100, 0]]
  np.testing.assert_array_equal(wider[..., 0], expected)


def test_middle_is_cut_out_of_any_shape_and_written_where_it_should_be():
  rng = np.random.default_rng(0)
  for shape in [(5, 13, 3), (13, 5, 3), (31, 29, 3), (7, 7, 3)]:
    image = rng.integers(256, size=shape, dtype=np.uint8)
    out = np.empty((7, 7, 3), np.uint8)
    assert crops.resize_and_crop(image, 11, 7, out) is out
    np.testing.assert_array_equal(crops.resize_and_crop(image, 11, 7), out)
  np.testing.assert_array_equal(crops.resize_and_crop(image, 7, 7), image)
