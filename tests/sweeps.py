"""Helpers for tests of sweeps: runs that take no time."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

from vit_jax import launch, sweep
from vit_jax.preemption import StoppedError

CONFIG = 'configs/vit.py:tiny,digits'
FIXED = ('total_steps=40', 'warmup_steps=2', 'eval_every=10', 'batch=31',
         'accum_steps=1')  # fmt: skip
STEPS = (10, 20, 30, 40)


class Runs:
  """Stands in for `launch.run_training`.

  Args:
    score: overrides -> value at the last step; the others grow towards it. NaN
      makes the run fail.
    kill_at: the numbers of calls, from 0, that are broken off half-way, as by
      a signal.
    metric: that is written.

  Attributes:
    calls: (name of the directory, overrides) of each.
  """

  def __init__(
    self,
    score: Callable[[dict[str, Any]], float],
    kill_at: tuple[int, ...] = (),
    metric: str = 'test/accuracy',
  ):
    self._score, self._kill_at, self._metric = score, kill_at, metric
    self.calls: list[tuple[str, dict[str, Any]]] = []
    self.environments: list[dict[str, str]] = []

  def __call__(
    self, config, workdir, overrides, *, log, should_stop, signals, env
  ) -> launch.Outcome:
    assert config == CONFIG
    assert pathlib.Path(log).parent == pathlib.Path(workdir)
    run = pathlib.Path(workdir)
    run.mkdir(parents=True, exist_ok=True)
    number = len(self.calls)
    self.calls.append((run.name, dict(overrides)))
    self.environments.append(dict(env))
    value = self._score(dict(overrides))
    if math.isnan(value):
      return launch.Outcome(2, 0.5, error='loss is NaN. Lower base_lr.')
    lines = []
    for step in STEPS:
      line = {'step': step, self._metric: value * step / STEPS[-1]}
      lines.append(json.dumps(line) + '\n')
      (run / 'metrics.jsonl').write_text(''.join(lines))
      if should_stop and should_stop():
        return launch.Outcome(143, 0.5, was_stopped=True)
      if step == 20 and number in self._kill_at:
        raise StoppedError('Stopped by SIGTERM.', 143)
    return launch.Outcome(0, 0.5)

  @property
  def names(self) -> list[str]:
    """Of the directories, in the order of the calls."""
    return [name for name, _ in self.calls]


def settings(*grids: str, **kwargs: Any) -> sweep.Settings:
  """Returns settings of a sweep over `grids` with `FIXED`."""
  fixed = (*FIXED, *kwargs.pop('more', ()))
  return sweep.make(CONFIG, grids=grids, fixed=fixed, **kwargs)


def run(
  of: sweep.Settings, out: pathlib.Path, runs: Runs, **kwargs: Any
) -> tuple[list[sweep.Trial], list[str]]:
  """Returns the trials, the best first, and what was told."""
  told: list[str] = []
  trials = sweep.run_sweep(
    of, out, run_training=runs, tell=told.append, **kwargs
  )
  return trials, told
