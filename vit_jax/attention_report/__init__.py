"""Figures, maps and a summary of what a model looks at in many images."""

from vit_jax.attention_report.looking import METHODS
from vit_jax.attention_report.settings import (
  Settings,
  parse_heads,
  parse_layers,
)
from vit_jax.attention_report.writing import write_report

__all__ = ['METHODS', 'Settings', 'parse_heads', 'parse_layers', 'write_report']
