"""Draws how an image becomes tokens: its patches, and their positions."""

import os

import numpy as np
from matplotlib.axes import Axes

from vit_jax.figures import canvas
from vit_jax.figures.course import looks


def plot_patches(
  image: np.ndarray,
  patch_size: tuple[int, int],
  path: str | os.PathLike,
) -> None:
  """Draws an image, the same cut into patches, and some of the sequence.

  Args:
    image: uint8 [height, width, 3]; patches fill it.
    patch_size: (height, width) in pixels.
    path: the file to write; its ending says in what format.
  """
  rows, columns = (
    size // patch for size, patch in zip(image.shape, patch_size, strict=False)
  )
  patches = image.reshape(rows, patch_size[0], columns, patch_size[1], 3)
  patches = patches.transpose(0, 2, 1, 3, 4)
  spread = _spread(patches, gap=3)
  sequence = patches.reshape(-1, *patch_size, 3)
  # In whole pixels, so that the photograph stays sharp and the file small.
  wide = image.shape[1] + spread.shape[1] + 60
  high = spread.shape[0] + 125
  figure = canvas.new(wide / looks.DPI, high / looks.DPI, None)

  def panel(left: int, top: int, picture: np.ndarray, times: int) -> Axes:
    height, width = (times * size for size in picture.shape[:2])
    bottom = high - top - height
    place = left / wide, bottom / high, width / wide, height / high
    ax = figure.add_axes(place)
    looks.picture(ax, picture.repeat(times, 0).repeat(times, 1))
    return ax

  size = f'{image.shape[0]} x {image.shape[1]} pixels'
  middle = 25 + (spread.shape[0] - image.shape[0]) // 2
  looks.name(panel(20, middle, image, 1), size)
  right = panel(image.shape[1] + 40, 25, spread, 1)
  looks.name(right, f'{rows} x {columns} patches')
  last = len(sequence) - 1
  centre = (rows // 2) * columns + columns // 2
  near = range(max(2, centre - 2), min(last, centre + 3))
  numbers = [0, 1, None, *near, None, last]
  times = max(1, 32 // patch_size[0])
  step = (wide - 40) // len(numbers)
  top = spread.shape[0] + 55
  for i, number in enumerate(numbers):
    left = 20 + i * step
    if number is None:
      figure.text((left + 10) / wide, 1 - (top + 20) / high, '...', fontsize=12)
    else:
      ax = panel(left, top, sequence[number], times)
      ax.set_xlabel(
        f'{number}', fontsize=looks.NOTE_SIZE, color=canvas.INK, labelpad=2
      )
  figure.text(
    20 / wide, 1 - (top - 8) / high, f'a sequence of {last + 1} patches:',
    fontsize=looks.NAME_SIZE, color=canvas.INK,
  )  # fmt: skip
  canvas.save(figure, path, looks.DPI)


def plot_positions(
  waves: np.ndarray,
  fixed: np.ndarray,
  learned: np.ndarray,
  path: str | os.PathLike,
) -> None:
  """Draws a fixed embedding, and how alike positions are in two of them.

  Args:
    waves: [patches, width], the sin-cos embedding.
    fixed: [rows, columns, rows, columns], its cosine similarities.
    learned: the same of a trained model, of any grid.
    path: the file to write; its ending says in what format.
  """
  figure = canvas.new(9.4, 3.5, None)
  ax = figure.add_axes((0.06, 0.15, 0.27, 0.7))
  ax.imshow(waves, cmap='RdBu_r', vmin=-1, vmax=1, aspect='auto')
  looks.name(ax, f'sin-cos embedding, {len(waves)} x {waves.shape[1]}')
  ax.set_xlabel('element', fontsize=looks.NOTE_SIZE, color=canvas.INK)
  ax.set_ylabel('patch', fontsize=looks.NOTE_SIZE, color=canvas.INK)
  ax.tick_params(labelsize=7, colors=canvas.INK)
  rows, columns = fixed.shape[:2]
  several = fixed[1 :: max(1, rows // 4), 1 :: max(1, columns // 4)][:4, :4]
  for i, (values, name) in enumerate(
    (
      (several, f'sin-cos, 16 of {rows} x {columns}'),
      (learned, f'learned on digits, {learned.shape[0]} x {learned.shape[1]}'),
    )
  ):
    left = 0.385 + 0.305 * i
    ax = figure.add_axes((left, 0.15, 0.245, 0.7))
    # Each from its own lowest: the fixed ones are all alike to some degree.
    shown = ax.imshow(_mosaic(values), cmap='viridis', vmax=1)
    looks.name(ax, name)
    ax.set_axis_off()
    bar = figure.colorbar(
      shown, cax=figure.add_axes((left + 0.25, 0.2, 0.01, 0.6))
    )
    bar.ax.tick_params(labelsize=7, colors=canvas.INK)
  figure.text(
    0.385, 0.05, 'each small picture: cosine similarity of one patch to all',
    fontsize=looks.NOTE_SIZE, color=canvas.INK,
  )  # fmt: skip
  canvas.save(figure, path, looks.DPI)


def _spread(patches: np.ndarray, gap: int) -> np.ndarray:
  """Returns [rows, columns, height, width, 3] as one image, white between."""
  padded = np.pad(
    patches,
    ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)),
    constant_values=255,
  )
  rows, columns, height, width, _ = padded.shape
  whole = padded.transpose(0, 2, 1, 3, 4).reshape(
    rows * height, columns * width, 3
  )
  return whole[:-gap, :-gap]


def _mosaic(values: np.ndarray) -> np.ndarray:
  """Returns [rows, columns, height, width] as one map, empty between."""
  padded = np.pad(
    values.astype(np.float32),
    ((0, 0), (0, 0), (0, 1), (0, 1)),
    constant_values=np.nan,
  )
  rows, columns, height, width = padded.shape
  whole = padded.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
  return whole[:-1, :-1]
