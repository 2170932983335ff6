"""Runs cells one after the other, each as a process of its own."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from vit_jax import config_checks, errors, launch, run_settings
from vit_jax.config_checks import fields
from vit_jax.preemption import StoppedError
from vit_jax.reproduction import writing
from vit_jax.reproduction.cells import CONFIG_FILE, Cell
from vit_jax.reproduction.records import STOPPED, Attempt, Record

GetConfig = Callable[[str], Any]
Train = Callable[..., launch.Outcome]


def configure(cell: Cell, settings: Sequence[str], get_config: GetConfig):
  """Returns the config of a cell.

  Args:
    cell: of any table.
    settings: 'FIELD=VALUE' besides the cell's own.
    get_config: of configs/vit.py.

  Raises:
    ConfigError: a field that there is none of, or that makes the cell what it
      is, or a value that is none of the field's.
  """
  config = get_config(cell.argument)
  for pair in cell.overrides:
    fields.set_field(config, pair)
  own = {
    'dataset',
    'model.model_name',
    *(pair.partition('=')[0] for pair in cell.overrides),
  }
  for pair in settings:
    name = pair.partition('=')[0]
    if name in own:
      raise errors.ConfigError(
        f'{pair}: {name} is what makes {cell.name} that cell. Select others by '
        '--models, --datasets, --dropout or --schedules.'
      )
    fields.set_field(config, pair)
  return config


def check(
  cells: Sequence[Cell],
  out: pathlib.Path,
  settings: Sequence[str],
  get_config: GetConfig,
) -> None:
  """Finds out before the first cell what would make a later one fail.

  Args:
    cells: to be run.
    out: directory of the cells.
    settings: 'FIELD=VALUE' for all of them.
    get_config: of configs/vit.py.

  Raises:
    ConfigError: settings that can't work, each problem once, or other ones than
      those that a finished cell was made with; or the command was not given in
      the root of the checkout.
  """
  if not pathlib.Path(CONFIG_FILE).is_file():
    raise errors.ConfigError(
      f'There is no {CONFIG_FILE} in {pathlib.Path.cwd()}, which every cell is '
      'a run of. Give the command in the root of the checkout.'
    )
  found: dict[str, None] = {}
  for cell in cells:
    config = configure(cell, settings, get_config)
    found |= dict.fromkeys(config_checks.value_problems(config))
  if found:
    raise errors.ConfigError('Nothing is run:\n  ' + '\n  '.join(found))
  others = [
    f'  {record.run.path}: {" ".join(record.settings) or "nothing"}'
    for record in (Record(cell, out) for cell in cells)
    if record.is_finished and _differ(record.settings, settings)
  ]
  if others:
    raise errors.ConfigError(
      f'Nothing is run: set now is {" ".join(settings) or "nothing"}, but '
      'finished cells were run with\n' + '\n'.join(others) + '\nSelect other '
      'cells, or name another directory: --out DIR.'
    )


def run_cells(
  cells: Sequence[Cell],
  out: pathlib.Path,
  settings: Sequence[str] = (),
  say: Callable[[str], None] = print,
  train: Train = launch.run_training,
) -> list[Cell]:
  """Runs what is not finished, and writes the table after each cell.

  Args:
    cells: in this order; see `check`.
    out: directory in which each has one, and the table its files.
    settings: 'FIELD=VALUE' for all of them.
    say: is told a line at each start and end.
    train: starts a process, as `launch.run_training` does.

  Returns:
    The cells that did not finish.

  Raises:
    ConfigError: a file can't be read or written.
    StoppedError: SIGINT or SIGTERM came; the cell that was running is saved.
  """
  unfinished = []
  with launch.Signals() as signals:
    for number, cell in enumerate(cells, start=1):
      record, head = Record(cell, out), f'[{number}/{len(cells)}] {cell.name}'
      if record.is_finished:
        say(f'{head}: finished already')
        continue
      verb = 'continues' if record.attempts else 'starts'
      say(f'{head}: {verb}, see {record.log}')
      try:
        status = _attempt(cell, record, settings, train, signals)
      finally:
        writing.write(cells, out)
      result = record.result()
      if record.is_finished:  # Whatever befell the process after that.
        say(f'{head}: {writing.short(result)}')
      else:
        unfinished.append(cell)
        say(f'{head}: {result.status}, status {status}. {result.error}')
  writing.write(cells, out)
  return unfinished


def _attempt(
  cell: Cell,
  record: Record,
  settings: Sequence[str],
  train: Train,
  signals: launch.Signals,
) -> int:
  """Trains a cell, notes how it went and returns the status."""
  signals.check()
  before = record.log.stat().st_size if record.log.exists() else 0
  # Two clocks: what is noted must not depend on one that may be set.
  attempt, start = Attempt(started=time.time()), time.monotonic()
  record.begin(attempt, settings)
  status, error = None, ''
  try:
    outcome = train(
      f'{CONFIG_FILE}:{cell.argument}',
      record.run.path,
      [*cell.overrides, *settings],
      log=record.log,
      signals=signals,
    )
    # As the settings are called here.
    error = outcome.error.replace('--config.', '--set ')
    status = outcome.status
    return status
  except StoppedError as stopped:
    status = stopped.status
    raise
  finally:
    record.end(
      dataclasses.replace(
        attempt,
        seconds=time.monotonic() - start,
        status=status,
        device=record.device(before),
        error='' if status in STOPPED else error,
      )
    )


def _differ(before: Sequence[str], now: Sequence[str]) -> bool:
  old, new = (
    {
      name: value
      for name, _, value in (pair.partition('=') for pair in settings)
      if not run_settings.may_differ(name)
    }
    for settings in (before, now)
  )
  return old != new
