"""What figures of sweeps share: trials, scales of parameters, marks, legend."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from vit_jax.figures import canvas

Value = bool | int | float | str

# Wong 2011, as in the curves; more lines than these are no longer told apart.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
PRUNED, FAILED = '#777777', '#000000'
# From this ratio of largest to smallest value on, ratios get equal space.
_LOG_RATIO = 8


@dataclasses.dataclass(frozen=True)
class SweepPoint:
  """A trial.

  Attributes:
    number: from 0.
    values: of each parameter; '' where it has none yet.
    score: NaN of a trial without.
    spread: standard deviation over seeds, or None.
    state: 'finished', 'pruned', 'failed' or another, which is not drawn.
  """

  number: int
  values: tuple[Value, ...]
  score: float
  spread: float | None
  state: str

  @property
  def has_score(self) -> bool:
    """Whether there is a value to be drawn."""
    return math.isfinite(self.score)


@dataclasses.dataclass(frozen=True)
class SweepAxis:
  """A parameter.

  Attributes:
    name: as it is written at the axis.
    values: that were to be tried, () of a range.
    is_log: whether a range is of ratios.
  """

  name: str
  values: tuple[Value, ...] = ()
  is_log: bool = False


class Scale:
  """Places of a parameter's values on an axis."""

  def __init__(self, axis: SweepAxis, points: Sequence[SweepPoint], i: int):
    self.name = axis.name
    self.is_range = not axis.values
    values = [*(axis.values or (p.values[i] for p in points))]
    numbers = [x for x in values if is_number(x)]
    self.is_number = len(numbers) == len(values) and bool(values)
    self.names = [] if self.is_number else [*dict.fromkeys(map(str, values))]
    low, high = (
      (float(min(numbers)), float(max(numbers))) if self.is_number else (0, 0)
    )
    self.ticks = sorted({float(x) for x in numbers}) if axis.values else []
    self.is_log = self.is_number and (
      axis.is_log
      or (not self.is_range and low > 0 and high / low >= _LOG_RATIO)
    )

  def place(self, value: Value) -> float:
    """Returns where a value is."""
    return float(value) if self.is_number else self.names.index(str(value))

  def prepare(self, ax: Axes, which: str = 'x') -> None:
    """Gives an axis its scale, ticks and name."""
    axis = ax.xaxis if which == 'x' else ax.yaxis
    label = ax.set_xlabel if which == 'x' else ax.set_ylabel
    label(canvas.drawable(self.name), color=canvas.INK)
    if not self.is_number:
      names = [canvas.shortened(name, 9, 1.2) for name in self.names]
      axis.set_ticks(range(len(names)), names)
      limits = -0.5, len(names) - 0.5
      _ = ax.set_xlim(*limits) if which == 'x' else ax.set_ylim(*limits)
      return
    if self.is_log:
      _ = ax.set_xscale('log') if which == 'x' else ax.set_yscale('log')
      axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:.3g}'))
    if self.ticks and len(self.ticks) <= 8:
      axis.set_ticks(self.ticks)
      axis.set_ticks([], minor=True)


def finish_metric(ax: Axes, points: Sequence[SweepPoint], metric: str) -> None:
  """Gives the metric's axis its name, numbers and room for failed trials."""
  ax.set_ylabel(metric, color=canvas.INK)
  ax.yaxis.set_major_formatter(formatter(metric))
  if not any(p.has_score for p in points):
    ax.set_yticks([])
    return
  low, high = ax.get_ylim()
  if any(not p.has_score for p in points):
    low -= 0.1 * (high - low)
  ax.set_ylim(low, high)
  ax.yaxis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))


def mark_failed(
  ax: Axes, points: Sequence[SweepPoint], scale: Scale, over: int
) -> None:
  """Marks trials without a value on the axis below."""
  for p in points:
    if not p.has_score:
      ax.plot(
        scale.place(p.values[over]), 0.02, marker='v', markersize=8,
        color=FAILED, markerfacecolor='white', linestyle='none',
        transform=ax.get_xaxis_transform(), clip_on=False, zorder=5,
      )  # fmt: skip


def add_legend(
  figure: Figure,
  ax: Axes,
  points: Sequence[SweepPoint],
  metric: str,
  of_points: bool = False,
) -> None:
  """Names lines and marks below the panels, where they hide nothing."""
  handles, names = ax.get_legend_handles_labels()
  plain: dict[str, Any] = {'linestyle': 'none', 'markersize': 7}
  states = {p.state for p in points}
  if of_points and 'finished' in states:
    handles.append(Line2D([], [], marker='o', color=COLORS[0], **plain))
    names.append('finished')
    ring = {**plain, 'markersize': 11, 'markeredgewidth': 1.8}
    handles.append(
      Line2D(
        [], [], marker='o', color=COLORS[1], markerfacecolor='none', **ring
      )
    )
    names.append('best')
  if 'pruned' in states:
    handles.append(
      Line2D([], [], marker='x', color=PRUNED, markeredgewidth=1.6, **plain)
    )
    names.append('pruned, where it was then')
  if 'failed' in states:
    handles.append(
      Line2D([], [], marker='v', color=FAILED, markerfacecolor='white', **plain)
    )
    names.append('failed')
  spreads = [p.spread for p in points if p.spread is not None]
  title = 'bars: ± standard deviation over seeds' if spreads else None
  if handles:
    figure.legend(
      handles, names, loc='outside lower center', ncols=min(4, len(names)),
      frameon=False, fontsize=9, labelcolor=canvas.INK, title=title,
      title_fontsize=8,
    )  # fmt: skip


def best(points: Sequence[SweepPoint], metric: str) -> SweepPoint | None:
  finished = [p for p in points if p.state == 'finished']
  sign = -1 if metric.endswith('/loss') else 1
  return max(finished, key=lambda p: sign * p.score, default=None)


def limits(scores: Any) -> tuple[float, float]:
  """Returns both ends of a colour scale, which differ."""
  values = [float(x) for x in scores] or [0.0, 1.0]
  low, high = min(values), max(values)
  return (low, high) if high > low else (low - 0.01, high + 0.01)


def formatter(metric: str) -> FuncFormatter:
  return FuncFormatter(lambda y, _: number_text(y, metric))


def number_text(value: float, metric: str) -> str:
  if metric.endswith('/loss'):
    return f'{value:.4g}'
  return f'{100 * value:.4g}%'


def value_text(value: Any) -> str:
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)
