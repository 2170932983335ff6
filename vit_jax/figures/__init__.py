"""Draws figures; the only package that imports matplotlib.

    figures.plot_curves(metrics, 'curves.png')
    figures.plot_overlay(image, picture, 'overlay.pdf', 'class 7, 98.3%')

Images are uint8 as the model saw them, maps those of `vit_jax.attention`.
"""

from vit_jax.figures.attention import (
  plot_contact_sheet,
  plot_heads,
  plot_layers,
  plot_overlay,
  plot_six_steps,
)
from vit_jax.figures.batch import plot_batch
from vit_jax.figures.canvas import FORMATS, drawable
from vit_jax.figures.curves import plot_curves, smooth
from vit_jax.figures.pictures import (
  Style,
  min_max,
  overlay,
  six_steps,
  stretch,
)

__all__ = [
  'FORMATS',
  'Style',
  'drawable',
  'min_max',
  'overlay',
  'plot_batch',
  'plot_contact_sheet',
  'plot_curves',
  'plot_heads',
  'plot_layers',
  'plot_overlay',
  'plot_six_steps',
  'six_steps',
  'smooth',
  'stretch',
]
