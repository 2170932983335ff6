"""Where panels stand: on whole pixels, so that an image's stay as they are."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vit_jax.figures import canvas
from vit_jax.figures.pictures import Style

_MARGIN = 0.08  # Inches around the page, and between panels.
_MIN_WIDTH = 3.2  # Inches; a narrower page has no room for its title.
_LINE = 1.25  # Height of a line of text over its size.
_TITLE, _NOTE = 10, 8  # Points.


def page(
  shape: Sequence[int],
  grid: tuple[int, int],
  side: float,
  style: Style,
  title: str = '',
  head: float = 0.0,
  left: float = 0.0,
  right: float = 0.0,
) -> tuple[Figure, np.ndarray]:
  """Returns a figure with its title, note and empty panels.

  matplotlib's own layout takes longer than all the drawing, and leaves panels
  at fractions of pixels.

  Args:
    shape: [height, width, ...] in pixels of the images to show.
    grid: (rows, columns) of panels.
    side: about the longer one of a panel, in inches; an image's pixel becomes a
      whole number of the file's where that changes it little.
    style: gives the resolution and the note.
    title: drawn above; long ones are wrapped.
    head: inches above each panel, for its name.
    left: inches for what stands left of the first column.
    right: inches for what stands right of each panel.

  Returns:
    The figure and its axes [rows, columns].
  """
  rows, columns = grid
  height, width = _panel(shape, side * style.dpi)

  def pixels(inches: float) -> int:
    return math.ceil(inches * style.dpi)

  gap = margin = pixels(_MARGIN)
  step = width + pixels(right) + gap
  wide = pixels(left) + columns * step - gap + 2 * margin
  page_width = max(wide, pixels(_MIN_WIDTH))
  inside = (page_width - 2 * margin) / style.dpi
  above = canvas.wrapped(title, _TITLE, inside)
  below = canvas.wrapped(style.note, _NOTE, inside)
  top = margin + pixels(_height(above, _TITLE))
  fall = height + pixels(head) + gap
  page_height = top + rows * fall - gap + pixels(_height(below, _NOTE)) + margin
  figure = canvas.new(
    _inches(page_width, style.dpi), _inches(page_height, style.dpi), None
  )
  text = {'color': canvas.INK, 'parse_math': False, 'linespacing': 1.1}
  border = margin / page_height
  if above:
    figure.suptitle(above, y=1 - border, va='top', fontsize=_TITLE, **text)
  if below:
    figure.supxlabel(below, y=border, va='bottom', fontsize=_NOTE, **text)
  start = (page_width - wide) // 2 + margin + pixels(left)
  axes = np.empty(grid, Axes)
  for i, j in np.ndindex(grid):
    bottom = page_height - top - i * fall - pixels(head) - height
    axes[i, j] = figure.add_axes(
      (
        (start + j * step) / page_width,
        bottom / page_height,
        width / page_width,
        height / page_height,
      )
    )
  return figure, axes


def beside(figure: Figure, ax: Axes, space: float, thickness: float) -> Axes:
  """Returns axes for a colour bar at the right of others.

  Args:
    figure: that of `ax`.
    ax: what it belongs to.
    space: between them, in inches.
    thickness: in inches.
  """
  box = ax.get_position()
  width = figure.get_figwidth()
  place = box.x1 + space / width, box.y0 + 0.05 * box.height
  return figure.add_axes((*place, thickness / width, 0.9 * box.height))


def _panel(shape: Sequence[int], wanted: float) -> tuple[int, int]:
  """Returns the (height, width) in the file's pixels of a panel."""
  height, width = shape[:2]
  scale = wanted / max(height, width)
  if 0.75 < scale / max(1, round(scale)) < 1.35:
    scale = max(1, round(scale))
  return max(1, round(height * scale)), max(1, round(width * scale))


def _height(text: str, size: float) -> float:
  """Returns what a text takes, in inches."""
  lines = text.count('\n') + 1 if text else 0
  return lines * size * _LINE / 72 + (_MARGIN / 2 if text else 0)


def _inches(pixels: int, dpi: int) -> float:
  """Returns a length that is so many whole pixels again."""
  inches = pixels / dpi
  return inches if inches * dpi >= pixels else math.nextafter(inches, math.inf)
