"""Figures, maps, a summary and a page of what a model looks at in images."""

from vit_jax.attention_report.explorer import Page
from vit_jax.attention_report.looking import METHODS
from vit_jax.attention_report.settings import (
  Settings,
  parse_heads,
  parse_layers,
)
from vit_jax.attention_report.writing import Report, write_report
from vit_jax.data.images import parse_size

__all__ = [
  'METHODS',
  'Page',
  'Report',
  'Settings',
  'parse_heads',
  'parse_layers',
  'parse_size',
  'write_report',
]
