"""Draws sweeps of two parameters as maps, and of more as panels."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vit_jax.figures import canvas, plots, sweep_axes
from vit_jax.figures.sweep_axes import (
  COLORS,
  FAILED,
  PRUNED,
  Scale,
  SweepAxis,
  SweepPoint,
)

_COLORMAP = 'cividis'
_COLUMNS = 3


def scatter(
  points: Sequence[SweepPoint], axes: Sequence[SweepAxis], metric: str
) -> Figure:
  """Draws trials at their two values, coloured by the metric."""
  figure = canvas.new(7, 5, 'constrained')
  ax = figure.subplots()
  plots.style(ax)
  scales = [Scale(axis, points, i) for i, axis in enumerate(axes)]
  scales[0].prepare(ax)
  scales[1].prepare(ax, 'y')
  scored = [p for p in points if p.has_score]
  limits = sweep_axes.limits([p.score for p in scored])
  for state, marker in (('finished', 'o'), ('pruned', 'X')):
    of_state = [p for p in scored if p.state == state]
    shown = ax.scatter(
      [scales[0].place(p.values[0]) for p in of_state],
      [scales[1].place(p.values[1]) for p in of_state],
      c=[p.score for p in of_state], cmap=_COLORMAP, vmin=limits[0],
      vmax=limits[1], marker=marker, s=90, edgecolors=canvas.INK,
      linewidths=0.8,
    )  # fmt: skip
    if state == 'finished':
      bar = figure.colorbar(shown, ax=ax, label=metric)
      bar.ax.yaxis.set_major_formatter(sweep_axes.formatter(metric))
  best = sweep_axes.best(scored, metric)
  if best is not None:
    ax.plot(
      scales[0].place(best.values[0]), scales[1].place(best.values[1]),
      marker='o', markersize=17, markerfacecolor='none', color=COLORS[1],
      markeredgewidth=1.8, clip_on=False, linestyle='none',
    )  # fmt: skip
  for p in points:
    if not p.has_score:
      ax.plot(
        scales[0].place(p.values[0]), scales[1].place(p.values[1]), marker='v',
        markersize=9, color=FAILED, markerfacecolor='white', linestyle='none',
      )  # fmt: skip
  sweep_axes.add_legend(figure, ax, points, metric, of_points=True)
  return figure


def cell_map(
  points: Sequence[SweepPoint], axes: Sequence[SweepAxis], metric: str
) -> Figure:
  """Draws a grid of cells, each with its value and coloured by it."""
  rows, columns = [*axes[0].values], [*axes[1].values]
  cells = np.full((len(rows), len(columns)), np.nan)
  texts = {}
  for p in points:
    at = rows.index(p.values[0]), columns.index(p.values[1])
    if not p.has_score:
      texts[at] = 'failed'
      continue
    cells[at] = p.score
    texts[at] = sweep_axes.number_text(p.score, metric) + ' ×' * (
      p.state == 'pruned'
    )
  figure = canvas.new(
    2 + 0.75 * len(columns), 1.6 + 0.45 * len(rows), 'constrained'
  )
  ax = figure.subplots()
  limits = sweep_axes.limits(cells[np.isfinite(cells)])
  shown = ax.imshow(
    cells, cmap=_COLORMAP, aspect='auto', vmin=limits[0], vmax=limits[1]
  )
  middle = sum(limits) / 2
  for (row, column), text in texts.items():
    dark = not cells[row, column] > middle
    empty = np.isnan(cells[row, column])
    ax.text(
      column, row, text, ha='center', va='center', fontsize=8,
      color='white' if dark and not empty else 'black',
    )  # fmt: skip
  ax.set_xticks(
    range(len(columns)), [sweep_axes.value_text(x) for x in columns]
  )
  ax.set_yticks(range(len(rows)), [sweep_axes.value_text(x) for x in rows])
  ax.set_xlabel(axes[1].name, color=canvas.INK)
  ax.set_ylabel(axes[0].name, color=canvas.INK)
  ax.tick_params(colors=canvas.INK, labelsize=9)
  bar = figure.colorbar(shown, ax=ax, label=metric)
  bar.ax.yaxis.set_major_formatter(sweep_axes.formatter(metric))
  if any(p.state == 'pruned' for p in points):
    figure.supxlabel('× pruned', fontsize=9, color=canvas.INK)
  return figure


def panels(
  points: Sequence[SweepPoint], axes: Sequence[SweepAxis], metric: str
) -> Figure:
  """Draws the metric over each parameter, all trials in each panel."""
  columns = min(_COLUMNS, len(axes))
  rows = -(-len(axes) // columns)
  figure = canvas.new(3.1 * columns + 0.6, 2.9 * rows + 0.7, 'constrained')
  grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
  panels = list(grid.flat)
  best = sweep_axes.best(points, metric)
  for i, (ax, axis) in enumerate(zip(panels, axes, strict=False)):
    plots.style(ax)
    scale = Scale(axis, points, i)
    scale.prepare(ax)
    for state, look in (
      ('finished', {'marker': 'o', 'color': COLORS[0], 'alpha': 0.75}),
      ('pruned', {'marker': 'x', 'color': PRUNED, 'markeredgewidth': 1.6}),
    ):
      of_state = [p for p in points if p.state == state and p.has_score]
      ax.plot(
        [scale.place(p.values[i]) for p in of_state],
        [p.score for p in of_state],
        linestyle='none', markersize=6, **look,
      )  # fmt: skip
    if best is not None:
      ax.plot(
        scale.place(best.values[i]), best.score, marker='o', markersize=12,
        markerfacecolor='none', color=COLORS[1], markeredgewidth=1.8,
        linestyle='none',
      )  # fmt: skip
    sweep_axes.mark_failed(ax, points, scale, i)
    if i % columns == 0:
      ax.set_ylabel(metric, color=canvas.INK)
  sweep_axes.finish_metric(panels[0], points, metric)
  for ax in panels[len(axes) :]:
    ax.set_axis_off()
  sweep_axes.add_legend(figure, panels[0], points, metric, of_points=True)
  return figure
