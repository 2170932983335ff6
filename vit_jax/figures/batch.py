"""Draws the images of a batch, each with its labels."""

import os
from collections.abc import Sequence

import numpy as np

from vit_jax.figures import canvas, layout, panels
from vit_jax.figures.pictures import Style

_SIDE = 1.5  # Inches of a panel.
_LINE = 0.16  # Of a caption.
_SIZE = 8  # Points.
_COLUMNS = 8


def plot_batch(
  images: np.ndarray,
  captions: Sequence[str],
  path: str | os.PathLike,
  title: str = '',
  style: Style | None = None,
) -> None:
  """Draws images in rows of eight.

  Args:
    images: uint8 [num_images, height, width, 3].
    captions: one for each, drawn above; lines that don't fit lose their middle.
    path: the file to write; its ending says in what format.
    title: drawn above all.
    style: gives the resolution and the note.
  """
  style = style or Style()
  columns = min(_COLUMNS, len(images))
  lines = max(caption.count('\n') for caption in captions) + 1
  figure, axes = layout.page(
    images.shape[1:],
    (-(-len(images) // columns), columns),
    _SIDE,
    style,
    title,
    lines * _LINE,
  )
  width = axes[0, 0].get_position().width * figure.get_figwidth()
  # An enlarged pixel is a square, as the model takes it.
  is_enlarged = width * style.dpi >= images.shape[2]
  for ax in axes.flat:
    ax.set_axis_off()
  for ax, image, caption in zip(axes.flat, images, captions, strict=False):
    ax.imshow(
      image,
      aspect='auto',
      interpolation='nearest' if is_enlarged else 'antialiased',
    )
    panels.name(ax, caption, width, _SIZE)
  canvas.save(figure, path, style.dpi)
