"""Trains with many settings and tells which is best: sweeps, on Optuna.

settings = sweep.make(
  'configs/vit.py:tiny,digits', grids=('base_lr=0.003,0.01,0.03',)
)
trials = sweep.run_sweep(settings, 'sweeps/lr')
"""

from vit_jax.sweep.running import run_sweep
from vit_jax.sweep.settings import PRUNERS, SAMPLERS, Settings, make
from vit_jax.sweep.table import best, best_command
from vit_jax.sweep.trial import Trial

__all__ = [
  'PRUNERS',
  'SAMPLERS',
  'Settings',
  'Trial',
  'best',
  'best_command',
  'make',
  'run_sweep',
]
