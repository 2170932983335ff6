"""Tests of the curves of a run: what is drawn, whatever was logged."""

import cv2
import matplotlib
import numpy as np
import pytest

from vit_jax import figures
from vit_jax.figures import canvas


def curve(*values, every=10):
  steps = every * np.arange(1, len(values) + 1)
  return steps, np.asarray(values, float)


def draw(monkeypatch, tmp_path, metrics, title=''):
  """Returns the axes of the figure that was saved."""
  saved = []
  save = canvas.save

  def spy(figure, path):
    saved.append(figure)
    save(figure, path)

  monkeypatch.setattr(canvas, 'save', spy)
  figures.plot_curves(metrics, tmp_path / 'curves.png', title)
  return saved[0].axes


def labels(ax):
  return ax.get_legend_handles_labels()[1]


FULL = {
  'train/loss': curve(3, 2, 1),
  'train/accuracy': curve(0.1, 0.2, 0.3),
  'train/learning_rate': curve(0.0, 1e-3, 5e-4),
  'train/images_per_sec': curve(7, 7, 7),
  'validation/loss': curve(2.5, 1.5),
  'validation/accuracy': curve(0.2, 0.4, 0.3),
  'test/accuracy': curve(0.5),
  'test/top5': curve(0.9),
}


def test_panels_share_steps_and_name_sets_and_best(monkeypatch, tmp_path):
  axes = draw(monkeypatch, tmp_path, FULL, 'runs/vit')
  assert [ax.get_ylabel() for ax in axes] == [
    'loss',
    'accuracy',
    'learning rate',
  ]
  assert labels(axes[0]) == ['train', 'validation']
  assert labels(axes[1]) == [
    'train',
    'validation, best 40.0% at step 20',
    'test, best 50.0% at step 10',
  ]
  assert {ax.get_xlim() for ax in axes} == {axes[2].get_xlim()}
  assert [ax.get_xlabel() for ax in axes] == ['', '', 'step']


def test_file_is_an_image_and_nothing_else_is_left(tmp_path):
  figures.plot_curves(FULL, tmp_path / 'curves.png', 'runs/vit')
  figures.plot_curves(FULL, tmp_path / 'curves.png', 'runs/vit')
  assert [path.name for path in tmp_path.iterdir()] == ['curves.png']
  image = cv2.imread(str(tmp_path / 'curves.png'))
  assert image is not None
  assert image.shape[0] > 500
  assert image.shape[1] > 500
  assert image.std() > 5


def test_failure_leaves_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'curves.png'
  path.write_bytes(b'old')

  def full_disk(*_, **__):
    raise OSError('no space')

  monkeypatch.setattr(canvas.Figure, 'savefig', full_disk)
  with pytest.raises(OSError, match='no space'):
    figures.plot_curves(FULL, path)
  assert path.read_bytes() == b'old'
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
  'metrics',
  [
    {},
    {'train/images_per_sec': curve(7)},
    {'test/accuracy': (np.array([0]), np.array([0.1]))},
    {'train/loss': curve(np.nan)},
    {'train/loss': curve(*(40 * [np.nan])), 'test/accuracy': curve(np.nan)},
    {'train/loss': curve(0.0, -1.0, np.nan, 300.0)},
    {'train/learning_rate': curve(0.0)},
    {f'set{i}/accuracy': curve(0.1 * i) for i in range(7)},
  ],
  ids=lambda metrics: '+'.join(metrics) or 'nothing',
)
def test_odd_metrics_are_drawn(tmp_path, metrics):
  figures.plot_curves(metrics, tmp_path / 'curves.png')
  assert (tmp_path / 'curves.png').stat().st_size > 1000


def test_wide_range_of_losses_is_logarithmic(monkeypatch, tmp_path):
  (ax,) = draw(monkeypatch, tmp_path, {'train/loss': curve(2.0, 0.5, 0.01)})
  assert ax.get_yscale() == 'log'
  monkeypatch.undo()
  (ax,) = draw(monkeypatch, tmp_path, {'train/loss': curve(2.0, 0.5, 0.4)})
  assert ax.get_yscale() == 'linear'


def test_long_training_curve_is_smoothed_over_the_raw_one(
  monkeypatch, tmp_path
):
  noise = np.tile([1.0, 3.0], 50)
  (ax,) = draw(monkeypatch, tmp_path, {'train/loss': curve(*noise)})
  raw, smoothed = (line.get_ydata() for line in ax.lines)
  assert raw.tolist() == noise.tolist()
  assert np.std(smoothed) < 0.5 * np.std(raw)
  assert np.mean(smoothed) == pytest.approx(2, abs=0.05)
  assert labels(ax) == ['train']


def test_smooth_is_the_mean_of_what_is_there():
  values = np.array([1.0, 2.0, np.nan, 4.0, 8.0])
  smoothed = figures.smooth(values, 3)
  np.testing.assert_allclose(smoothed, [1.5, 1.5, np.nan, 6.0, 6.0])
  np.testing.assert_allclose(figures.smooth(np.array([5.0]), 7), [5.0])


def test_nothing_global_changes(tmp_path):
  before = dict(matplotlib.rcParams)
  figures.plot_curves(FULL, tmp_path / 'curves.png')
  assert dict(matplotlib.rcParams) == before
