"""A trial of a sweep as it stands, and what its directories are called."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vit_jax.sweep import space

if TYPE_CHECKING:
  import optuna

_STATES = {
  'COMPLETE': 'finished',
  'FAIL': 'failed',
  'PRUNED': 'pruned',
  'RUNNING': 'running',
  'WAITING': 'waiting',
}


@dataclasses.dataclass(frozen=True)
class Trial:
  """A trial as it stands.

  Attributes:
    number: from 0, in the order in which they began.
    params: value of each field that is varied.
    state: 'finished', 'pruned', 'failed', 'running' or 'waiting'.
    score: mean over seeds of a finished one, last intermediate value of a
      pruned one, else None.
    steps: intermediate evaluations that were looked at.
    notes: 'run' name of its directories, 'values' {seed: value}, 'seconds',
      'error', 'same_as' number, 'retry_of' number.
  """

  number: int
  params: Mapping[str, space.Value]
  state: str
  score: float | None
  steps: tuple[int, ...]
  notes: Mapping[str, Any]


def run_name(number: int, params: Mapping[str, space.Value]) -> str:
  """Returns '003-base_lr=0.01,dropout_rate=0.1', as files may be called."""
  short = space.short_names([*params])
  text = ','.join(f'{short[k]}={space.shown(v)}' for k, v in params.items())
  kept = ''.join(x if x.isalnum() or x in '=,._+-' else '_' for x in text)
  return f'{number:03d}-{kept[:120]}'


def as_trial(trial: optuna.trial.FrozenTrial) -> Trial:
  """Returns what Optuna knows of a trial in this package's words."""
  state, steps = _STATES[trial.state.name], trial.intermediate_values
  score = None
  if state == 'finished':
    score = trial.value
  elif state == 'pruned' and steps:
    score = steps[max(steps)]
  return Trial(
    trial.number, trial.params, state, score, tuple(sorted(steps)),
    trial.user_attrs,
  )  # fmt: skip
