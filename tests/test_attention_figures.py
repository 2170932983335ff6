"""Figures of attention: maps stand where they belong, panels say what is in."""

import xml.etree.ElementTree

import cv2
import numpy as np
import pytest

from vit_jax import errors, figures

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(256, size=(12, 20, 3)).astype(np.uint8)
MAPS = RNG.random((2, 3, 3, 5)).astype(np.float32)  # Layers, heads, grid.


# --- Pictures ----------------------------------------------------------------


def test_value_stands_in_the_middle_of_its_patch():
  # Patches of odd size have a pixel in the middle.
  large = figures.stretch(MAPS[0, 0], (9, 25))
  assert large.shape == (9, 25)
  np.testing.assert_allclose(large[1::3, 2::5], MAPS[0, 0], rtol=1e-6)
  np.testing.assert_allclose(large[1, 4], large[1, [2, 7]] @ [0.6, 0.4], 1e-6)
  assert (large[:, 0] == large[:, 2]).all()  # Beyond the outer centres.


def test_stretching_is_resizing_with_half_pixel_centres():
  wanted = cv2.resize(MAPS[1, 2], (20, 12), interpolation=cv2.INTER_LINEAR)
  np.testing.assert_allclose(
    figures.stretch(MAPS[1, 2], (12, 20)), wanted, atol=1e-6
  )


def test_patches_need_not_fill_the_image():
  part = figures.stretch(MAPS[0, 0], (13, 23), (4, 4))
  whole = figures.stretch(MAPS[0, 0], (12, 20))
  np.testing.assert_allclose(part[:12, :20], whole, rtol=1e-6)
  assert (part[:, 20:] == part[:, 19:20]).all()


def test_min_max_of_equal_values_is_zero():
  assert figures.min_max(np.full(3, 7.0)).tolist() == [0, 0, 0]
  assert figures.min_max(np.array([2, 6, 4])).tolist() == [0, 1, 0.5]


@pytest.mark.parametrize('alpha', [0.0, 0.25, 1.0])
def test_overlay_is_the_image_and_the_colours_in_their_shares(alpha):
  style = figures.Style(alpha=alpha, colormap='gray')
  found = figures.overlay(IMAGE, MAPS[0, 0], style)
  share = figures.min_max(figures.stretch(MAPS[0, 0], (12, 20)))[..., None]
  wanted = (1 - alpha) * IMAGE + alpha * 255 * share
  assert found.dtype == np.uint8
  # Colormaps have 256 colours.
  np.testing.assert_allclose(found, wanted, atol=2)


def test_six_steps():
  row, grid, large, share, product, doubled = figures.six_steps(IMAGE, MAPS[1])
  np.testing.assert_allclose(row, MAPS[1].reshape(3, 15).mean(0), rtol=1e-6)
  np.testing.assert_array_equal(grid.reshape(-1), row)
  np.testing.assert_array_equal(large, figures.stretch(grid, (12, 20)))
  assert share.min() == 0 and share.max() == 1
  np.testing.assert_allclose(product, share[..., None] * IMAGE / 255, atol=1e-6)
  np.testing.assert_allclose(doubled, np.clip(2 * product, 0, 1))


@pytest.mark.parametrize(
  ('field', 'value', 'text'),
  [
    ('alpha', 1.5, 'alpha 1.5 is not in'),
    ('alpha', float('nan'), 'alpha nan'),
    ('dpi', 0, 'dpi 0 is not in'),
    ('colormap', 'viridi', "Did you mean 'viridis'"),
  ],
)
def test_style_that_can_not_be_is_refused(field, value, text):
  with pytest.raises(errors.ConfigError, match=text):
    figures.Style(**{field: value})


# --- Figures -----------------------------------------------------------------


def shown(figure):
  """Returns the arrays of all panels."""
  return [
    np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images
  ]


def titles(figure):
  return [ax.get_title() for ax in figure.axes]


def test_overlay_stands_beside_the_image(saved, tmp_path):
  title = 'class 7, 98.3% of $5 and $6'
  style = figures.Style(note='random weights', dpi=70)
  figures.plot_overlay(IMAGE, MAPS[0, 0], tmp_path / 'a.png', title, style)
  left, right = shown(saved[0])
  np.testing.assert_array_equal(left, IMAGE)
  np.testing.assert_array_equal(
    right, figures.overlay(IMAGE, MAPS[0, 0], style)
  )
  assert saved[0].get_suptitle() == title
  assert saved[0].get_supxlabel() == 'random weights'
  boxes = [ax.get_position() for ax in saved[0].axes]
  assert boxes[0].height == pytest.approx(boxes[1].height)
  assert boxes[0].y0 == pytest.approx(boxes[1].y0)
  image = cv2.imread(str(tmp_path / 'a.png'))
  assert image is not None
  assert image.shape[1] == pytest.approx(70 * saved[0].get_figwidth(), abs=1)


def test_layers_stand_in_a_row(saved, tmp_path):
  figures.plot_layers(IMAGE, MAPS[:, 0], [1, 4], tmp_path / 'a.png')
  assert titles(saved[0]) == ['image', 'layer 1', 'layer 4']
  wanted = [IMAGE, *(figures.overlay(IMAGE, each) for each in MAPS[:, 0])]
  np.testing.assert_array_equal(shown(saved[0]), wanted)


def test_layers_are_rows_and_heads_columns(saved, tmp_path):
  figures.plot_heads(IMAGE, MAPS, [1, 4], [0, 2, 5], tmp_path / 'a.png')
  (ax,) = saved[0].axes
  (found,) = shown(saved[0])
  assert found.shape == (25, 62, 3)  # A white pixel between 12 by 20.
  for x, head in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True):
    for y, layer in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True):
      i = ('layer 1', 'layer 4').index(layer.get_text())
      j = ('head 0', 'head 2', 'head 5').index(head.get_text())
      top, left = int(y - 5.5), int(x - 9.5)
      np.testing.assert_array_equal(
        found[top : top + 12, left : left + 20],
        figures.overlay(IMAGE, MAPS[i, j]),
      )
  assert (found[12] == 255).all() and (found[:, [20, 41]] == 255).all()


@pytest.mark.parametrize('count', [1, 5])
def test_contact_sheet_has_all_images(saved, tmp_path, count):
  names = [f'{"long" * 9}_{i}.png\nclass {i}' for i in range(count)]
  maps = list(MAPS.reshape(-1, 3, 5)[:count])
  figures.plot_contact_sheet([IMAGE] * count, maps, names, tmp_path / 'a.png')
  found = shown(saved[0])
  assert len(found) == count
  for pair, values in zip(found, maps, strict=True):
    np.testing.assert_array_equal(pair[:, :20], IMAGE)
    np.testing.assert_array_equal(pair[:, -20:], figures.overlay(IMAGE, values))
  lines = titles(saved[0])[count - 1].splitlines()
  assert '…' in lines[0] and lines[0].endswith(f'_{count - 1}.png')
  assert lines[1] == f'class {count - 1}'


def test_six_steps_are_drawn(saved, tmp_path):
  figures.plot_six_steps(IMAGE, MAPS[1], tmp_path / 'a.png')
  _, *steps = figures.six_steps(IMAGE, MAPS[1])
  for found, wanted in zip(shown(saved[0]), steps, strict=False):
    np.testing.assert_allclose(found, wanted, atol=1e-6)
  assert [title[:1] for title in titles(saved[0])[:6]] == list('123456')


def test_names_that_the_font_lacks_are_drawn_all_the_same(saved, tmp_path):
  name = 'é ж \u56f3\tb'
  figures.plot_contact_sheet([IMAGE], [MAPS[0, 0]], [name], tmp_path / 'a.png')
  assert titles(saved[0]) == ['é ж ??b']


def test_formats(tmp_path):
  for name in ('a.pdf', 'a.SVG', 'b.pdf'):
    figures.plot_overlay(IMAGE, MAPS[0, 0], tmp_path / name)
  assert (tmp_path / 'a.pdf').read_bytes().startswith(b'%PDF')
  assert (tmp_path / 'a.pdf').read_bytes() == (tmp_path / 'b.pdf').read_bytes()
  root = xml.etree.ElementTree.parse(tmp_path / 'a.SVG').getroot()
  assert root is not None and root.tag.endswith('svg')
  with pytest.raises(errors.ConfigError, match="Unknown format 'gif'"):
    figures.plot_overlay(IMAGE, MAPS[0, 0], tmp_path / 'a.gif')
  assert len(list(tmp_path.iterdir())) == 3
