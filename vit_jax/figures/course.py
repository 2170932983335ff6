"""Draws what docs/how_vit_works.md explains: patches, positions, blocks."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from vit_jax.figures import canvas
from vit_jax.figures.pictures import Style, overlay

_BLUE, _ORANGE, _GREEN = '#0072B2', '#D55E00', '#009E73'
_PALE = {'norm': '#f2f2f2', 'mix': '#d6e8f5', 'mlp': '#fbe3d3'}
_DPI = 110
_NOTE = 8  # Points of what explains a panel.
_NAME = 9


def plot_patches(
  image: np.ndarray,
  patch_size: tuple[int, int],
  path: str | os.PathLike,
) -> None:
  """Draws an image, the same cut into patches, and some of the sequence.

  Args:
    image: uint8 [height, width, 3]; patches fill it.
    patch_size: (height, width) in pixels.
    path: the file to write; its ending says in what format.
  """
  rows, columns = (
    size // patch for size, patch in zip(image.shape, patch_size, strict=False)
  )
  patches = image.reshape(rows, patch_size[0], columns, patch_size[1], 3)
  patches = patches.transpose(0, 2, 1, 3, 4)
  spread = _spread(patches, gap=3)
  sequence = patches.reshape(-1, *patch_size, 3)
  # In whole pixels, so that the photograph stays sharp and the file small.
  wide = image.shape[1] + spread.shape[1] + 60
  high = spread.shape[0] + 125
  figure = canvas.new(wide / _DPI, high / _DPI, None)

  def panel(left: int, top: int, picture: np.ndarray, times: int) -> Axes:
    height, width = (times * size for size in picture.shape[:2])
    bottom = high - top - height
    place = left / wide, bottom / high, width / wide, height / high
    ax = figure.add_axes(place)
    _picture(ax, picture.repeat(times, 0).repeat(times, 1))
    return ax

  size = f'{image.shape[0]} x {image.shape[1]} pixels'
  middle = 25 + (spread.shape[0] - image.shape[0]) // 2
  _title(panel(20, middle, image, 1), size)
  right = panel(image.shape[1] + 40, 25, spread, 1)
  _title(right, f'{rows} x {columns} patches')
  last = len(sequence) - 1
  centre = (rows // 2) * columns + columns // 2
  near = range(max(2, centre - 2), min(last, centre + 3))
  numbers = [0, 1, None, *near, None, last]
  times = max(1, 32 // patch_size[0])
  step = (wide - 40) // len(numbers)
  top = spread.shape[0] + 55
  for i, number in enumerate(numbers):
    left = 20 + i * step
    if number is None:
      figure.text((left + 10) / wide, 1 - (top + 20) / high, '...', fontsize=12)
    else:
      ax = panel(left, top, sequence[number], times)
      ax.set_xlabel(f'{number}', fontsize=_NOTE, color=canvas.INK, labelpad=2)
  figure.text(
    20 / wide, 1 - (top - 8) / high, f'a sequence of {last + 1} patches:',
    fontsize=_NAME, color=canvas.INK,
  )  # fmt: skip
  canvas.save(figure, path, _DPI)


def plot_positions(
  waves: np.ndarray,
  fixed: np.ndarray,
  learned: np.ndarray,
  path: str | os.PathLike,
) -> None:
  """Draws a fixed embedding, and how alike positions are in two of them.

  Args:
    waves: [patches, width], the sin-cos embedding.
    fixed: [rows, columns, rows, columns], its cosine similarities.
    learned: the same of a trained model, of any grid.
    path: the file to write; its ending says in what format.
  """
  figure = canvas.new(9.4, 3.5, None)
  ax = figure.add_axes((0.06, 0.15, 0.27, 0.7))
  ax.imshow(waves, cmap='RdBu_r', vmin=-1, vmax=1, aspect='auto')
  _title(ax, f'sin-cos embedding, {len(waves)} x {waves.shape[1]}')
  ax.set_xlabel('element', fontsize=_NOTE, color=canvas.INK)
  ax.set_ylabel('patch', fontsize=_NOTE, color=canvas.INK)
  ax.tick_params(labelsize=7, colors=canvas.INK)
  rows, columns = fixed.shape[:2]
  several = fixed[1 :: max(1, rows // 4), 1 :: max(1, columns // 4)][:4, :4]
  for i, (values, name) in enumerate(
    (
      (several, f'sin-cos, 16 of {rows} x {columns}'),
      (learned, f'learned on digits, {learned.shape[0]} x {learned.shape[1]}'),
    )
  ):
    left = 0.385 + 0.305 * i
    ax = figure.add_axes((left, 0.15, 0.245, 0.7))
    # Each from its own lowest: the fixed ones are all alike to some degree.
    shown = ax.imshow(_mosaic(values), cmap='viridis', vmax=1)
    _title(ax, name)
    ax.set_axis_off()
    bar = figure.colorbar(
      shown, cax=figure.add_axes((left + 0.25, 0.2, 0.01, 0.6))
    )
    bar.ax.tick_params(labelsize=7, colors=canvas.INK)
  figure.text(
    0.385, 0.05, 'each small picture: cosine similarity of one patch to all',
    fontsize=_NOTE, color=canvas.INK,
  )  # fmt: skip
  canvas.save(figure, path, _DPI)


def plot_patch_attention(
  image: np.ndarray,
  weights: np.ndarray,
  grid: tuple[int, int],
  patch: tuple[int, int],
  path: str | os.PathLike,
) -> None:
  """Draws what one patch takes in each head, and the whole matrix of one.

  Args:
    image: uint8 [height, width, 3], as the model saw it.
    weights: [heads, tokens, tokens] of a layer without a class token.
    grid: (rows, columns) of patches.
    patch: the (row, column) that asks.
    path: the file to write; its ending says in what format.
  """
  heads = len(weights)
  row = patch[0] * grid[1] + patch[1]
  figure = canvas.new(2.1 * (heads + 2), 2.6, None)
  width = 1 / (heads + 2)
  panels = [
    figure.add_axes((i * width + 0.008, 0.08, width - 0.016, 0.74))
    for i in range(heads + 1)
  ]
  _picture(panels[0], image, f'patch {row} asks')
  for head, ax in enumerate(panels[1:]):
    values = weights[head, row].reshape(grid)
    _picture(ax, overlay(image, values, Style(alpha=0.65)), f'head {head}')
  height = image.shape[0] / grid[0]
  for ax in panels:
    ax.add_patch(
      Rectangle(
        (patch[1] * height - 0.5, patch[0] * height - 0.5), height, height,
        fill=False, edgecolor=_ORANGE, linewidth=2,
      )
    )  # fmt: skip
  ax = figure.add_axes(((heads + 1) * width + 0.022, 0.14, width - 0.05, 0.68))
  ax.imshow(weights[0], cmap='viridis', vmin=0, aspect='auto')
  _title(ax, f'head 0: {len(weights[0])} x {len(weights[0])}')
  ax.axhline(row - 0.5, color=_ORANGE, linewidth=1)
  ax.axhline(row + 0.5, color=_ORANGE, linewidth=1)
  ax.set_xlabel('from patch', fontsize=_NOTE, color=canvas.INK, labelpad=1)
  ax.tick_params(labelsize=6, colors=canvas.INK, pad=1)
  canvas.save(figure, path, _DPI)


def plot_block(
  tokens: int, width: int, mlp_dim: int, layers: int, path: str | os.PathLike
) -> None:
  """Draws the model with its residual stream, from pixels to logits.

  Args:
    tokens: of the sequence.
    width: of a token.
    mlp_dim: hidden width of the MLP.
    layers: how many blocks there are.
    path: the file to write; its ending says in what format.
  """
  figure = canvas.new(9.4, 3.3, None)
  ax = figure.add_axes((0, 0, 1, 1))
  ax.set(xlim=(0, 94), ylim=(0, 33))
  ax.set_axis_off()
  stream = 9.0
  ax.add_patch(
    FancyBboxPatch(
      (22, 3), 49.5, 24.5, boxstyle='round,pad=0.4', facecolor='white',
      edgecolor='#999999', linestyle='--',
    )
  )  # fmt: skip
  ax.text(23, 28.9, f'encoder block, {layers} of them', **_text(_NAME))
  _arrow(ax, (14.5, stream), (82, stream))
  _box(ax, (1, 5, 13.5, 8), 'patches\n→ tokens\n+ positions', 'norm')
  branches = (
    (
      24.5,
      (('norm', 'LayerNorm'), ('mix', 'attention')),
      'mixes tokens',
    ),
    (
      48.0,
      (('norm', 'LayerNorm'), ('mlp', f'MLP\n{width}→{mlp_dim}→{width}')),
      'each token alone',
    ),
  )
  for left, boxes, note in branches:
    _arrow(ax, (left, stream), (left, 19.8), (left + 1.3, 19.8))
    _box(ax, (left + 1.3, 17, 6.4, 5.6), boxes[0][1], boxes[0][0])
    _arrow(ax, (left + 7.7, 19.8), (left + 8.8, 19.8))
    _box(ax, (left + 8.8, 17, 10.3, 5.6), boxes[1][1], boxes[1][0])
    ax.text(left + 13.9, 23.6, note, ha='center', **_text(7))
    plus = left + 20.6
    _arrow(ax, (left + 19.1, 19.8), (plus, 19.8), (plus, stream + 1.2))
    ax.text(
      plus, stream, '+', ha='center', va='center', zorder=4,
      bbox={'boxstyle': 'circle,pad=0.15', 'fc': 'white', 'ec': canvas.INK},
      **_text(9),
    )  # fmt: skip
  ax.text(
    48, 4.6, f'residual stream: [{tokens}, {width}] all the way', ha='center',
    **_text(_NOTE),
  )  # fmt: skip
  _box(ax, (75, 5, 7, 8), 'last\nLayer-\nNorm', 'norm')
  _arrow(ax, (82, stream), (85, stream))
  _box(ax, (85, 5, 8, 8), 'class\ntoken →\nlogits', 'mlp')
  canvas.save(figure, path, _DPI)


def plot_distances(
  trained: np.ndarray,
  untrained: np.ndarray,
  reach: Sequence[float],
  path: str | os.PathLike,
) -> None:
  """Draws how far heads look, layer by layer, and how far convolutions can.

  Args:
    trained: [layers, heads], mean attention distances in pixels.
    untrained: the same with the weights of the start.
    reach: [layers], pixels from the centre that 3 x 3 convolutions see.
    path: the file to write; its ending says in what format.
  """
  figure = canvas.new(5.6, 3.2, 'constrained')
  ax = figure.add_subplot()
  layers = np.arange(len(trained))
  for values, color, marker, name in (
    (untrained, '#999999', 'x', 'untrained: each head'),
    (trained, _BLUE, 'o', 'trained: each head'),
  ):
    places = np.repeat(layers, values.shape[1])
    # Beside each other, or one would hide the other.
    places = places + (0.08 if marker == 'o' else -0.08)
    ax.plot(
      places, values.ravel(), marker, color=color, markersize=5, label=name,
      alpha=0.9,
    )  # fmt: skip
  ax.plot(
    layers, reach, color=_ORANGE, linewidth=1.4, marker='.',
    label='3 x 3 convolutions: the farthest pixel',
  )  # fmt: skip
  ax.set_xticks(layers)
  ax.set_ylim(bottom=0)
  ax.set_xlabel('layer', color=canvas.INK)
  ax.set_ylabel('distance in pixels', color=canvas.INK)
  ax.grid(True, color='#e6e6e6', linewidth=0.8)
  ax.set_axisbelow(True)
  ax.spines[['top', 'right']].set_visible(False)
  ax.tick_params(colors=canvas.INK, labelsize=_NAME)
  ax.legend(frameon=False, fontsize=_NOTE, labelcolor=canvas.INK)
  canvas.save(figure, path, _DPI)


def _spread(patches: np.ndarray, gap: int) -> np.ndarray:
  """Returns [rows, columns, height, width, 3] as one image, white between."""
  padded = np.pad(
    patches,
    ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)),
    constant_values=255,
  )
  rows, columns, height, width, _ = padded.shape
  whole = padded.transpose(0, 2, 1, 3, 4).reshape(
    rows * height, columns * width, 3
  )
  return whole[:-gap, :-gap]


def _mosaic(values: np.ndarray) -> np.ndarray:
  """Returns [rows, columns, height, width] as one map, empty between."""
  padded = np.pad(
    values.astype(np.float32),
    ((0, 0), (0, 0), (0, 1), (0, 1)),
    constant_values=np.nan,
  )
  rows, columns, height, width = padded.shape
  whole = padded.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
  return whole[:-1, :-1]


def _picture(ax: Axes, picture: np.ndarray, title: str = '') -> None:
  ax.imshow(picture, interpolation='nearest')
  ax.set_xticks([])
  ax.set_yticks([])
  ax.spines[:].set_visible(False)
  _title(ax, title)


def _title(ax: Axes, text: str) -> None:
  ax.set_title(text, fontsize=_NAME, color=canvas.INK, pad=4)


def _text(size: float) -> dict:
  return {'fontsize': size, 'color': canvas.INK}


def _box(
  ax: Axes, place: tuple[float, float, float, float], text: str, kind: str
) -> None:
  left, bottom, width, height = place
  ax.add_patch(
    FancyBboxPatch(
      (left, bottom), width, height, boxstyle='round,pad=0.1',
      facecolor=_PALE[kind], edgecolor=canvas.INK, zorder=3,
    )
  )  # fmt: skip
  ax.text(
    left + width / 2, bottom + height / 2, text, ha='center', va='center',
    zorder=4, **_text(_NOTE),
  )  # fmt: skip


def _arrow(ax: Axes, *points: tuple[float, float]) -> None:
  """Draws a line over the points, with a head at the last one."""
  ax.plot(
    *zip(*points, strict=True), color=canvas.INK, linewidth=1, zorder=2,
    solid_capstyle='butt',
  )  # fmt: skip
  ax.add_patch(
    FancyArrowPatch(
      points[-2], points[-1], arrowstyle='-|>', mutation_scale=9, shrinkA=0,
      shrinkB=0, color=canvas.INK, linewidth=1, zorder=2,
    )
  )  # fmt: skip
