"""Panels that show images: their names, pixels, and several images as one."""

import math
import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from vit_jax.figures import canvas
from vit_jax.figures.pictures import Style

NAME_SIZE = 9  # Points of a panel's name.


def show(
  ax: Axes,
  values: np.ndarray,
  title: str = '',
  colormap: str = '',
  width: float = math.inf,
) -> AxesImage:
  """Shows an image, or with a colormap a map, and no ticks.

  Args:
    ax: of the shape of what is shown.
    values: [height, width] or [height, width, 3].
    title: drawn above; lines that don't fit lose their middle.
    colormap: of a map.
    width: what a line of the title may take, in inches.
  """
  ax.set_xticks([])
  ax.set_yticks([])
  ax.spines[:].set_visible(False)
  if title:
    name(ax, title, width, NAME_SIZE, pad=3)
  return ax.imshow(values, cmap=colormap or None, aspect='auto')


def name(
  ax: Axes, text: str, width: float, size: float, pad: float = 2
) -> None:
  """Writes a panel's name above it.

  Args:
    ax: the panel.
    text: lines that don't fit lose their middle.
    width: what a line may take, in inches.
    size: of the font, in points.
    pad: space below it, in points.
  """
  lines = [canvas.shortened(line, size, width) for line in text.splitlines()]
  # Or a dollar in a file's name would begin a formula.
  ax.set_title(
    '\n'.join(lines), fontsize=size, color=canvas.INK, pad=pad,
    parse_math=False,
  )  # fmt: skip


def joined(parts: Sequence[np.ndarray], gap: int, axis: int) -> np.ndarray:
  """Returns images in a row (axis 1) or column (0), white between them."""
  shape = list(parts[0].shape)
  shape[axis] = gap
  white = np.full(shape, 255, np.uint8)
  spaced = [piece for part in parts for piece in (white, part)]
  return np.concatenate(spaced[1:], axis=axis)


def save(figure: Figure, path: str | os.PathLike, style: Style) -> None:
  """Writes a figure whose images are blended only where pixels ask for it.

  Args:
    figure: from `layout.page`.
    path: the file to write; its ending says in what format.
    style: gives the resolution.
  """
  is_png = os.fspath(path).lower().endswith('.png')
  for ax in figure.axes:
    box = ax.get_position()
    for image in ax.images:
      down = box.height * figure.get_figheight() * style.dpi
      times = down / image.get_size()[0]
      # Whole pixels need no blending, nor do files without pixels of their own.
      if not is_png or abs(times - round(times)) < 1e-6:
        image.set_interpolation('nearest' if is_png else 'none')
  canvas.save(figure, path, style.dpi)
