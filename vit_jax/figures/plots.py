"""What all plots share: a pale grid, two spines, how losses are scaled."""

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import Formatter, NullFormatter

from vit_jax.figures import canvas

# From this ratio of largest to smallest loss on, equal ratios get equal space.
_LOG_RATIO = 30


def style(
  ax: Axes, size: float = 9, grid: Literal['both', 'x', 'y'] = 'both'
) -> None:
  """Draws a grid behind the curves, and axes at the left and below alone.

  Args:
    ax: the panel.
    size: of the numbers, in points.
    grid: along which axis there are lines.
  """
  ax.set_facecolor('white')
  ax.grid(True, axis=grid, color='#e6e6e6', linewidth=0.8)
  ax.set_axisbelow(True)
  ax.spines[['top', 'right']].set_visible(False)
  ax.spines[['left', 'bottom']].set_color('#999999')
  ax.tick_params(colors=canvas.INK, labelsize=size)


def spread_losses(ax: Axes, values: np.ndarray, formatter: Formatter) -> None:
  """Gives equal ratios equal space, where losses are of several magnitudes.

  Args:
    ax: the panel.
    values: [n], all that is drawn; those that are not finite don't count.
    formatter: of the numbers.
  """
  values = values[np.isfinite(values)]
  is_positive = len(values) and values.min() > 0
  if is_positive and values.max() / values.min() > _LOG_RATIO:
    ax.set_yscale('log')
    ax.yaxis.set_major_formatter(formatter)
    ax.yaxis.set_minor_formatter(NullFormatter())
