"""Draws what a model looks at: overlays, layers, heads, sheets, six steps."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vit_jax.figures import canvas
from vit_jax.figures.pictures import Style, overlay, six_steps

_SIDE = 3.2  # Inches of a panel.
_SMALL_SIDE = 1.5  # Where there are many.
_BAR = 0.65  # For a colour bar and its numbers.
_SHEET_COLUMNS = 4
_LONGEST_NAME = 28


def plot_overlay(
  image: np.ndarray,
  values: np.ndarray,
  path: str | os.PathLike,
  title: str = '',
  style: Style | None = None,
) -> None:
  """Draws an image beside the same with a map over it.

  Args:
    image: uint8 [height, width, 3], as the model saw it.
    values: the map, [rows, columns].
    path: the file to write; its ending says in what format.
    title: drawn above, such as the prediction.
    style: colours and resolution.
  """
  style = style or Style()
  figure, axes = _panels(image, 1, 2, _SIDE)
  _show(axes[0, 0], image)
  _show(axes[0, 1], overlay(image, values, style))
  _finish(figure, path, title, style)


def plot_layers(
  image: np.ndarray,
  maps: np.ndarray,
  layers: Sequence[int],
  path: str | os.PathLike,
  title: str = '',
  style: Style | None = None,
) -> None:
  """Draws a row: the image, then each layer's map over it.

  Args:
    image: uint8 [height, width, 3], as the model saw it.
    maps: [len(layers), rows, columns].
    layers: their numbers.
    path: the file to write; its ending says in what format.
    title: drawn above.
    style: colours and resolution.
  """
  style = style or Style()
  side = _SIDE if len(layers) < 5 else _SMALL_SIDE
  figure, axes = _panels(image, 1, len(layers) + 1, side)
  _show(axes[0, 0], image, 'image')
  for ax, layer, values in zip(axes[0, 1:], layers, maps, strict=True):
    _show(ax, overlay(image, values, style), f'layer {layer}')
  _finish(figure, path, title, style)


def plot_heads(
  image: np.ndarray,
  maps: np.ndarray,
  layers: Sequence[int],
  heads: Sequence[int],
  path: str | os.PathLike,
  title: str = '',
  style: Style | None = None,
) -> None:
  """Draws a grid of maps: a row for each layer, a column for each head.

  Args:
    image: uint8 [height, width, 3], as the model saw it.
    maps: [len(layers), len(heads), rows, columns].
    layers: their numbers.
    heads: their numbers.
    path: the file to write; its ending says in what format.
    title: drawn above.
    style: colours and resolution.
  """
  style = style or Style()
  figure = _page(image, len(layers), len(heads), _SMALL_SIDE, 0.08)
  figure.set_figwidth(figure.get_figwidth() + 0.3)  # For the layers' names.
  ax = figure.subplots()
  # One picture, as matplotlib takes seconds to lay out a hundred panels.
  gap = max(1, max(image.shape[:2]) // 24)
  rows = [
    _joined([overlay(image, each, style) for each in row], gap, axis=1)
    for row in maps
  ]
  _show(ax, _joined(rows, gap, axis=0))
  height, width = image.shape[:2]
  ax.xaxis.tick_top()
  ax.set_xticks(
    [j * (width + gap) + (width - 1) / 2 for j in range(len(heads))],
    [f'head {head}' for head in heads],
  )
  ax.set_yticks(
    [i * (height + gap) + (height - 1) / 2 for i in range(len(layers))],
    [f'layer {layer}' for layer in layers],
    rotation='vertical',
    va='center',
  )
  ax.tick_params(length=0, labelsize=9, labelcolor=canvas.INK)
  _finish(figure, path, title, style)


def plot_contact_sheet(
  images: Sequence[np.ndarray],
  maps: Sequence[np.ndarray],
  titles: Sequence[str],
  path: str | os.PathLike,
  title: str = '',
  style: Style | None = None,
) -> None:
  """Draws many images, each beside itself with its map.

  Args:
    images: uint8 [height, width, 3], all of one size.
    maps: [rows, columns], one for each image.
    titles: one for each; lines longer than fit lose their middle.
    path: the file to write; its ending says in what format.
    title: drawn above.
    style: colours and resolution.
  """
  style = style or Style()
  columns = min(_SHEET_COLUMNS, len(images))
  rows = -(-len(images) // columns)
  gap = max(1, images[0].shape[1] // 32)
  pairs = [
    _joined([image, overlay(image, values, style)], gap, axis=1)
    for image, values in zip(images, maps, strict=True)
  ]
  figure, axes = _panels(pairs[0], rows, columns, 2 * _SMALL_SIDE, 0.4)
  for ax, pair, name in zip(axes.flat, pairs, titles, strict=False):
    _show(ax, pair, '\n'.join(map(_shortened, name.splitlines())))
  for ax in axes.flat[len(pairs) :]:
    ax.set_axis_off()
  _finish(figure, path, title, style)


def plot_six_steps(
  image: np.ndarray,
  heads: np.ndarray,
  path: str | os.PathLike,
  title: str = '',
  style: Style | None = None,
) -> None:
  """Draws how the map of the small-ViT tutorial comes about, step by step.

  Args:
    image: uint8 [height, width, 3], as the model saw it.
    heads: [heads, rows, columns], class-token maps of the last layer.
    path: the file to write; its ending says in what format.
    title: drawn above.
    style: colours and resolution.
  """
  style = style or Style()
  row, *maps = six_steps(image, heads, style.token_size)
  figure, axes = _panels(image, 2, 3, 0.8 * _SIDE, 0.3)
  figure.set_figwidth(figure.get_figwidth() + 3 * _BAR)
  names = (
    "1. mean of the heads' rows", '2. as a grid', '3. as large as the image',
    '4. from 0 to 1', '5. times the image', '6. times two',
  )  # fmt: skip
  first = axes[0, 0]
  first.set_box_aspect(image.shape[0] / image.shape[1])
  first.bar(range(len(row)), row, width=1, color='#0072B2')
  first.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
  first.set_xlabel('patch', color=canvas.INK, fontsize=8)
  first.set_title(names[0], fontsize=9, color=canvas.INK)
  first.spines[['top', 'right']].set_visible(False)
  first.tick_params(colors=canvas.INK, labelsize=7)
  for ax, values, name in zip(axes.flat[1:], maps, names[1:], strict=True):
    shown = _show(ax, values, name, style.colormap)
    if values.ndim == 2:
      bar = figure.colorbar(shown, ax=ax, shrink=0.8, pad=0.02)
      bar.ax.tick_params(labelsize=7, colors=canvas.INK)
  _finish(figure, path, title, style)


def _panels(
  image: np.ndarray, rows: int, columns: int, side: float, gap: float = 0.2
) -> tuple[Figure, np.ndarray]:
  """Returns a `_page` and its axes [rows, columns]."""
  figure = _page(image, rows, columns, side, gap)
  return figure, figure.subplots(rows, columns, squeeze=False)


def _page(
  image: np.ndarray, rows: int, columns: int, side: float, gap: float
) -> Figure:
  """Returns an empty figure on which panels of an image's shape fit.

  Args:
    image: of the shape that each panel shows.
    rows: of panels.
    columns: of panels.
    side: the longer one of a panel, in inches.
    gap: inches between rows, for their titles.
  """
  height, width = image.shape[:2]
  scale = side / max(height, width)
  # What is added is for the title and the note.
  return canvas.new(
    columns * (width * scale + 0.08),
    rows * (height * scale + gap) + 0.6,
    'compressed',
  )


def _joined(parts: Sequence[np.ndarray], gap: int, axis: int) -> np.ndarray:
  """Returns images in a row (axis 1) or column (0), white between them."""
  shape = list(parts[0].shape)
  shape[axis] = gap
  white = np.full(shape, 255, np.uint8)
  spaced = [piece for part in parts for piece in (white, part)]
  return np.concatenate(spaced[1:], axis=axis)


def _show(ax: Axes, values: np.ndarray, title: str = '', colormap: str = ''):
  """Shows an image, or with a colormap a map, and no ticks."""
  ax.set_xticks([])
  ax.set_yticks([])
  ax.spines[:].set_visible(False)
  if title:
    # Or a dollar in a file's name would begin a formula.
    ax.set_title(
      canvas.drawable(title), fontsize=9, color=canvas.INK, parse_math=False
    )
  return ax.imshow(values, cmap=colormap or None)


def _finish(
  figure: Figure, path: str | os.PathLike, title: str, style: Style
) -> None:
  text = {'color': canvas.INK, 'parse_math': False}
  if title:
    figure.suptitle(canvas.drawable(title), fontsize=10, **text)
  if style.note:
    figure.supxlabel(canvas.drawable(style.note), fontsize=8, **text)
  canvas.save(figure, path, style.dpi)


def _shortened(line: str) -> str:
  if len(line) <= _LONGEST_NAME:
    return line
  half = _LONGEST_NAME // 2 - 1
  return f'{line[:half]}…{line[-half:]}'
