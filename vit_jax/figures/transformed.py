"""Draws inputs beside what a spatial transformer makes of them."""

import os
from typing import Any

import matplotlib.patches
import numpy as np
from matplotlib.axes import Axes

from vit_jax.figures import canvas, layout
from vit_jax.figures.pictures import Style

_SIDE = 0.85  # Inches of a panel.
_LINE = 0.16  # Of a caption.
_NAMES = 1.25  # Left of the rows.
_SIZE = 8  # Points.
_OUTLINE = '#ff9933'


def plot_transformed(
  found: Any,
  path: str | os.PathLike,
  title: str = '',
  style: Style | None = None,
) -> None:
  """Draws a column for each class, and below one for each angle.

  Args:
    found: a `transformed.Transformed`.
    path: the file to write; its ending says in what format.
    title: drawn above all.
    style: gives the resolution and the note.
  """
  style = style or Style()
  degrees = [f'{angle:+.0f}°' for angle in found.angles]
  rows = [
    # Of bytes, pixels would be copied over the outlines.
    ('input, and what\nis taken out', found.images / 255, found.names),
    ('transformed', found.made, None),
    ('mean of all inputs\nof the class', found.means, None),
    ('mean of all\ntransformed', found.made_means, None),
    ('one input, turned', found.turned, degrees),
    ('transformed', found.made_turned, None),
  ]
  columns = max(len(found.names), len(degrees))
  figure, axes = layout.page(
    found.images.shape[1:],
    (len(rows), columns),
    _SIDE,
    style,
    title,
    _LINE,
    left=_NAMES,
  )
  for row, (name, images, captions) in zip(axes, rows, strict=True):
    row[0].text(
      -0.08,
      0.5,
      name,
      transform=row[0].transAxes,
      ha='right',
      va='center',
      fontsize=_SIZE,
      color=canvas.INK,
    )
    for i, ax in enumerate(row):
      ax.set_axis_off()
      if i < len(images):
        _draw(ax, images[i], captions[i] if captions else '')
  for ax, corners in zip(axes[0], found.outlines, strict=False):
    ax.add_patch(
      matplotlib.patches.Polygon(
        # A pixel's centre is at its number.
        corners - 0.5,
        fill=False,
        edgecolor=_OUTLINE,
        linewidth=1.2,
      )
    )
  canvas.save(figure, path, style.dpi)


def _draw(ax: Axes, image: np.ndarray, caption: str) -> None:
  ax.imshow(image, aspect='auto', interpolation='nearest')
  ax.set_title(
    canvas.shortened(caption, _SIZE, _SIDE),
    fontsize=_SIZE,
    color=canvas.INK,
    pad=2,
    parse_math=False,
  )
