"""Draws the curves of a run: loss, accuracy and learning rate."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import (
  FuncFormatter,
  MaxNLocator,
  PercentFormatter,
)

from vit_jax.figures import canvas, plots

Series = tuple[np.ndarray, np.ndarray]
Looks = dict[str, dict[str, Any]]

# Wong 2011 (Nature Methods 8, 441): told apart by all kinds of colour vision.
_TRAIN_COLOR = '#0072B2'
# Of the set 'test', and of the others in turn: five markers for four colours,
# so that twenty sets differ in one or the other.
_TEST_LOOK = {'color': '#D55E00', 'marker': 'o'}
_COLORS = ('#009E73', '#CC79A7', '#E69F00', '#56B4E9')
_MARKERS = 'sD^vP'
# Shorter training curves are drawn as they are.
_MIN_STEPS_TO_SMOOTH = 30


def plot_curves(
  metrics: Mapping[str, Series],
  path: str | os.PathLike,
  title: str = '',
  *,
  with_speed: bool = False,
) -> None:
  """Draws loss, accuracy and learning rate over the steps.

  The file appears whole or not at all. What was not logged is left out, and
  what is not finite leaves a gap.

  Args:
    metrics: by name (steps [n], values [n]), as `metrics.read_metrics` gives
      them: 'train/loss', 'train/accuracy', 'train/learning_rate' and, for each
      evaluated set, '<set>/loss' and '<set>/accuracy'.
    path: the PNG file to write.
    title: drawn above, such as the name of the run.
    with_speed: whether 'train/images_per_sec' is drawn, too.
  """
  panels = [
    (draw, kind, height)
    for draw, kind, height in (
      (_draw_loss, 'loss', 3),
      (_draw_accuracy, 'accuracy', 3),
      (_draw_learning_rate, 'learning_rate', 1.5),
      (_draw_speed, 'images_per_sec', 1.5),
    )
    if any(_kind(name) == kind for name in metrics)
    and (with_speed or draw is not _draw_speed)
  ]
  looks = _looks(metrics)
  heights = [height for _, _, height in panels] or [3]
  figure = canvas.new(7, sum(heights) * 0.85 + 0.8, 'constrained')
  grid = figure.subplots(
    len(heights), sharex=True, squeeze=False, height_ratios=heights
  )
  axes = list(grid[:, 0])
  for ax in axes:
    plots.style(ax)
  for ax, (draw, kind, _) in zip(axes, panels, strict=False):
    draw(ax, {k: v for k, v in metrics.items() if _kind(k) == kind}, looks)
  if not panels:
    axes[0].text(
      0.5,
      0.5,
      'nothing logged yet',
      color=canvas.INK,
      ha='center',
      transform=axes[0].transAxes,
    )
    axes[0].set_yticks([])
  bottom = axes[-1]
  last = max(
    (steps.max() for steps, _ in metrics.values() if len(steps)), default=0
  )
  bottom.set_xlim(0, max(1, last * 1.02))
  bottom.set_xlabel('step', color=canvas.INK)
  bottom.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:,.0f}'))
  bottom.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
  figure.align_ylabels(axes)
  if title:
    figure.suptitle(title, fontsize=11, color=canvas.INK)
  canvas.save(figure, path)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
  """Returns the mean over a window around each value.

  Args:
    values: [n]; those that are not finite don't count.
    window: its width; at the ends only the part inside is averaged.

  Returns:
    [n]; NaN where `values` is not finite.
  """
  finite = np.isfinite(values)
  box = np.ones(min(window, len(values)))
  total = np.convolve(np.where(finite, values, 0.0), box, 'same')
  count = np.convolve(finite.astype(float), box, 'same')
  with np.errstate(invalid='ignore', divide='ignore'):
    return np.where(finite, total / count, np.nan)


def _looks(metrics: Mapping[str, Series]) -> Looks:
  """Returns the colour and marker of each evaluated set, 'test' first.

  They are the same in all panels and of all runs with these sets, whichever
  was logged first and whichever metrics it has.
  """
  sets = {
    _set(name) for name in metrics if _kind(name) in ('loss', 'accuracy')
  } - {'train', 'test'}
  looks = {'test': _TEST_LOOK}
  for i, name in enumerate(sorted(sets)):
    looks[name] = {
      'color': _COLORS[i % len(_COLORS)],
      'marker': _MARKERS[i % len(_MARKERS)],
    }
  return looks


def _draw_loss(ax: Axes, curves: Mapping[str, Series], looks: Looks) -> None:
  _draw_sets(ax, curves, looks)
  ax.set_ylabel('loss', color=canvas.INK)
  values = np.concatenate([values for _, values in curves.values()])
  plots.spread_losses(ax, values, FuncFormatter(lambda y, _: f'{y:g}'))
  _legend(ax)


def _draw_accuracy(
  ax: Axes, curves: Mapping[str, Series], looks: Looks
) -> None:
  _draw_sets(ax, curves, looks, mark_highest=True)
  ax.set_ylabel('accuracy', color=canvas.INK)
  ax.yaxis.set_major_formatter(PercentFormatter(xmax=1))
  _legend(ax)


def _draw_learning_rate(
  ax: Axes, curves: Mapping[str, Series], looks: Looks
) -> None:
  del looks  # It is of no set.
  for steps, values in curves.values():
    ax.plot(steps, values, color=canvas.INK, linewidth=1.4)
  ax.set_ylabel('learning rate', color=canvas.INK)
  ax.set_ylim(bottom=0)
  ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f'{y:g}'))


def _draw_speed(ax: Axes, curves: Mapping[str, Series], looks: Looks) -> None:
  del looks  # It is of no set.
  for steps, values in curves.values():
    ax.plot(
      steps, values, color=canvas.INK, linewidth=1.2, marker='.', markersize=3
    )
  ax.set_ylabel('images/s', color=canvas.INK)
  ax.set_ylim(bottom=0)
  ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f'{y:,g}'))


def _draw_sets(
  ax: Axes,
  curves: Mapping[str, Series],
  looks: Looks,
  mark_highest: bool = False,
) -> None:
  """Draws the training curve first and each evaluated set over it."""
  by_set = {_set(name): series for name, series in curves.items()}
  if 'train' in by_set:
    _draw_train(ax, *by_set['train'])
  for label, look in looks.items():
    if label not in by_set:  # Some have an accuracy alone.
      continue
    steps, values = by_set[label]
    if mark_highest and np.isfinite(values).any():
      best = int(np.nanargmax(values))
      label += f', best {values[best]:.1%} at step {steps[best]:,}'
      ax.plot(
        steps[best],
        values[best],
        markersize=10,
        markerfacecolor='none',
        **look,
      )
    ax.plot(steps, values, markersize=4, linewidth=1.4, label=label, **look)


def _draw_train(ax: Axes, steps: np.ndarray, values: np.ndarray) -> None:
  line = {'color': _TRAIN_COLOR, 'linewidth': 1.4, 'label': 'train'}
  if np.isfinite(values).sum() < _MIN_STEPS_TO_SMOOTH:
    # A point alone would be a line without length.
    ax.plot(steps, values, marker='.', markersize=3, **line)
    return
  ax.plot(steps, values, color=_TRAIN_COLOR, linewidth=0.8, alpha=0.3)
  ax.plot(steps, smooth(values, max(5, len(values) // 40)), **line)


def _set(name: str) -> str:
  return name.rpartition('/')[0]


def _kind(name: str) -> str:
  return name.rpartition('/')[2]


def _legend(ax: Axes) -> None:
  if ax.get_legend_handles_labels()[1]:
    ax.legend(frameon=False, fontsize=9, labelcolor=canvas.INK)
