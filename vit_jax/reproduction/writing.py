"""The table of results, measured beside published, as Markdown and CSV."""

from __future__ import annotations

import csv
import io
import pathlib
from collections.abc import Sequence

from vit_jax import errors, whole_files
from vit_jax.reproduction import published
from vit_jax.reproduction.cells import Cell, Table, all_cells
from vit_jax.reproduction.published import Published
from vit_jax.reproduction.records import Record, Result

_NOTES = {
  True: 'Accuracies are in percent, on the whole test split after the last '
  'step; differences are in points, measured minus published. A time is of '
  'wall clock, over all attempts, with starts, compilation and evaluations in '
  'it. It compares with a published one only on the same devices.',
  False: '**No published figure belongs to any of these cells.** They have the '
  'shape of the table, 5 models x 3 data sets x 2 dropout rates, and show that '
  'the command does what it says; the models are too small and trained too '
  'briefly to tell anything else. A time is of wall clock, over all attempts, '
  'with starts, compilation and evaluations in it.',
}


def write(cells: Sequence[Cell], out: pathlib.Path) -> None:
  """Writes NAME.md and NAME.csv, NAME being the table's.

  Args:
    cells: at least one, all of one table. Those that were run before are in it
      as well.
    out: directory of the cells.

  Raises:
    ConfigError: a file can't be read or written.
  """
  table = cells[0].table
  rows = collect(cells, out)
  texts = {'md': markdown(table, rows), 'csv': as_csv(rows)}
  for suffix, text in texts.items():
    path = out / f'{table.name}.{suffix}'
    try:
      out.mkdir(parents=True, exist_ok=True)
      whole_files.write_text(path, text)
    except OSError as error:
      raise errors.ConfigError(
        f'{path}: the file can not be written ({error.strerror or error}).'
      ) from error


def collect(
  cells: Sequence[Cell], out: pathlib.Path
) -> list[tuple[Cell, Result]]:
  """Returns cells with their results, those of earlier commands among them.

  Args:
    cells: at least one, all of one table.
    out: directory of the cells.
  """
  return [
    (cell, Record(cell, out).result())
    for cell in all_cells(cells[0].table)
    if cell in cells or (out / cell.name).is_dir()
  ]


def markdown(table: Table, rows: Sequence[tuple[Cell, Result]]) -> str:
  """Returns the table as a page in Markdown.

  Args:
    table: of the cells.
    rows: from `collect`.
  """
  lines = [_row(cell, result) for cell, result in rows]
  # What no cell has is no column.
  names = [name for name in lines[0] if any(line[name] for line in lines)]
  done = sum(result.status == 'finished' for _, result in rows)
  parts = [f'# {table.title}', f'{done} of {len(rows)} cells are finished.']
  parts += [_NOTES[table.is_published], table_text(names, lines)]
  if problems := [
    f'- {cell.name}: {" ".join(result.error.split())}'
    for cell, result in rows
    if result.error
  ]:
    parts += ['Not finished:', '\n'.join(problems)]
  if used := _sources([cell for cell, _ in rows]):
    parts += ['Published figures:', '\n'.join(used)]
  return '\n\n'.join(parts) + '\n'


def as_csv(rows: Sequence[tuple[Cell, Result]]) -> str:
  """Returns the rows for programs: plain numbers, seconds and hours.

  Args:
    rows: from `collect`.
  """
  text = io.StringIO()
  writer = csv.writer(text, lineterminator='\n')
  lines = [_fields(cell, result) for cell, result in rows]
  writer.writerow(lines[0])
  for line in lines:
    writer.writerow('' if value is None else value for value in line.values())
  return text.getvalue()


def short(result: Result) -> str:
  """Returns how a finished cell went, for those who wait."""
  parts = [f'{result.accuracy:.2f} %'] if result.accuracy is not None else []
  if result.seconds is not None:
    parts.append(f'in {duration(result.seconds)}')
  return ' '.join([*parts, f'on {result.device or "an unknown device"}'])


def duration(seconds: float | None) -> str:
  """Returns '45 s', '17 min' or '2.2 h', '' for None."""
  if seconds is None:
    return ''
  if seconds < 99.5:
    return f'{seconds:.0f} s'
  return f'{seconds / 60:.0f} min' if seconds < 5400 else f'{hours(seconds)} h'


def hours(seconds: float) -> str:
  """Returns hours with a decimal, as they are published."""
  return f'{seconds / 3600:,.1f}'


def _row(cell: Cell, result: Result) -> dict[str, str]:
  theirs = published.of_cell(cell)
  is_known = theirs is not None and result.accuracy is not None
  return {
    'model': cell.model_name,
    'data set': cell.dataset,
    'dropout': str(cell.dropout),
    'steps': _steps(cell, result),
    'accuracy': '' if result.accuracy is None else f'{result.accuracy:.2f}',
    'published': f'{theirs.accuracy:.2f}' if theirs else '',
    'difference': f'{_difference(result, theirs):+.2f}' if is_known else '',
    'time': duration(result.seconds),
    'published time': duration(3600 * theirs.hours) if theirs else '',
    'device': result.device,
    'published device': theirs.device if theirs else '',
    'images/s': f'{result.images_per_sec:,.0f}'
    if result.images_per_sec is not None
    else '',
    'changed': ' '.join(result.settings),
    'status': '' if result.status == 'finished' else result.status,
  }


def _fields(cell: Cell, result: Result) -> dict[str, object]:
  theirs = published.of_cell(cell)
  is_known = theirs is not None and result.accuracy is not None
  return {
    'table': cell.table.name,
    'model': cell.model_name,
    'dataset': cell.dataset,
    'dropout': cell.dropout,
    'schedule': cell.schedule,
    'status': result.status,
    'step': result.step,
    'total_steps': result.total_steps,
    'accuracy': _rounded(result.accuracy, 4),
    'published_accuracy': theirs and theirs.accuracy,
    'difference': _rounded(_difference(result, theirs), 4)
    if is_known
    else None,
    'seconds': _rounded(result.seconds, 1),
    'hours': _rounded(result.seconds and result.seconds / 3600, 4),
    'published_hours': theirs and theirs.hours,
    'device': result.device,
    'published_device': theirs and theirs.device,
    'images_per_sec': _rounded(result.images_per_sec, 2),
    'attempts': result.num_attempts,
    'settings': ' '.join(result.settings),
    'directory': cell.name,
    'published_source': theirs
    and published.sources()[theirs.source]['address'],
    'error': result.error,
  }


def _difference(result: Result, theirs: Published | None) -> float:
  assert theirs is not None and result.accuracy is not None
  return result.accuracy - theirs.accuracy


def _steps(cell: Cell, result: Result) -> str:
  total = result.total_steps
  if total is None:
    steps = cell.table.schedules[cell.schedule].overrides.get('total_steps')
    return f'{steps:,}' if steps else ''
  if result.status == 'finished' or not result.step:
    return f'{total:,}'
  return f'{result.step:,} of {total:,}'


def table_text(names: Sequence[str], lines: Sequence[dict[str, str]]) -> str:
  """Returns a table in Markdown, aligned for those who read it as it is.

  Args:
    names: of the columns.
    lines: with a text for each column.
  """
  rows = [names, *([line[name] for name in names] for line in lines)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  text = ['| ' + ' | '.join(map(str.ljust, row, widths)) + ' |' for row in rows]
  rule = '|' + '|'.join('-' * (width + 2) for width in widths) + '|'
  return '\n'.join([text[0], rule, *text[1:]])


def _sources(cells: Sequence[Cell]) -> list[str]:
  found = [published.of_cell(cell) for cell in cells]
  known = published.sources()
  return [
    f'- {known[name]["title"]}, {known[name]["address"]}. {known[name]["says"]}'
    for name in dict.fromkeys(each.source for each in found if each)
  ]


def _rounded(value: float | None, digits: int) -> float | None:
  return None if value is None else round(value, digits)
