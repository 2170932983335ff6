"""Draws what a model looks at: overlays, layers, heads, sheets, six steps."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vit_jax.figures import canvas, layout, panels
from vit_jax.figures.pictures import Style, overlay, six_steps

_SIDE = 3.2  # Inches of a panel.
_SMALL_SIDE = 1.5  # Where there are many.
_NAME = 0.2  # For a line of a panel's name.
_BAR = 0.75  # For a colour bar and its numbers.
_STEP = 2.3  # From one of the six steps to the next, at least.
_SHEET_COLUMNS = 4
_ROW_COLUMNS = 13  # As many as 12 layers need.
# Else a power of ten would stand where there is no room.
_NUMBERS = FuncFormatter(lambda value, _: f'{value:.4g}')


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
  figure, axes = layout.page(image.shape, (1, 2), _SIDE, style, title)
  panels.show(axes[0, 0], image)
  panels.show(axes[0, 1], overlay(image, values, style))
  panels.save(figure, path, style)


def plot_layers(
  image: np.ndarray,
  maps: np.ndarray,
  layers: Sequence[int],
  path: str | os.PathLike,
  title: str = '',
  style: Style | None = None,
) -> None:
  """Draws the image, then each layer's map over it, in a row or more.

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
  columns = min(len(layers) + 1, _ROW_COLUMNS)
  grid = -(-(len(layers) + 1) // columns), columns
  right = _room(f'layer {max(layers, default=0)}', image, side)
  figure, axes = layout.page(
    image.shape, grid, side, style, title, _NAME, right=right
  )
  places = iter(axes.flat)
  panels.show(next(places), image, 'image')
  for layer, values in zip(layers, maps, strict=True):
    panels.show(next(places), overlay(image, values, style), f'layer {layer}')
  for ax in places:
    ax.set_axis_off()
  panels.save(figure, path, style)


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
  # One picture, as matplotlib takes seconds to draw a hundred panels.
  gap = max(1, max(image.shape[:2]) // 24)
  rows = [
    panels.joined([overlay(image, each, style) for each in row], gap, axis=1)
    for row in maps
  ]
  whole = panels.joined(rows, gap, axis=0)
  side = _SMALL_SIDE * max(whole.shape[:2]) / max(image.shape[:2])
  figure, ((ax,),) = layout.page(
    whole.shape, (1, 1), side, style, title, _NAME, left=_NAME
  )
  panels.show(ax, whole)
  height, width = image.shape[:2]
  box = ax.get_position()
  ax.xaxis.tick_top()
  ax.set_xticks(
    [j * (width + gap) + (width - 1) / 2 for j in range(len(heads))],
    _numbered('head', heads, box.width * figure.get_figwidth()),
  )
  ax.set_yticks(
    [i * (height + gap) + (height - 1) / 2 for i in range(len(layers))],
    _numbered('layer', layers, box.height * figure.get_figheight()),
    rotation='vertical',
    va='center',
  )
  ax.tick_params(
    length=0, pad=2, labelsize=panels.NAME_SIZE, labelcolor=canvas.INK
  )
  panels.save(figure, path, style)


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
    panels.joined([image, overlay(image, values, style)], gap, axis=1)
    for image, values in zip(images, maps, strict=True)
  ]
  side = 2 * _SMALL_SIDE
  lines = max((name.count('\n') for name in titles), default=0) + 1
  figure, axes = layout.page(
    pairs[0].shape, (rows, columns), side, style, title, lines * _NAME
  )
  width = axes[0, 0].get_position().width * figure.get_figwidth()
  for ax, pair, name in zip(axes.flat, pairs, titles, strict=False):
    panels.show(ax, pair, name, width=width)
  for ax in axes.flat[len(pairs) :]:
    ax.set_axis_off()
  panels.save(figure, path, style)


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
  names = (
    "1. mean of the heads' rows", '2. as a grid', '3. as large as the image',
    '4. from 0 to 1', '5. times the image', '6. times two',
  )  # fmt: skip
  side = 0.8 * _SIDE
  width = side * image.shape[1] / max(image.shape[:2])
  figure, axes = layout.page(
    image.shape, (2, 3), side, style, title,
    2.5 * _NAME, left=_BAR, right=max(_BAR, _STEP - width),
  )  # fmt: skip
  first = axes[0, 0]
  # Bars would have gaps between them where a patch is no whole pixels.
  first.stairs(row, np.arange(len(row) + 1) - 0.5, fill=True, color='#0072B2')
  first.set_xlim(-0.5, len(row) - 0.5)
  first.xaxis.set_major_locator(
    MaxNLocator(nbins=max(1, min(6, int(3 * width))), integer=True)
  )
  first.yaxis.set_major_formatter(_NUMBERS)
  first.set_xlabel('patch', color=canvas.INK, fontsize=8)
  first.set_title(names[0], fontsize=panels.NAME_SIZE, color=canvas.INK, pad=3)
  first.spines[['top', 'right']].set_visible(False)
  first.tick_params(colors=canvas.INK, labelsize=7)
  for ax, values, name in zip(axes.flat[1:], maps, names[1:], strict=True):
    shown = panels.show(ax, values, name, style.colormap)
    if values.ndim == 2:
      # Of equal values, matplotlib would make a scale of its own.
      low, high = float(values.min()), float(values.max())
      one = 1.0 if name == names[3] else low + 1e-3 * abs(low)
      shown.set_clim(low, max(high, one))
      bar = figure.colorbar(shown, cax=layout.beside(figure, ax, 0.06, 0.1))
      bar.ax.yaxis.set_major_formatter(_NUMBERS)
      bar.ax.tick_params(labelsize=7, colors=canvas.INK)
  panels.save(figure, path, style)


def _room(name: str, image: np.ndarray, side: float) -> float:
  """Returns what a panel's name needs beyond the panel, in inches."""
  width = side * image.shape[1] / max(image.shape[:2])
  return max(0.0, canvas.width_of(name, panels.NAME_SIZE) - width)


def _numbered(kind: str, numbers: Sequence[int], space: float) -> list[str]:
  """Returns names such as 'head 3', or '3' where so many have no room.

  Args:
    kind: of what is numbered.
    numbers: of all that share the space.
    space: in inches.
  """
  names = [f'{kind} {number}' for number in numbers]
  widest = max(
    (canvas.width_of(name, panels.NAME_SIZE) for name in names), default=0.0
  )
  if widest * len(names) > space:
    return [str(number) for number in numbers]
  return names
