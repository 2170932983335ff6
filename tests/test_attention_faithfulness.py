"""Insertion and deletion curves against plain numpy."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import parity
import pytest
import reference
from flax import traverse_util
from small_model import IMAGE_SIZE, make_model, random_params

from vit_jax import attention, errors
from vit_jax.attention import faithfulness


@dataclasses.dataclass(frozen=True)
class Spotter:
  """A model whose class 1 is as likely as one patch is bright."""

  patch: tuple[int, int]
  patch_size: tuple[int, int] = (5, 3)
  num_classes: int = 2

  def grid(self, image_size):
    return image_size[0] // 5, image_size[1] // 3

  def apply(self, variables, images, train):
    del variables, train
    row, column = self.patch
    spot = images[:, 5 * row : 5 * row + 5, 3 * column : 3 * column + 3]
    bright = spot.mean(axis=(1, 2, 3))
    return jnp.stack([jnp.zeros_like(bright), 10 * bright], axis=1)


def softmax(logits):
  exp = np.exp(logits - logits.max())
  return exp / exp.sum()


@pytest.mark.parametrize('num_steps', [10, 3])
@pytest.mark.parametrize('baseline', ['mean', 'zero'])
def test_curves_equal_numpy(num_steps, baseline):
  model = make_model()
  params = random_params(model)
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  maps = np.random.default_rng(0).random((2, 2, 5)).astype('f4')
  classes = np.array([3, 18])
  found = attention.faithfulness_curves(
    model, params, images, maps, classes, baseline, num_steps
  )
  counts = [round(10 * step / num_steps) for step in range(num_steps + 1)]
  np.testing.assert_allclose(found.shares, np.array(counts) / 10)
  flat = traverse_util.flatten_dict(params, sep='/')
  for i in range(2):
    other = np.zeros_like(images[i])
    if baseline == 'mean':
      other += images[i].mean(axis=(0, 1))
    order = np.argsort(-maps[i].ravel())
    for step, count in enumerate(counts):
      deleted, inserted = images[i].copy(), other.copy()
      for patch in order[:count]:
        row, column = divmod(int(patch), 5)
        where = np.s_[5 * row : 5 * row + 5, 3 * column : 3 * column + 3]
        deleted[where], inserted[where] = other[where], images[i][where]
      logits = reference.vit_logits(
        flat, np.stack([deleted, inserted]), patch=(5, 3)
      )
      wanted = [softmax(row)[classes[i]] for row in logits]
      assert found.deletion[i, step] == pytest.approx(wanted[0], abs=1e-5)
      assert found.insertion[i, step] == pytest.approx(wanted[1], abs=1e-5)
    for curve, area in (
      (found.deletion, found.deletion_area),
      (found.insertion, found.insertion_area),
    ):
      wanted = np.trapezoid(curve[i], found.shares)
      assert area[i] == pytest.approx(wanted, abs=1e-6)


def test_a_map_of_what_counts_is_the_most_faithful():
  images = np.full((3, *IMAGE_SIZE, 3), 0.9, 'f4')
  maps = np.zeros((3, 2, 5), 'f4')
  maps[0, 1, 3] = 1  # The patch that is looked at.
  maps[1, 0, 4] = 1  # Another one: it comes after those of the upper left.
  maps[2, 1, 3] = -1
  found = attention.faithfulness_curves(
    Spotter((1, 3)), {}, images, maps, baseline='zero'
  )
  assert found.shares.shape == (11,)  # No more steps than patches.
  likely = 1 / (1 + np.exp(-9))
  for i, place in enumerate((0, 8, 9)):  # Patches before it.
    deleted = np.arange(11) > place
    np.testing.assert_allclose(
      found.deletion[i], np.where(deleted, 0.5, likely), atol=1e-5
    )
    np.testing.assert_allclose(
      found.insertion[i], np.where(deleted, likely, 0.5), atol=1e-5
    )
  assert found.deletion_area[0] < found.deletion_area[1] - 0.1
  assert found.insertion_area[0] > found.insertion_area[1] + 0.1


def test_predicted_class_is_that_of_the_whole_image():
  images = np.full((2, *IMAGE_SIZE, 3), 0.5, 'f4')
  images[0] = -0.5
  maps = np.zeros((2, 2, 5), 'f4')
  model = Spotter((0, 0))
  predicted, by_index = (
    attention.faithfulness_curves(model, {}, images, maps, classes, 'zero', 1)
    for classes in (None, np.array([0, 1]))
  )
  np.testing.assert_array_equal(predicted.deletion, by_index.deletion)
  assert (predicted.deletion[:, 0] > 0.99).all()
  assert (predicted.insertion[:, 1] > 0.99).all()
  np.testing.assert_allclose(predicted.deletion[:, 1], 0.5)


def test_pixels_beyond_the_last_patch_go_with_it(mini):
  ranks = faithfulness._pixel_ranks(
    -np.arange(10).reshape(1, 2, 5), IMAGE_SIZE, (5, 3)
  )
  assert ranks.shape == (1, *IMAGE_SIZE)
  for row, column in ((0, 0), (4, 2), (5, 3), (9, 14), (10, 16)):
    wanted = min(row // 5, 1) * 5 + min(column // 3, 4)
    assert ranks[0, row, column] == wanted
  case = mini('mini-hybrid')  # 4 by 4 tokens of 16 pixels, and of 61 as well.
  images = case.images[:, :61, :64]
  found = attention.faithfulness_curves(
    case.model, case.params, images, np.ones((2, 4, 4), 'f4'), num_steps=1
  )
  assert found.deletion.shape == (2, 2)


def test_blur():
  images = np.random.default_rng(0).normal(size=(2, 31, 37, 3)).astype('f4')
  images += np.linspace(0, 50, 37)[:, None]
  blurred = np.asarray(faithfulness._baseline(images, 'blur', (2, 3)))
  assert blurred.shape == images.shape
  inside = np.s_[:, 10:-10, 12:-12]
  slope = np.broadcast_to(np.linspace(0, 50, 37)[:, None], images.shape)
  assert np.abs(blurred - slope)[inside].max() < 0.6
  assert (images - slope)[inside].std() > 0.9
  assert (blurred - slope)[inside].std() < 0.2
  flat = np.full((1, 31, 37, 3), 0.7, 'f4')
  np.testing.assert_allclose(
    faithfulness._baseline(flat, 'blur', (2, 3)), flat, rtol=1e-5
  )


def test_centre_map():
  found = attention.centre_map((3, 5))
  assert found.shape == (3, 5)
  assert found.dtype == np.float32
  assert found[1, 2] == 1
  assert found[0, 0] == found[2, 4] == 0
  assert found[1, 1] > found[1, 0] > 0
  assert attention.centre_map((1, 1)) == 1


@pytest.mark.parametrize('edits, text', [
  ({'baseline': 'blurr'}, "baseline 'blurr'. Did you mean 'blur'"),
  ({'num_steps': 0}, 'num_steps 0 is not positive'),
  ({'maps': np.ones((1, 5, 2), 'f4')}, r'expected \(1, 2, 5\)'),
  ({'maps': np.ones((2, 2, 5), 'f4')}, r'expected \(1, 2, 5\)'),
  ({'classes': 2}, 'no class 2: valid are 0 to 1'),
])  # fmt: skip
def test_what_does_not_fit(edits, text):
  arguments = {'maps': np.ones((1, 2, 5), 'f4')} | edits
  images = np.ones((1, *IMAGE_SIZE, 3), 'f4')
  with pytest.raises(errors.ConfigError, match=text):
    attention.faithfulness_curves(Spotter((0, 0)), {}, images, **arguments)
