"""Draws a sweep: every trial's metric over the values of its parameters."""

import os
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vit_jax.figures import canvas, plots, sweep_axes, sweep_maps
from vit_jax.figures.sweep_axes import (
  COLORS,
  PRUNED,
  Scale,
  SweepAxis,
  SweepPoint,
  Value,
)

_MARKERS = 'osD^vP'


def plot_sweep(
  points: Sequence[SweepPoint],
  axes: Sequence[SweepAxis],
  metric: str,
  path: str | os.PathLike,
  title: str = '',
) -> None:
  """Draws one parameter as a line, two as lines or a map, more as panels.

  Args:
    points: the trials.
    axes: the parameters, as in the values of each point.
    metric: such as 'test/accuracy'; those that end in '/loss' are better low,
      all others are shares.
    path: the file to write; its ending says in what format.
    title: drawn above.
  """
  drawn = [
    p
    for p in points
    if p.state in ('finished', 'pruned', 'failed') and '' not in p.values
  ]
  if not drawn:
    figure = canvas.new(7, 1.5, 'constrained')
    figure.text(0.5, 0.5, 'no trial has ended yet', ha='center')
  elif len(axes) == 1:
    figure = _lines(drawn, axes, metric, 0, None)
  elif len(axes) == 2:
    over, lines = _line_axes(axes)
    if lines is not None:
      figure = _lines(drawn, axes, metric, over, lines)
    elif all(axis.values for axis in axes):
      figure = sweep_maps.cell_map(drawn, axes, metric)
    else:
      figure = sweep_maps.scatter(drawn, axes, metric)
  else:
    figure = sweep_maps.panels(drawn, axes, metric)
  if title:
    figure.suptitle(canvas.drawable(title), fontsize=11, color=canvas.INK)
  canvas.save(figure, path)


def _line_axes(axes: Sequence[SweepAxis]) -> tuple[int, int | None]:
  """Returns which parameter is along the axis, and which makes the lines."""
  few = [
    i for i, axis in enumerate(axes) if 0 < len(axis.values) <= len(COLORS)
  ]
  if not few:
    return 0, None
  # Lines of words, along numbers; else lines of what has fewer values.
  lines = min(
    few,
    key=lambda i: (
      all(map(sweep_axes.is_number, axes[i].values)),
      len(axes[i].values),
      -i,
    ),
  )
  return 1 - lines, lines


def _lines(
  points: Sequence[SweepPoint],
  axes: Sequence[SweepAxis],
  metric: str,
  over: int,
  lines: int | None,
) -> Figure:
  """Draws the metric over a parameter, a line for each value of another."""
  figure = canvas.new(7, 4.4, 'constrained')
  ax = figure.subplots()
  plots.style(ax)
  scale = Scale(axes[over], points, over)
  scale.prepare(ax)
  groups: list[Value | None] = (
    [None] if lines is None else [*axes[lines].values]
  )
  for i, group in enumerate(groups):
    of_group = [p for p in points if lines is None or p.values[lines] == group]
    name = (
      f'{axes[lines].name} = {sweep_axes.value_text(group)}'
      if lines is not None
      else ''
    )
    _draw_group(ax, of_group, scale, over, i, len(groups), name)
  sweep_axes.finish_metric(ax, points, metric)
  sweep_axes.mark_failed(ax, points, scale, over)
  sweep_axes.add_legend(figure, ax, points, metric)
  return figure


def _draw_group(
  ax: Axes,
  points: Sequence[SweepPoint],
  scale: Scale,
  over: int,
  i: int,
  num_groups: int,
  name: str,
) -> None:
  color, marker = COLORS[i % 6], _MARKERS[i % 6]
  finished = sorted(
    (p for p in points if p.state == 'finished' and p.has_score),
    key=lambda p: scale.place(p.values[over]),
  )
  # Side by side where they'd hide each other's bars and marks.
  shift = 0.0
  if not scale.is_number and num_groups > 1:
    shift = (i - (num_groups - 1) / 2) * 0.5 / num_groups
  xs = [scale.place(p.values[over]) + shift for p in finished]
  ys = [p.score for p in finished]
  is_line = not scale.is_range and scale.is_number
  ax.errorbar(
    xs, ys, yerr=[p.spread or 0.0 for p in finished], color=color,
    marker=marker, markersize=6, linestyle='-' if is_line else 'none',
    linewidth=1.4, capsize=3 * any(p.spread for p in finished),
    label=name or '_', alpha=0.9,
  )  # fmt: skip
  pruned = [p for p in points if p.state == 'pruned' and p.has_score]
  ax.plot(
    [scale.place(p.values[over]) + shift for p in pruned],
    [p.score for p in pruned],
    linestyle='none', marker='x', markersize=7, markeredgewidth=1.6,
    color=color if num_groups > 1 else PRUNED,
  )  # fmt: skip
