"""What a sweep says and writes: its lines for people, table and plot."""

from __future__ import annotations

import contextlib
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from vit_jax import errors, whole_files
from vit_jax.sweep import space, table
from vit_jax.sweep.settings import Settings
from vit_jax.sweep.trial import Trial


def plan_lines(
  settings: Settings,
  out: pathlib.Path,
  trials: Sequence[Trial],
  num_broken: int,
  shares: str,
) -> list[str]:
  """Returns what will be done.

  Args:
    settings: of the sweep.
    out: its directory.
    trials: that there are already.
    num_broken: how many of them were broken off.
    shares: which devices each job has, '' to say nothing of that.
  """
  seeds = f', {len(settings.seeds)} seeds each' * bool(settings.seeds)
  num_done = sum(t.state in ('finished', 'pruned', 'failed') for t in trials)
  done = f', {num_done} done already' * bool(num_done)
  again = f', {num_broken} to continue' * bool(num_broken)
  lines = [
    f'sweep:   {out}',
    f'vary:    {"  ".join(map(str, settings.parameters))}',
    f'trials:  {settings.num_trials} ({settings.sampler}){seeds}{done}{again}',
  ]
  if shares:
    lines.append(f'devices: {shares}')
  if settings.warning():
    lines.append(f'warning: {settings.warning()}')
  return lines


def trial_line(number: int, trials: Sequence[Trial], settings: Settings) -> str:
  """Returns what came of a trial.

  Args:
    number: of the trial.
    trials: all so far.
    settings: of the sweep.
  """
  trial = next(each for each in trials if each.number == number)
  short = space.short_names([*trial.params])
  values = '  '.join(
    f'{short[name]}={space.shown(value)}'
    for name, value in trial.params.items()
  )
  score = table.score_text(trial, settings)
  state = table.state_text(trial)
  parts = [
    f'trial {number} ({len(trials)} of {settings.num_trials})',
    values,
    f'{settings.metric} {score}' if score else '',
    '' if state == 'finished' else state,
    f'{trial.notes.get("seconds", 0):.0f} s',
  ]
  return '  '.join(filter(None, parts))


def write_up(
  trials: Sequence[Trial], settings: Settings, out: pathlib.Path
) -> None:
  """Writes table.md, table.csv and sweep.png of what there is so far.

  Args:
    trials: all so far.
    settings: of the sweep.
    out: the sweep's directory.

  Raises:
    ConfigError: they can't be written.
  """
  from vit_jax import figures

  with _telling(out):
    for name, text in {
      'table.md': table.as_markdown(trials, settings),
      'table.csv': table.as_csv(trials, settings),
    }.items():
      whole_files.write_text(out / name, text)
    figures.plot_sweep(
      [_point(trial, settings) for trial in trials],
      [_axis(parameter) for parameter in settings.parameters],
      settings.metric,
      out / 'sweep.png',
      title=settings.config,
    )


@contextlib.contextmanager
def _telling(out: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    raise errors.ConfigError(
      f'{out}: table and plot can not be written ({error.strerror or error}).'
    ) from error


def _point(trial: Trial, settings: Settings) -> Any:
  from vit_jax import figures

  return figures.SweepPoint(
    trial.number,
    tuple(trial.params.get(p.name, '') for p in settings.parameters),
    math.nan if trial.score is None else trial.score,
    table.spread(trial),
    trial.state,
  )


def _axis(parameter: space.Parameter) -> Any:
  from vit_jax import figures

  name = parameter.name.rpartition('.')[2]
  return figures.SweepAxis(name, parameter.values, parameter.is_log)
