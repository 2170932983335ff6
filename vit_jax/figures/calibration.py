"""Draws how often predictions of some confidence are right."""

import os

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from vit_jax.figures import canvas, plots

_WIDTH, _HEIGHT = 5.2, 5.6  # Inches.


def plot_calibration(
  edges: np.ndarray,
  counts: np.ndarray,
  confidence: np.ndarray,
  accuracy: np.ndarray,
  path: str | os.PathLike,
  title: str = '',
) -> None:
  """Draws a reliability diagram, and below it how many examples a bin has.

  Args:
    edges: of the bins, [num_bins + 1], from 0 to 1.
    counts: [num_bins].
    confidence: the mean of each bin, NaN of empty ones.
    accuracy: of each bin, NaN of empty ones.
    path: the file to write; its ending says in what format.
    title: drawn above.
  """
  figure = canvas.new(_WIDTH, _HEIGHT, 'constrained')
  upper, lower = figure.subplots(2, sharex=True, height_ratios=[3, 1.2])
  _draw_accuracy(upper, edges, confidence, accuracy)
  _draw_counts(lower, edges, counts)
  for ax in (upper, lower):
    plots.style(ax, grid='y')
  # Within, it would hide bars.
  figure.legend(
    frameon=False,
    fontsize=9,
    labelcolor=canvas.INK,
    loc='outside upper center',
    ncols=2,
  )
  figure.align_ylabels([upper, lower])
  if title:
    figure.suptitle(
      canvas.wrapped(title, 10, _WIDTH - 0.3),
      fontsize=10,
      color=canvas.INK,
      parse_math=False,
    )
  canvas.save(figure, path)


def _draw_accuracy(
  ax: Axes, edges: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray
) -> None:
  middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
  filled = np.isfinite(accuracy)
  ax.plot([0, 1], [0, 1], '--', color='#888888', linewidth=1)
  ax.bar(
    middles[filled],
    accuracy[filled],
    widths[filled],
    color='#9CC9E6',
    edgecolor='white',
    label='accuracy of the bin',
  )
  # From what is claimed to what holds.
  ax.vlines(
    confidence[filled],
    accuracy[filled],
    confidence[filled],
    color='#D55E00',
    linewidth=2,
    label='gap to the confidence',
  )
  ax.plot(
    confidence[filled], accuracy[filled], 'o', color='#0072B2', markersize=4.5
  )
  ax.set_ylabel('accuracy', color=canvas.INK)
  ax.set_ylim(0, 1.02)
  ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))


def _draw_counts(ax: Axes, edges: np.ndarray, counts: np.ndarray) -> None:
  middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
  filled = counts > 0
  ax.bar(
    middles[filled],
    counts[filled],
    widths[filled],
    color='#BBBBBB',
    edgecolor='white',
  )
  # Of a sure model, nearly all are in the last.
  ax.set_yscale('log')
  ax.set_ylim(0.6, 4 * max(1, int(counts.max(initial=1))))
  ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f'{y:,g}'))
  ax.yaxis.set_minor_formatter(NullFormatter())
  # Of many bins, they would stand on each other.
  for x, count in zip(middles[filled], counts[filled], strict=True):
    if len(counts) <= 20:
      ax.annotate(
        f'{count:,}',
        (x, count),
        xytext=(0, 2),
        textcoords='offset points',
        ha='center',
        fontsize=7 if count < 1000 else 5.5,
        color=canvas.INK,
      )
  ax.set_ylabel('images', color=canvas.INK)
  ax.set_xlabel('confidence: probability of the prediction', color=canvas.INK)
  ax.set_xlim(0, 1)
  ax.xaxis.set_major_formatter(PercentFormatter(xmax=1))
