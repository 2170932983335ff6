"""Tests of the curves of a run: what is drawn, whatever was logged."""

import cv2
import matplotlib
import matplotlib.text
import numpy as np
import PIL.Image
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
    'test, best 50.0% at step 10',
    'validation, best 40.0% at step 20',
  ]
  assert {ax.get_xlim() for ax in axes} == {axes[2].get_xlim()}
  assert [ax.get_xlabel() for ax in axes] == ['', '', 'step']


def looks(ax):
  lines = zip(*ax.get_legend_handles_labels(), strict=True)
  return {
    label.partition(',')[0]: (line.get_color(), line.get_marker())
    for line, label in lines
  }


def test_each_set_looks_the_same_in_all_panels_and_orders(
  monkeypatch, tmp_path
):
  metrics = {
    'real/accuracy': curve(0.3, 0.6),  # Of several labels, so without a loss.
    'test/accuracy': curve(0.2, 0.5),
    'test/loss': curve(2, 1),
    'holdout/loss': curve(2.1, 1.1),
    'holdout/accuracy': curve(0.2, 0.4),
    'train/accuracy': curve(0.3, 0.4),
    'train/loss': curve(1.9, 0.9),
  }
  found = []
  for given in (metrics, dict(reversed(metrics.items()))):
    loss, accuracy = map(looks, draw(monkeypatch, tmp_path, given))
    assert [*loss] == ['train', 'test', 'holdout']
    assert [*accuracy] == ['train', 'test', 'holdout', 'real']
    assert loss.items() <= accuracy.items()
    assert len({color for color, _ in accuracy.values()}) == 4
    found.append(accuracy)
    monkeypatch.undo()
  assert found[0] == found[1]
  (alone,) = draw(monkeypatch, tmp_path, {'test/loss': curve(2, 1)})
  assert looks(alone)['test'] == found[0]['test']


def test_many_sets_are_told_apart(monkeypatch, tmp_path):
  names = ['test', *(f'set{i:02}' for i in range(20))]
  (ax,) = draw(
    monkeypatch, tmp_path, {f'{name}/loss': curve(2, 1) for name in names}
  )
  found = looks(ax)
  assert [*found] == names
  assert len({*found.values()}) == 21
  colors = [color for color, _ in found.values()]
  assert colors.count(found['test'][0]) == 1


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

  monkeypatch.setattr(canvas, '_save_png', full_disk)
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


# --- Pages of panels ---------------------------------------------------------

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(256, size=(30, 50, 3)).astype(np.uint8)
MAPS = RNG.random((5, 4, 3, 5)).astype(np.float32)
TITLE = 'a very long title of many words ' * 5


def kinds_of_figure():
  maps = list(MAPS[:, 0])
  names = [
    'W' * 99 + '.png\nclass 7',
    'a$x_{1}$\tc <&> \\frac \N{SNOWMAN}',
    '',
    'd',
  ]
  return {
    'overlay': lambda path, *text: figures.plot_overlay(
      IMAGE, maps[0], path, *text
    ),
    'layers': lambda path, *text: figures.plot_layers(
      IMAGE, MAPS[:, 0], range(5), path, *text
    ),
    'heads': lambda path, *text: figures.plot_heads(
      IMAGE, MAPS[:2], [3, 11], range(4), path, *text
    ),
    'sheet': lambda path, *text: figures.plot_contact_sheet(
      [IMAGE] * 5, maps, [*names, 'e'], path, *text
    ),
    'six_steps': lambda path, *text: figures.plot_six_steps(
      IMAGE, 1e-5 * MAPS[0], path, *text
    ),
    'long_numbers': lambda path, *text: figures.plot_six_steps(
      np.zeros((60, 60, 3), np.uint8), 0.00505 + 6e-5 * MAPS[0], path, *text
    ),
    'equal': lambda path, *text: figures.plot_six_steps(
      IMAGE, np.full((2, 3, 5), 1 / 196), path, *text
    ),
    'narrow_steps': lambda path, *text: figures.plot_six_steps(
      np.zeros((120, 20, 3), np.uint8), MAPS[0], path, *text
    ),
    'narrow_layers': lambda path, *text: figures.plot_layers(
      np.zeros((120, 20, 3), np.uint8), MAPS[0, :3], range(9, 12), path, *text
    ),
    'narrow_heads': lambda path, *text: figures.plot_heads(
      np.zeros((120, 20, 3), np.uint8),
      MAPS[:2, :3],
      [0, 9],
      range(9, 12),
      path,
      *text,
    ),
    'flat_heads': lambda path, *text: figures.plot_heads(
      np.zeros((20, 160, 3), np.uint8),
      MAPS[:2, :3],
      [0, 11],
      range(3),
      path,
      *text,
    ),
  }


def boxes_of_text(figure):
  """Returns [(text, its box in pixels)] of all that is written."""
  renderer = figure.canvas.get_renderer()
  beyond = {  # Ticks past the end of an axis are there, but not drawn.
    label
    for ax in figure.axes
    for axis in (ax.xaxis, ax.yaxis)
    for tick in axis.get_major_ticks()
    if not min(axis.get_view_interval())
    <= tick.get_loc()
    <= max(axis.get_view_interval())
    for label in (tick.label1, tick.label2)
  }
  return [
    (text.get_text(), text.get_window_extent(renderer))
    for text in figure.findobj(matplotlib.text.Text)
    if text.get_visible() and text.get_text().strip() and text not in beyond
  ]


@pytest.mark.parametrize('kind', kinds_of_figure())
def test_no_text_is_cut_or_overlaps(saved, tmp_path, kind):
  style = figures.Style(note=TITLE, dpi=80)
  kinds_of_figure()[kind](tmp_path / 'a.png', TITLE, style)
  texts = boxes_of_text(saved[0])
  assert len(texts) > 1
  width, height = saved[0].bbox.size
  images = [ax.get_window_extent() for ax in saved[0].axes if ax.images]
  for i, (text, box) in enumerate(texts):
    assert box.x0 >= 0 and box.y0 >= 0, text
    assert box.x1 <= width and box.y1 <= height, text
    others = [other for _, other in texts[i + 1 :]] + images
    for other in others:
      across = min(box.x1, other.x1) - max(box.x0, other.x0)
      down = min(box.y1, other.y1) - max(box.y0, other.y0)
      assert across <= 1 or down <= 1, text


def test_equal_values_have_a_scale_of_their_own(saved, tmp_path):
  kinds_of_figure()['equal'](tmp_path / 'a.png')
  limits = [ax.images[0].get_clim() for ax in saved[0].axes[1:4]]
  value = pytest.approx(1 / 196, rel=1e-5)
  assert limits[:2] == [(value, pytest.approx(1.001 / 196, rel=1e-5))] * 2
  assert limits[2] == (0, 1)


@pytest.mark.parametrize('dpi', [70, 97, 150])
def test_pixel_of_an_image_is_whole_pixels_of_the_file(tmp_path, dpi):
  style = figures.Style(dpi=dpi)
  figures.plot_overlay(IMAGE, MAPS[0, 0], tmp_path / 'a.png', style=style)
  page = np.asarray(PIL.Image.open(tmp_path / 'a.png'))
  times = round(3.2 * dpi / 50)
  wanted = IMAGE.repeat(times, axis=0).repeat(times, axis=1)
  top = left = -(-8 * dpi // 100)  # The margin.
  found = page[top : top + 30 * times, left : left + 50 * times]
  np.testing.assert_array_equal(found, wanted)
  assert (page[:top] == 255).all() and (page[:, :left] == 255).all()


@pytest.mark.parametrize('ending', ['png', 'pdf', 'svg'])
def test_same_figure_is_the_same_file(tmp_path, ending):
  paths = [tmp_path / f'{name}.{ending}' for name in 'ab']
  before = dict(matplotlib.rcParams)
  for path in paths:
    kinds_of_figure()['six_steps'](path, 'title')
  assert paths[0].read_bytes() == paths[1].read_bytes()
  assert dict(matplotlib.rcParams) == before


def test_pdf_has_truetype_fonts_and_the_pixels_as_they_are(tmp_path):
  kinds_of_figure()['overlay'](tmp_path / 'a.pdf', 'title')
  content = (tmp_path / 'a.pdf').read_bytes()
  assert b'/Subtype /Type3' not in content and b'/FontFile2' in content
  assert content.count(b'/Width 50') == 2
  assert b'/Interpolate true' not in content


def test_svg_has_the_pixels_as_they_are(saved, tmp_path):
  kinds_of_figure()['overlay'](tmp_path / 'a.svg', 'title')
  modes = {im.get_interpolation() for ax in saved[0].axes for im in ax.images}
  assert modes == {'none'}
  text = (tmp_path / 'a.svg').read_text()
  assert text.count('width="50"') == 2 or text.count('<image') == 2


def test_many_layers_make_rows(saved, tmp_path):
  maps = RNG.random((24, 3, 5))
  figures.plot_layers(IMAGE, maps, range(24), tmp_path / 'a.png')
  places = [ax.get_position() for ax in saved[0].axes]
  assert len({round(place.y0, 6) for place in places}) == 2
  assert len({round(place.x0, 6) for place in places}) == 13
  assert [ax.get_title() for ax in saved[0].axes][-2:] == ['layer 23', '']


def test_lines_are_broken_at_words_and_names_in_the_middle():
  wrapped = canvas.wrapped('some words of  text ' + 'W' * 30, 10, 1.0)
  lines = wrapped.splitlines()
  assert len(lines) > 3 and lines[0] == 'some words'
  assert ''.join(lines[2:]).replace(' ', '').endswith('W' * 30)
  short = canvas.shortened('beginning_' + 'm' * 99 + '_end.png', 9, 2.0)
  assert short.startswith('begin') and short.endswith('_end.png')
  assert 2.0 - 0.2 < canvas.width_of(short, 9) <= 2.0
  assert canvas.shortened('short', 9, 2.0) == 'short'
  assert canvas.wrapped('', 9, 2.0) == ''
