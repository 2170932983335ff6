"""Draws the curves of several runs over each other."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import (
  FuncFormatter,
  MaxNLocator,
  PercentFormatter,
)

from vit_jax.figures import canvas, plots
from vit_jax.figures.curves import smooth

Series = tuple[np.ndarray, np.ndarray]

# As of `curves`; of more runs than colours, lines and markers differ.
_COLORS = (
  '#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#333333'
)  # fmt: skip
_MARKERS = 'osD^vP'
_LINES = ('-', '--', ':', '-.')
_WIDTH = 5.8  # Inches.


def look_of(index: int) -> dict[str, Any]:
  """Returns colour, marker and line of a run, the same in all figures."""
  return {
    'color': _COLORS[index % len(_COLORS)],
    'marker': _MARKERS[index % len(_MARKERS)],
    'linestyle': _LINES[index // len(_COLORS) % len(_LINES)],
  }


def plot_run_curves(
  runs: Mapping[str, Mapping[str, Series]],
  path: str | os.PathLike,
  title: str = '',
) -> None:
  """Draws each metric in a panel, and in it a curve for each run.

  Args:
    runs: by name, metrics as `plot_curves` takes them. Drawn are those of the
      set 'test' and of training, as far as any run has them.
    path: the file to write; its ending says in what format.
    title: drawn above.
  """
  panels = [
    (name, label, height)
    for name, label, height in (
      ('train/loss', 'training loss', 2.4),
      ('test/loss', 'test loss', 2.4),
      ('test/accuracy', 'test accuracy', 2.6),
      ('train/learning_rate', 'learning rate', 1.4),
      ('train/images_per_sec', 'images/s', 1.4),
    )
    if any(name in each for each in runs.values())
  ]
  heights = [height for _, _, height in panels] or [2]
  figure = canvas.new(_WIDTH, sum(heights) * 0.8 + 1, 'constrained')
  axes = [
    *figure.subplots(
      len(heights), sharex=True, squeeze=False, height_ratios=heights
    )[:, 0]
  ]
  for ax, (name, label, _) in zip(axes, panels, strict=False):
    for i, each in enumerate(runs.values()):
      if name in each:
        _draw(ax, name, *each[name], look_of(i))
    _finish_panel(ax, name, label)
  if not panels:
    axes[0].text(
      0.5, 0.5, 'nothing logged yet', ha='center', transform=axes[0].transAxes
    )
  axes[-1].set_xlabel('step', color=canvas.INK)
  axes[-1].set_xlim(left=0)
  axes[-1].xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:,.0f}'))
  axes[-1].xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
  figure.align_ylabels(axes)
  handles = [
    Line2D([], [], linewidth=1.6, markersize=4, **look_of(i))
    for i in range(len(runs))
  ]
  legend = figure.legend(
    handles,
    [canvas.shortened(name, 9, 2.6) for name in runs],
    loc='outside upper center',
    ncols=min(3, len(runs)),
    frameon=False,
    fontsize=9,
    labelcolor=canvas.INK,
  )
  for text in legend.get_texts():
    text.set_parse_math(False)
  if title:
    figure.suptitle(title, fontsize=10, color=canvas.INK, parse_math=False)
  canvas.save(figure, path)


def _draw(
  ax: Axes,
  name: str,
  steps: np.ndarray,
  values: np.ndarray,
  look: Mapping[str, Any],
) -> None:
  line = {'color': look['color'], 'linestyle': look['linestyle']}
  if name in ('train/loss', 'train/images_per_sec'):
    window = max(5, len(values) // 40) if len(values) >= 30 else 1
    ax.plot(steps, smooth(values, window), linewidth=1.4, **line)
  elif name.startswith('test/'):
    ax.plot(
      steps, values, linewidth=1.2, markersize=3, marker=look['marker'], **line
    )
  else:
    ax.plot(steps, values, linewidth=1.4, **line)


def _finish_panel(ax: Axes, name: str, label: str) -> None:
  ax.set_ylabel(label, color=canvas.INK, fontsize=9)
  plots.style(ax, 8)
  plain = FuncFormatter(lambda y, _: f'{y:,g}')
  if name.endswith('accuracy'):
    ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    return
  ax.yaxis.set_major_formatter(plain)
  if name.endswith('loss'):
    values = np.concatenate([[], *(line.get_ydata() for line in ax.lines)])
    plots.spread_losses(ax, values, plain)
  else:
    ax.set_ylim(bottom=0)
