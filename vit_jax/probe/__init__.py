"""How good a model's features are for a data set, without training it."""

from vit_jax.probe.neighbours import nearest, vote
from vit_jax.probe.probing import probe
from vit_jax.probe.results import Probe, Score, Settings
from vit_jax.probe.ridge import Ridge, draw_shots
from vit_jax.probe.writing import (
  as_json,
  as_lines,
  as_table,
  write_json,
)

__all__ = [
  'Probe',
  'Ridge',
  'Score',
  'Settings',
  'as_json',
  'as_lines',
  'as_table',
  'draw_shots',
  'nearest',
  'probe',
  'vote',
  'write_json',
]
