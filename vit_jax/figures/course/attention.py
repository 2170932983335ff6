"""Draws what attention of patches is, and how far it looks."""

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.patches import Rectangle

from vit_jax.figures import canvas
from vit_jax.figures.course import looks
from vit_jax.figures.pictures import Style, overlay


def plot_patch_attention(
  image: np.ndarray,
  weights: np.ndarray,
  grid: tuple[int, int],
  patch: tuple[int, int],
  path: str | os.PathLike,
) -> None:
  """Draws what one patch takes in each head, and the whole matrix of one.

  Args:
    image: uint8 [height, width, 3], as the model saw it.
    weights: [heads, tokens, tokens] of a layer without a class token.
    grid: (rows, columns) of patches.
    patch: the (row, column) that asks.
    path: the file to write; its ending says in what format.
  """
  heads = len(weights)
  row = patch[0] * grid[1] + patch[1]
  figure = canvas.new(2.1 * (heads + 2), 2.6, None)
  width = 1 / (heads + 2)
  panels = [
    figure.add_axes((i * width + 0.008, 0.08, width - 0.016, 0.74))
    for i in range(heads + 1)
  ]
  looks.picture(panels[0], image, f'patch {row} asks')
  for head, ax in enumerate(panels[1:]):
    values = weights[head, row].reshape(grid)
    looks.picture(ax, overlay(image, values, Style(alpha=0.65)), f'head {head}')
  height = image.shape[0] / grid[0]
  for ax in panels:
    ax.add_patch(
      Rectangle(
        (patch[1] * height - 0.5, patch[0] * height - 0.5), height, height,
        fill=False, edgecolor=looks.ORANGE, linewidth=2,
      )
    )  # fmt: skip
  ax = figure.add_axes(((heads + 1) * width + 0.022, 0.14, width - 0.05, 0.68))
  ax.imshow(weights[0], cmap='viridis', vmin=0, aspect='auto')
  looks.name(ax, f'head 0: {len(weights[0])} x {len(weights[0])}')
  ax.axhline(row - 0.5, color=looks.ORANGE, linewidth=1)
  ax.axhline(row + 0.5, color=looks.ORANGE, linewidth=1)
  ax.set_xlabel(
    'from patch', fontsize=looks.NOTE_SIZE, color=canvas.INK, labelpad=1
  )
  ax.tick_params(labelsize=6, colors=canvas.INK, pad=1)
  canvas.save(figure, path, looks.DPI)


def plot_distances(
  trained: np.ndarray,
  untrained: np.ndarray,
  reach: Sequence[float],
  path: str | os.PathLike,
) -> None:
  """Draws how far heads look, layer by layer, and how far convolutions can.

  Args:
    trained: [layers, heads], mean attention distances in pixels.
    untrained: the same with the weights of the start.
    reach: [layers], pixels from the centre that 3 x 3 convolutions see.
    path: the file to write; its ending says in what format.
  """
  figure = canvas.new(5.6, 3.2, 'constrained')
  ax = figure.add_subplot()
  layers = np.arange(len(trained))
  for values, color, marker, name in (
    (untrained, '#999999', 'x', 'untrained: each head'),
    (trained, looks.BLUE, 'o', 'trained: each head'),
  ):
    places = np.repeat(layers, values.shape[1])
    # Beside each other, or one would hide the other.
    places = places + (0.08 if marker == 'o' else -0.08)
    ax.plot(
      places, values.ravel(), marker, color=color, markersize=5, label=name,
      alpha=0.9,
    )  # fmt: skip
  ax.plot(
    layers, reach, color=looks.ORANGE, linewidth=1.4, marker='.',
    label='3 x 3 convolutions: the farthest pixel',
  )  # fmt: skip
  ax.set_xticks(layers)
  ax.set_ylim(bottom=0)
  ax.set_xlabel('layer', color=canvas.INK)
  ax.set_ylabel('distance in pixels', color=canvas.INK)
  ax.grid(True, color='#e6e6e6', linewidth=0.8)
  ax.set_axisbelow(True)
  ax.spines[['top', 'right']].set_visible(False)
  ax.tick_params(colors=canvas.INK, labelsize=looks.NAME_SIZE)
  ax.legend(frameon=False, fontsize=looks.NOTE_SIZE, labelcolor=canvas.INK)
  canvas.save(figure, path, looks.DPI)
