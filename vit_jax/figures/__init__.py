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
from vit_jax.figures.calibration import plot_calibration
from vit_jax.figures.canvas import FORMATS, drawable
from vit_jax.figures.class_accuracy import (
  plot_class_accuracy,
  plot_class_differences,
)
from vit_jax.figures.comparison import plot_run_curves
from vit_jax.figures.confusion import plot_confusion
from vit_jax.figures.curves import plot_curves, smooth
from vit_jax.figures.pictures import (
  Style,
  min_max,
  overlay,
  six_steps,
  stretch,
)
from vit_jax.figures.sweep import plot_sweep
from vit_jax.figures.sweep_axes import SweepAxis, SweepPoint
from vit_jax.figures.transformed import plot_learned, plot_transformed

__all__ = [
  'FORMATS',
  'Style',
  'SweepAxis',
  'SweepPoint',
  'drawable',
  'min_max',
  'overlay',
  'plot_batch',
  'plot_calibration',
  'plot_class_accuracy',
  'plot_class_differences',
  'plot_confusion',
  'plot_contact_sheet',
  'plot_curves',
  'plot_heads',
  'plot_layers',
  'plot_learned',
  'plot_overlay',
  'plot_run_curves',
  'plot_six_steps',
  'plot_sweep',
  'plot_transformed',
  'six_steps',
  'smooth',
  'stretch',
]
