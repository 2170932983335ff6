"""Starts trainings as processes of their own, for commands that make several.

  outcome = launch.run_training(
    'configs/vit.py:tiny,digits', 'runs/a', {'base_lr': 0.01}, log='runs/a.log'
  )

Each is `python -m vit_jax.main`, which leaves nothing behind in the process
that started it: neither memory of a device nor compiled functions nor flags.
A training saves and ends when its caller is asked to stop, and when its caller
is killed as well.
"""

from vit_jax.launch.signals import Signals
from vit_jax.launch.training import Outcome, command, run_training

__all__ = ['Outcome', 'Signals', 'command', 'run_training']
