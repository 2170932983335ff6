"""Draws the accuracy of each class, and how it differs between runs."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from vit_jax.figures import canvas, plots
from vit_jax.figures.comparison import look_of

_WIDTH = 5.4  # Inches.
_ROW = 0.24
_SPREAD = 0.5  # Of a row, between the first and the last run.
_SIZE = 8
_NAME_WIDTH = 1.6


def plot_class_accuracy(
  names: Sequence[str],
  accuracies: np.ndarray,
  intervals: np.ndarray,
  totals: Sequence[int],
  path: str | os.PathLike,
  title: str = '',
  overall: float | None = None,
) -> None:
  """Draws a point and its interval for each class, in the order given.

  Args:
    names: of the classes, which get a row each.
    accuracies: [classes], shares.
    intervals: [classes, 2], lower and upper ends.
    totals: examples of each class.
    path: the file to write; its ending says in what format.
    title: drawn above.
    overall: accuracy of all classes, drawn as a line.
  """
  figure, ax = _rows(names, totals, title)
  places = np.arange(len(names))
  ax.hlines(
    places, intervals[:, 0], intervals[:, 1], color='#0072B2', linewidth=1.6
  )
  ax.plot(
    accuracies, places, 'o', color='#0072B2', markersize=4.5, clip_on=False
  )
  if overall is not None and np.isfinite(overall):
    ax.axvline(overall, color='#D55E00', linewidth=1, linestyle='--')
    ax.annotate(
      f'all: {overall:.1%}',
      (overall, 1),
      xycoords=('data', 'axes fraction'),
      xytext=(0, 2),
      textcoords='offset points',
      ha='right' if overall > 0.8 else 'left' if overall < 0.2 else 'center',
      fontsize=_SIZE,
      color='#B34E00',
    )
  low = float(intervals[:, 0].min(initial=1.0))
  ax.set_xlim(0 if low < 0.5 else max(0.0, low - 0.03), 1.01)
  ax.set_xlabel('accuracy, with 95% interval', color=canvas.INK)
  canvas.save(figure, path)


def plot_class_differences(
  names: Sequence[str],
  accuracies: np.ndarray,
  totals: Sequence[int],
  runs: Sequence[str],
  path: str | os.PathLike,
  title: str = '',
) -> None:
  """Draws a point for each run in the row of each class.

  Args:
    names: of the classes, which get a row each.
    accuracies: [classes, runs], shares.
    totals: examples of each class.
    runs: their names.
    path: the file to write; its ending says in what format.
    title: drawn above.
  """
  figure, ax = _rows(names, totals, title)
  places = np.arange(len(names))
  ax.hlines(
    places, accuracies.min(1), accuracies.max(1), color='#bbbbbb', linewidth=1.6
  )
  for i, name in enumerate(runs):
    look = look_of(i)
    ax.plot(
      accuracies[:, i],
      # Those that are equal stand beside each other.
      places + _SPREAD * (i - (len(runs) - 1) / 2) / max(len(runs) - 1, 1),
      color=look['color'],
      marker=look['marker'],
      linestyle='none',
      markersize=4.5,
      alpha=0.85,
      label=canvas.shortened(name, 9, 2.5),
    )
  low = float(accuracies.min(initial=1.0))
  ax.set_xlim(0 if low < 0.5 else low - 0.03, 1.01)
  ax.set_xlabel('accuracy', color=canvas.INK)
  legend = figure.legend(
    loc='outside lower center',
    ncols=min(3, len(runs)),
    frameon=False,
    fontsize=9,
    labelcolor=canvas.INK,
  )
  for text in legend.get_texts():
    text.set_parse_math(False)
  canvas.save(figure, path)


def _rows(
  names: Sequence[str], totals: Sequence[int], title: str
) -> tuple[Figure, Axes]:
  """Returns a figure with a row for each class, the first one above."""
  figure = canvas.new(_WIDTH, 1.3 + _ROW * max(len(names), 3), 'constrained')
  ax = figure.subplots()
  ax.set_ylim(len(names) - 0.5, -0.5)
  labels = [
    f'{canvas.shortened(name, _SIZE, _NAME_WIDTH)}  ({total:,})'
    for name, total in zip(names, totals, strict=True)
  ]
  ax.set_yticks(range(len(names)), labels, fontsize=_SIZE)
  for label in ax.get_yticklabels():
    label.set_parse_math(False)
  plots.style(ax, _SIZE, grid='x')
  ax.xaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
  ax.tick_params(axis='y', length=0)
  ax.spines['left'].set_visible(False)
  if title:
    figure.suptitle(
      canvas.wrapped(title, 10, _WIDTH - 0.3),
      fontsize=10,
      color=canvas.INK,
      parse_math=False,
    )
  return figure, ax
