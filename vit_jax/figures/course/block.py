"""Draws the model as boxes and arrows along the residual stream."""

import os

from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from vit_jax.figures import canvas
from vit_jax.figures.course import looks

_PALE = {'norm': '#f2f2f2', 'mix': '#d6e8f5', 'mlp': '#fbe3d3'}


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
  ax.text(
    23, 28.9, f'encoder block, {layers} of them', **_text(looks.NAME_SIZE)
  )
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
    **_text(looks.NOTE_SIZE),
  )  # fmt: skip
  _box(ax, (75, 5, 7, 8), 'last\nLayer-\nNorm', 'norm')
  _arrow(ax, (82, stream), (85, stream))
  _box(ax, (85, 5, 8, 8), 'class\ntoken →\nlogits', 'mlp')
  canvas.save(figure, path, looks.DPI)


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
    zorder=4, **_text(looks.NOTE_SIZE),
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
