"""Draws inputs beside what a spatial transformer makes of them."""

import os
from collections.abc import Sequence
from typing import Any

import matplotlib.patches
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vit_jax.figures import canvas, layout, panels
from vit_jax.figures.pictures import Style

_SIDE = 0.85  # Inches of a panel.
_LINE = 0.16  # Of a caption.
_NAMES = 1.25  # Left of the rows.
_SIZE = 8  # Points.
_OUTLINE = '#ff9933'
# Name, images [n, height, width, 3], a caption for each of these.
_Row = tuple[str, np.ndarray, Sequence[str] | None]


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
  rows: list[_Row] = [
    # Of bytes, pixels would be copied over the outlines.
    ('input, and what\nis taken out', found.images / 255, found.names),
    ('transformed', found.made, None),
    ('mean of all inputs\nof the class', found.means, None),
    ('mean of all\ntransformed', found.made_means, None),
    ('one input, turned', found.turned, degrees),
    ('transformed', found.made_turned, None),
  ]
  figure, axes = _rows(rows, title, style)
  _outline(axes[0], found.outlines)
  canvas.save(figure, path, style.dpi)


def plot_learned(
  found: Any,
  path: str | os.PathLike,
  title: str = '',
  style: Style | None = None,
) -> None:
  """Draws a column for each class and a row for each step.

  Above them are the inputs, with what is taken out at the last of the steps.

  Args:
    found: a `transformed.Learned`.
    path: the file to write; its ending says in what format.
    title: drawn above all.
    style: gives the resolution and the note.
  """
  style = style or Style()
  rows: list[_Row] = [
    (
      'input, and what is\ntaken out at the end',
      found.images / 255,
      found.names,
    )
  ]
  rows += [
    (f'at step {step:,}', made, None)
    for step, made in zip(found.steps, found.made, strict=True)
  ]
  figure, axes = _rows(rows, title, style)
  _outline(axes[0], found.outlines[-1])
  canvas.save(figure, path, style.dpi)


def _rows(
  rows: Sequence[_Row], title: str, style: Style
) -> tuple[Figure, np.ndarray]:
  """Returns a figure of named rows of images, and its axes."""
  figure, axes = layout.page(
    rows[0][1].shape[1:],
    (len(rows), max(len(images) for _, images, _ in rows)),
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
  return figure, axes


def _outline(row: np.ndarray, outlines: np.ndarray) -> None:
  for ax, corners in zip(row, outlines, strict=False):
    ax.add_patch(
      matplotlib.patches.Polygon(
        # A pixel's centre is at its number.
        corners - 0.5,
        fill=False,
        edgecolor=_OUTLINE,
        linewidth=1.2,
      )
    )


def _draw(ax: Axes, image: np.ndarray, caption: str) -> None:
  ax.imshow(image, aspect='auto', interpolation='nearest')
  panels.name(ax, caption, _SIDE, _SIZE)
