"""A sweep as a table, Markdown and CSV, and the command of its best trial."""

from __future__ import annotations

import csv
import io
import shlex
import statistics
from collections.abc import Sequence

from vit_jax import launch
from vit_jax.sweep import space
from vit_jax.sweep.settings import Settings
from vit_jax.sweep.trial import Trial

_ORDER = ('finished', 'pruned', 'running', 'waiting', 'failed')


def ranked(trials: Sequence[Trial], settings: Settings) -> list[Trial]:
  """Returns finished trials from the best on, then the others by state."""
  sign = 1 if settings.is_loss else -1

  def key(trial: Trial) -> tuple[int, float, int]:
    score = 0.0 if trial.score is None else sign * trial.score
    return _ORDER.index(trial.state), score, trial.number

  return sorted(trials, key=key)


def best(trials: Sequence[Trial], settings: Settings) -> Trial | None:
  """Returns the best finished trial, None if there is none."""
  finished = [trial for trial in trials if trial.state == 'finished']
  return ranked(finished, settings)[0] if finished else None


def spread(trial: Trial) -> float | None:
  """Returns the standard deviation over seeds, None of fewer than two."""
  values = [*trial.notes.get('values', {}).values()]
  if trial.state != 'finished' or len(values) < 2:
    return None
  return statistics.stdev(values)


def as_markdown(trials: Sequence[Trial], settings: Settings) -> str:
  """Returns the table with what it is of, best trial first."""
  names = [parameter.name for parameter in settings.parameters]
  short = space.short_names(names)
  mean = f'mean ± sd of {len(settings.seeds)} seeds' * bool(settings.seeds)
  lines = [
    f'# {settings.config}: {settings.metric}',
    '',
    f'At the last evaluation; {"lower" if settings.is_loss else "higher"} is '
    f'better{f"; {mean}" if mean else ""}.',
    '',
    _row(['trial', *short.values(), settings.metric, 'state', 'seconds']),
    _row(['---:', *['---'] * len(names), '---:', '---', '---:']),
  ]
  for trial in ranked(trials, settings):
    values = [space.shown(trial.params.get(name, '')) for name in names]
    seconds = f'{trial.notes.get("seconds", 0):.0f}'
    lines.append(
      _row([
        str(trial.number), *values, score_text(trial, settings),
        state_text(trial), seconds,
      ])
    )  # fmt: skip
  return '\n'.join([*lines, *_ending(trials, settings), ''])


def as_csv(trials: Sequence[Trial], settings: Settings) -> str:
  """Returns the same with all digits, each seed's value and the errors."""
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  names = [parameter.name for parameter in settings.parameters]
  writer.writerow(
    ['trial', *names, settings.metric, 'sd',
     *(f'seed {seed}' for seed in settings.seeds),
     'state', 'step', 'seconds', 'run', 'error']
  )  # fmt: skip
  for trial in ranked(trials, settings):
    values = trial.notes.get('values', {})
    deviation = spread(trial)
    writer.writerow(
      [trial.number, *(trial.params.get(name, '') for name in names),
       '' if trial.score is None else trial.score,
       '' if deviation is None else deviation,
       *(values.get(str(seed), '') for seed in settings.seeds),
       trial.state, trial.steps[-1] if trial.steps else '',
       round(trial.notes.get('seconds', 0), 1), trial.notes.get('run', ''),
       trial.notes.get('error', '')]
    )  # fmt: skip
  return file.getvalue()


def best_command(trial: Trial, settings: Settings, workdir: str) -> str:
  """Returns the command that trains with a trial's settings."""
  overrides = dict(settings.fixed) | dict(trial.params)
  return shlex.join(launch.command(settings.config, workdir, overrides))


def score_text(trial: Trial, settings: Settings) -> str:
  """Returns '93.06 % ± 0.41' or '0.2514', '' of a trial without a value."""
  if trial.score is None:
    return ''
  deviation = spread(trial)
  if settings.is_loss:
    text = f'{trial.score:.4f}'
    return text if deviation is None else f'{text} ± {deviation:.4f}'
  text = f'{100 * trial.score:.2f}'
  tail = '' if deviation is None else f' ± {100 * deviation:.2f}'
  return f'{text}{tail} %'


def state_text(trial: Trial) -> str:
  """Returns 'pruned at step 40', 'failed: why', and so on."""
  if trial.state == 'pruned' and trial.steps:
    return f'pruned at step {trial.steps[-1]:,}'
  if trial.state == 'failed':
    return f'failed: {first_sentence(trial.notes.get("error", ""))}'
  if 'same_as' in trial.notes:
    return f'as trial {trial.notes["same_as"]}, whose values it has'
  return trial.state


def first_sentence(text: str) -> str:
  """Returns what of an error fits in a table."""
  line = ' '.join(text.split())
  sentence = line.split('. ')[0].rstrip('.')
  return sentence if len(sentence) <= 120 else f'{sentence[:119]}…'


def _ending(trials: Sequence[Trial], settings: Settings) -> list[str]:
  lines = []
  found = best(trials, settings)
  if found is not None:
    command = best_command(found, settings, 'runs/best')
    lines += ['', f'Best: trial {found.number}.', '', f'    {command}']
  if settings.warning():
    lines += ['', f'Warning: {settings.warning()}']
  return lines


def _row(cells: Sequence[str]) -> str:
  return f'| {" | ".join(cell.replace("|", "/") for cell in cells)} |'
