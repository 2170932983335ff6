"""Draws what docs/how_vit_works.md explains: patches, positions, blocks."""

from vit_jax.figures.course.attention import (
  plot_distances,
  plot_patch_attention,
)
from vit_jax.figures.course.block import plot_block
from vit_jax.figures.course.tokens import plot_patches, plot_positions

__all__ = [
  'plot_block',
  'plot_distances',
  'plot_patch_attention',
  'plot_patches',
  'plot_positions',
]
