"""Runs the trials of a sweep, one or several at a time, and writes it up."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vit_jax import errors, launch, metrics, run_lock
from vit_jax.sweep import jobs as jobs_lib
from vit_jax.sweep import settings as settings_lib
from vit_jax.sweep import table, writing
from vit_jax.sweep.study import Study
from vit_jax.sweep.trial import Trial

if TYPE_CHECKING:
  import optuna

LOG_NAME = 'log.txt'


def run_sweep(
  settings: settings_lib.Settings,
  out: str | os.PathLike,
  *,
  jobs: int = 1,
  devices: Sequence[str] = (),
  retry_failed: bool = False,
  run_training: Callable[..., launch.Outcome] = launch.run_training,
  tell: Callable[[str], None] = print,
) -> list[Trial]:
  """Runs the trials that are left, and writes the table and the plot.

  Args:
    settings: from `settings.make`.
    out: the sweep's directory, which may hold the beginning of the same.
    jobs: trials at once.
    devices: numbers of CUDA devices, shared out to the jobs; () has every
      trial see all devices that there are.
    retry_failed: whether those that failed are run again.
    run_training: runs one.
    tell: called with lines for people.

  Returns:
    All trials, the best first.

  Raises:
    ConfigError: the directory is of another sweep, in use, or can't be written;
      or there are fewer devices than jobs.
    StoppedError: SIGINT or SIGTERM came; the runs are saved.
  """
  out = pathlib.Path(out)
  jobs_lib.check_devices(jobs, devices)
  with _held(out):
    settings_lib.claim(settings, out)
    study = Study(settings, out)
    try:
      if retry_failed:
        study.retry_failed()
      sweep = _Sweep(settings, out, study, run_training, tell)
      sweep.begin(jobs, devices)
      try:
        with launch.Signals() as signals:
          jobs_lib.in_threads(
            [
              lambda env=env: sweep.work(signals, env)
              for env in jobs_lib.environments(jobs, devices)
            ]
          )
      finally:
        sweep.write_up()
      return table.ranked(study.trials(), settings)
    finally:
      study.close()


class _Sweep:
  """What the jobs share."""

  def __init__(
    self,
    settings: settings_lib.Settings,
    out: pathlib.Path,
    study: Study,
    run_training: Callable[..., launch.Outcome],
    tell: Callable[[str], None],
  ):
    self._settings, self._out, self._study = settings, out, study
    self._run_training, self._tell = run_training, tell
    self._writing = threading.Lock()
    self._is_broken = False

  def begin(self, jobs: int, devices: Sequence[str]) -> None:
    """Says what will be done."""
    for line in writing.plan_lines(
      self._settings,
      self._out,
      self._study.trials(),
      self._study.num_broken,
      jobs_lib.shares_text(jobs, devices),
    ):
      self._tell(line)

  def work(self, signals: launch.Signals, env: Mapping[str, str]) -> None:
    """Runs one trial after another until none is left, or a job broke."""
    try:
      while not self._is_broken:
        signals.check()
        trial = self._study.next()
        if trial is None:
          return
        self._run_trial(trial, signals, env)
        trials = self._study.trials()
        self._tell(writing.trial_line(trial.number, trials, self._settings))
        self.write_up()
    except BaseException:
      self._is_broken = True  # Or the others would hide it for hours.
      raise

  def write_up(self) -> None:
    """Writes the table and the plot of what there is so far."""
    with self._writing:
      writing.write_up(self._study.trials(), self._settings, self._out)

  def _run_trial(
    self,
    trial: optuna.trial.Trial,
    signals: launch.Signals,
    env: Mapping[str, str],
  ) -> None:
    settings, study = self._settings, self._study
    other = study.same(trial)
    if other is not None:
      study.note(trial, 'same_as', other.notes.get('same_as', other.number))
      study.note(trial, 'values', dict(other.notes.get('values', {})))
      study.finish(trial, other.score or 0.0)
      return
    values: dict[str, float] = dict(trial.user_attrs.get('values', {}))
    for i, seed in enumerate(settings.seeds or (None,)):
      if str(seed) in values:
        continue
      run = self._out / _seed_name(trial.user_attrs['run'], seed)
      overrides: dict[str, Any] = dict(settings.fixed) | trial.params
      if seed is not None:
        overrides['seed'] = seed
      # Of several seeds the first one decides for all.
      should_stop = self._watch(trial, run) if i == 0 else None
      with self._timed(trial):
        outcome = self._run_training(
          settings.config, run, overrides, log=run / LOG_NAME,
          should_stop=should_stop, signals=signals, env=env,
        )  # fmt: skip
      if outcome.was_stopped:
        study.prune(trial)
        return
      value, error = _result(outcome, run, settings.metric)
      if error:
        study.fail(trial, f'{error} See {run / LOG_NAME}')
        return
      values[str(seed)] = value
      study.note(trial, 'values', values)
    study.finish(trial, sum(values.values()) / len(values))

  def _watch(
    self, trial: optuna.trial.Trial, run: pathlib.Path
  ) -> Callable[[], bool] | None:
    if self._settings.pruner == 'none':
      return None

    def should_stop() -> bool:
      try:
        found = metrics.read_metrics(run)
      except errors.UserError:  # It has none yet.
        return False
      steps, values = found.get(self._settings.metric, ((), ()))
      # The last one is the result.
      total = self._settings.base.total_steps
      total = trial.params.get('total_steps', total)
      return self._study.should_prune(
        trial,
        {
          int(step): float(value)
          for step, value in zip(steps, values, strict=True)
          if step < total
        },
      )

    return should_stop

  @contextlib.contextmanager
  def _timed(self, trial: optuna.trial.Trial) -> Iterator[None]:
    start = time.monotonic()
    try:
      yield
    finally:  # Also of a run that will be continued.
      before = trial.user_attrs.get('seconds', 0.0)
      self._study.note(trial, 'seconds', before + time.monotonic() - start)


def _result(
  outcome: launch.Outcome, run: pathlib.Path, metric: str
) -> tuple[float, str]:
  """Returns the value of a run, and why it has none or ''."""
  if not outcome.is_finished:
    return math.nan, outcome.error or f'Exit status {outcome.status}.'
  try:
    found = metrics.read_metrics(run)
  except errors.UserError as error:
    return math.nan, str(error)
  if metric not in found:
    return math.nan, f'The run has no {metric}.'
  steps, values = found[metric]
  if not math.isfinite(values[-1]):
    return math.nan, f'{metric} is not finite at step {steps[-1]:,}.'
  return float(values[-1]), ''


def _seed_name(name: str, seed: int | None) -> str:
  return name if seed is None else f'{name},seed={seed}'


@contextlib.contextmanager
def _held(out: pathlib.Path) -> Iterator[None]:
  """Keeps a second sweep out of the directory."""
  try:
    with run_lock.hold(out):
      yield
  except errors.ConfigError as error:
    raise errors.ConfigError(
      str(error).replace('--workdir=DIR', '--out DIR')
    ) from error
