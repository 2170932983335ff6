"""Tests of the figures of a report: what is drawn, of how many classes."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex

from vit_jax import figures
from vit_jax.run_report import scores

HOSTILE = '$x^{2$ & <b> 日本'


def texts(ax):
  return [text.get_text() for text in ax.texts]


def confusion_of(size, n=400, seed=0):
  rng = np.random.default_rng(seed)
  labels = np.arange(n) % size
  predicted = np.where(rng.random(n) < 0.8, labels, rng.integers(size, size=n))
  counts = scores.confusion(labels, predicted, size)
  return counts, counts - np.diag(np.diagonal(counts))


@pytest.mark.parametrize('size', [1, 2, 10, 20])
def test_confusion_of_few_classes_has_counts(saved, tmp_path, size):
  counts, wrong = confusion_of(size)
  names = [HOSTILE, *map(str, range(1, size))]
  figures.plot_confusion(counts, wrong, names, tmp_path / 'a.png', 'title')
  ax = saved[0].axes[0]
  assert sorted(texts(ax)) == sorted(f'{n:,}' for n in counts[counts > 0])
  shown = [label.get_text() for label in ax.get_yticklabels()]
  assert len(shown) == size and shown[1:] == names[1:]
  # With errors, there is a scale of them.
  assert len(saved[0].axes) == 1 + wrong.any()


@pytest.mark.parametrize('size', [21, 100])
def test_confusion_of_many_classes_has_room(saved, tmp_path, size):
  counts, wrong = confusion_of(size)
  names = [f'a class with a long name {i}' for i in range(size)]
  figures.plot_confusion(counts, wrong, names, tmp_path / 'a.png')
  ax = saved[0].axes[0]
  assert not texts(ax)
  labels = ax.get_yticklabels()
  assert len(labels) <= 40
  boxes = [label.get_window_extent() for label in labels]
  tops = sorted((box.y0, box.y1) for box in boxes)
  overlap = [a[1] - b[0] for a, b in itertools.pairwise(tops)]
  assert max(overlap) < 2  # Pixels.
  assert min(box.x0 for box in boxes) >= 0


def test_right_and_wrong_have_colours_of_their_own(saved, tmp_path):
  counts = np.array([[98, 2], [1, 99]])
  wrong = np.array([[0, 2], [1, 0]])
  figures.plot_confusion(counts, wrong, ['a', 'b'], tmp_path / 'a.png')
  pixels = saved[0].axes[0].images[0].get_array()
  blue, deep, pale = pixels[0, 0], pixels[0, 1], pixels[1, 0]
  assert blue[2] > blue[0]
  assert deep[0] > deep[2] and pale[0] > pale[2]
  assert pale.sum() > deep.sum()  # Two of 100 are as deep as it gets.


def test_class_accuracy(saved, tmp_path):
  intervals = np.array([scores.wilson(1, 4), scores.wilson(9, 9)])
  figures.plot_class_accuracy(
    [HOSTILE, 'b'], np.array([0.25, 1]), intervals, [4, 9],
    tmp_path / 'a.png', overall=0.75,
  )  # fmt: skip
  (ax,) = saved[0].axes
  assert ax.get_yticklabels()[1].get_text() == 'b  (9)'
  top, bottom = ax.get_ylim()
  assert top > bottom  # The first is above.
  points = ax.lines[0].get_xydata()
  np.testing.assert_array_equal(points, [[0.25, 0], [1, 1]])
  segments = ax.collections[0].get_segments()
  np.testing.assert_allclose([s[:, 0] for s in segments], intervals)
  assert texts(ax) == ['all: 75.0%']


def test_equal_runs_stand_beside_each_other(saved, tmp_path):
  accuracies = np.array([[0.5, 0.5, 1.0]])
  figures.plot_class_differences(
    ['a'], accuracies, [7], ['x', 'y', 'z'], tmp_path / 'a.png'
  )
  points = [line.get_xydata()[0] for line in saved[0].axes[0].lines]
  assert len({tuple(point) for point in points}) == 3
  assert [point[0] for point in points] == [0.5, 0.5, 1.0]


@pytest.mark.parametrize('num_bins', [1, 15, 50])
def test_calibration(saved, tmp_path, num_bins):
  rng = np.random.default_rng(0)
  confidence = rng.uniform(0.3, 1, 500)
  bins = scores.reliability(confidence, rng.random(500) < 0.7, num_bins)
  figures.plot_calibration(
    bins.edges, bins.counts, bins.confidence, bins.accuracy, tmp_path / 'a.png'
  )
  upper, lower = saved[0].axes
  filled = bins.counts > 0
  heights = [bar.get_height() for bar in upper.patches]
  np.testing.assert_allclose(heights, bins.accuracy[filled])
  heights = [bar.get_height() for bar in lower.patches]
  np.testing.assert_allclose(heights, bins.counts[filled])
  numbers = [f'{count:,}' for count in bins.counts[filled]]
  assert texts(lower) == (numbers if num_bins <= 20 else [])


def test_curves_of_runs_have_a_colour_each(saved, tmp_path):
  steps = np.arange(1, 41)
  runs = {
    'first': {
      'train/loss': (steps, 1 / steps),
      'test/accuracy': (steps[::10], steps[::10] / 50),
    },
    HOSTILE: {'test/accuracy': (steps[::20], steps[::20] / 60)},
    'empty': {},
  }
  figures.plot_run_curves(runs, tmp_path / 'a.png')
  loss, accuracy = saved[0].axes
  assert [ax.get_ylabel() for ax in (loss, accuracy)] == [
    'training loss', 'test accuracy'
  ]  # fmt: skip
  assert len(loss.lines) == 1 and len(accuracy.lines) == 2
  colors = [to_hex(line.get_color()) for line in accuracy.lines]
  assert len({*colors}) == 2
  assert to_hex(loss.lines[0].get_color()) == colors[0]
  assert len(saved[0].legends[0].get_texts()) == 3


def test_runs_that_logged_nothing(saved, tmp_path):
  figures.plot_run_curves({'a': {}, 'b': {}}, tmp_path / 'a.png')
  assert texts(saved[0].axes[0]) == ['nothing logged yet']


@pytest.mark.parametrize('with_speed', [False, True])
def test_speed_is_drawn_on_demand(saved, tmp_path, with_speed):
  steps = np.arange(3)
  metrics = {
    'train/loss': (steps, 1.0 + steps),
    'train/images_per_sec': (steps, 100.0 + steps),
  }
  figures.plot_curves(metrics, tmp_path / 'a.png', with_speed=with_speed)
  found = [ax.get_ylabel() for ax in saved[0].axes]
  assert found == ['loss', *(['images/s'] if with_speed else [])]
