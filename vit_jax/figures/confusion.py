"""Draws who is taken for whom: a matrix of classes, or of groups of them."""

import os
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.ticker import PercentFormatter

from vit_jax.figures import canvas

_NUMBERED = 20  # So many classes have counts in their cells.
_NAMED = 40  # And so many a name each.
_WIDTH = 5.6  # Inches.
_NAME_WIDTH = 1.2
_RIGHT = ListedColormap(matplotlib.colormaps['Blues'](np.linspace(0, 0.7, 256)))
_WRONG = matplotlib.colormaps['Oranges']


def plot_confusion(
  counts: np.ndarray,
  wrong: np.ndarray,
  names: Sequence[str],
  path: str | os.PathLike,
  title: str = '',
) -> None:
  """Draws a confusion matrix; the colours of errors have a scale of their own.

  The few errors of a good model would be white on the scale of what is right.

  Args:
    counts: [size, size], rows are true classes, columns predicted ones; or of
      groups of classes.
    wrong: the same without what is right: of classes, without the diagonal.
    names: of the rows, [size].
    path: the file to write; its ending says in what format.
    title: drawn above.
  """
  size = len(names)
  totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
  errors_share = wrong / totals
  is_of_classes = not np.diagonal(wrong).any()
  figure = canvas.new(_WIDTH, _WIDTH * 0.9, 'constrained')
  ax = figure.subplots()
  highest = max(float(errors_share.max(initial=0.0)), 1e-9)
  norm = Normalize(0, highest)
  pixels = _WRONG(norm(errors_share))
  if is_of_classes:
    diagonal = np.arange(size)
    share = np.diagonal(counts) / totals[:, 0]
    pixels[diagonal, diagonal] = _RIGHT(share)
  ax.imshow(pixels, interpolation='nearest')
  # Else a matrix without errors has a scale of errors.
  if errors_share.any():
    shown = ScalarMappable(norm, _WRONG)
    bar = figure.colorbar(shown, ax=ax, shrink=0.6, pad=0.02)
    bar.ax.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
    bar.ax.tick_params(labelsize=8, colors=canvas.INK)
    bar.set_label(
      'share of the row that is wrong', fontsize=8, color=canvas.INK
    )
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
  if size <= _NUMBERED:
    _write_counts(ax, counts, errors_share / highest, is_of_classes)
  _name(ax, names)
  if title:
    figure.suptitle(
      canvas.wrapped(title, 10, _WIDTH - 0.3),
      fontsize=10,
      color=canvas.INK,
      parse_math=False,
    )
  canvas.save(figure, path)


def _write_counts(
  ax: Axes, counts: np.ndarray, depth: np.ndarray, is_of_classes: bool
) -> None:
  points = 9 if len(counts) <= 12 else 6
  for i, j in zip(*np.nonzero(counts), strict=True):
    share = counts[i, j] / counts[i].sum()
    is_dark = share > 0.6 if i == j and is_of_classes else depth[i, j] > 0.6
    ax.text(
      j,
      i,
      f'{counts[i, j]:,}',
      ha='center',
      va='center',
      fontsize=points if counts[i, j] < 1000 else 0.7 * points,
      color='white' if is_dark else canvas.INK,
    )


def _name(ax: Axes, names: Sequence[str]) -> None:
  size = len(names)
  step = 1 if size <= _NAMED else -(-size // (_NAMED // 2))
  points = 9 if size <= 12 else 7 if size <= 20 or step > 1 else 4.5
  shown = [
    canvas.shortened(name, points, _NAME_WIDTH) for name in names[::step]
  ]
  # A name each, where they have the room side by side.
  room = 0.72 * _WIDTH / size
  is_upright = any(
    canvas.width_of(name, points) > room * step for name in shown
  )
  ticks = range(0, size, step)
  ax.set_xticks(ticks, shown, fontsize=points, rotation=90 if is_upright else 0)
  ax.set_yticks(ticks, shown, fontsize=points)
  for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
    label.set_parse_math(False)
  ax.tick_params(length=0 if step == 1 else 2, colors=canvas.INK, pad=2)
  ax.spines[:].set_color('#999999')
  ax.set_xlabel('predicted', color=canvas.INK)
  ax.set_ylabel('true', color=canvas.INK)
  if size <= _NUMBERED:
    ax.set_xticks(np.arange(1, size) - 0.5, minor=True)
    ax.set_yticks(np.arange(1, size) - 0.5, minor=True)
    ax.grid(which='minor', color='#dddddd', linewidth=0.6)
    ax.tick_params(which='minor', length=0)
