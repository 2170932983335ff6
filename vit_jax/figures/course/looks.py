"""What the figures of the course share: colours, sizes, panels."""

import numpy as np
from matplotlib.axes import Axes

from vit_jax.figures import canvas

BLUE, ORANGE = '#0072B2', '#D55E00'
DPI = 110
NAME_SIZE, NOTE_SIZE = 9, 8  # Points: of a panel, and of what explains it.


def picture(ax: Axes, pixels: np.ndarray, title: str = '') -> None:
  """Shows uint8 [height, width, 3] without ticks, and a name above."""
  ax.imshow(pixels, interpolation='nearest')
  ax.set_xticks([])
  ax.set_yticks([])
  ax.spines[:].set_visible(False)
  name(ax, title)


def name(ax: Axes, text: str) -> None:
  """Writes a panel's name above it."""
  ax.set_title(text, fontsize=NAME_SIZE, color=canvas.INK, pad=4)
