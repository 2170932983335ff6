"""Lists of images with their labels: CSV or JSON, a line for each image."""

import csv
import dataclasses
import json
import os
import reprlib
from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np

from vit_jax import errors
from vit_jax.data import decode, splits
from vit_jax.data.files import Listing

_MAX_TOLD = 10  # Of the lines that are wrong.
_COLUMNS = ('path', 'label', 'split')


_Problem = tuple[int, str]  # Line and what is wrong with it.


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
  line: int
  path: str
  label: str
  split: str  # '' for none.


class Manifest:
  """What a list of images says.

  Attributes:
    splits: names of those that its column `split` has; empty without one.
  """

  def __init__(self, rows: list[_Row]):
    self._rows = rows
    found = {row.split for row in rows}
    order = ('train', 'test', 'validation')
    self.splits = {name: name for name in order if name in found}

  def class_names(self) -> list[str]:
    """Returns the labels of the training split, sorted."""
    return sorted({row.label for row in self._of('train')})

  def list_images(self, base: str) -> Listing:
    """Returns all images of a split, or of the list if it is not split."""
    rows = self._of(base)
    classes = sorted({row.label for row in rows})
    index = {name: i for i, name in enumerate(classes)}
    return Listing(
      names=[row.path for row in rows],
      prefix='',
      classes=classes,
      class_index=np.array([index[row.label] for row in rows], np.int64),
    )

  def _of(self, base: str) -> list[_Row]:
    return [row for row in self._rows if not self.splits or row.split == base]


def read(path: str) -> Manifest:
  """Reads a list of images, of which each has to be there.

  CSV has a header; JSON lines are an object each. Both have `path`, relative to
  the list's folder or absolute, `label`, and perhaps `split` (train, test,
  validation or val). Other columns are passed over. It is UTF-8.

  Raises:
    DataNotFoundError: there is no such list, or files that it has are missing.
    DataError: it is not readable; the text has the bad lines.
  """
  shown = decode.shown(path)
  problems: list[_Problem] = []
  is_csv = path.lower().endswith('.csv')
  parse = _parse_csv if is_csv else _parse_json
  inside = os.path.join(os.path.abspath(os.path.dirname(path)), '')
  rows = []
  try:
    # The ends of a CSV's lines are csv's to find: there are some in quotes.
    newline = '' if is_csv else None
    with open(path, encoding='utf-8-sig', newline=newline) as file:
      for line, fields in parse(file, shown, problems):
        row, problem = _to_row(line, fields, inside)
        if row is None:
          problems.append((line, problem))
        else:
          rows.append(row)
  except FileNotFoundError as error:
    raise errors.DataNotFoundError(
      f'{shown}: there is no such list of images. Correct config.dataset.'
    ) from error
  except UnicodeDecodeError as error:
    raise errors.DataError(
      f'{shown}, line {_line_of_bad_byte(path)}: a byte that is not UTF-8. '
      'Save the list as UTF-8.'
    ) from error
  except OSError as error:
    raise errors.DataError(
      f"{shown}: this list of images can't be read ({error.strerror}). Change "
      'its permissions.'
    ) from error
  problems += _split_problems(rows) + _repetition_problems(rows)
  if problems:
    raise errors.DataError(_problem_text(shown, problems))
  if not rows:
    raise errors.DataError(
      f'{shown} lists no image. Expected a line for each, with path and label.'
    )
  _check_files(rows, path)
  return Manifest(rows)


def _parse_csv(
  file: TextIO, shown: str, problems: list[_Problem]
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (line, {column: cell}); what can't be read becomes a problem."""
  lines = csv.reader(file, strict=True, skipinitialspace=True)
  columns: list[str] = []
  line = 1
  try:
    for cells in lines:
      if not columns:
        columns = [cell.strip().lower() for cell in cells]
        _check_header(columns, cells, shown)
      elif len(cells) == len(columns):
        yield line, dict(zip(columns, cells, strict=True))
      elif cells:  # An empty line has none.
        problems.append(
          (line, f'{len(cells)} cells, expected the {len(columns)} of line 1')
        )
      line = lines.line_num + 1
  except csv.Error as error:
    problems.append((line, f'its quotes do not fit ({error})'))


def _check_header(columns: list[str], cells: list[str], shown: str) -> None:
  counts = [columns.count(name) for name in _COLUMNS]
  if counts[:2] != [1, 1] or counts[2] > 1:
    raise errors.DataError(
      f'{shown}, line 1: found {reprlib.repr(",".join(cells))}, expected a '
      'header with the columns path and label, and perhaps split, such as '
      "'path,label'."
    )


def _parse_json(
  file: TextIO, shown: str, problems: list[_Problem]
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (line, object); what can't be read becomes a problem."""
  del shown
  for line, text in enumerate(file, 1):
    if not text.strip():
      continue
    try:
      found = json.loads(text)
      problem = reprlib.repr(found)
    except (ValueError, RecursionError) as error:
      found, problem = None, f'not JSON ({errors.first_line(error)})'
    if isinstance(found, dict):
      yield line, found
    else:
      expected = 'expected an object with path and label'
      problems.append((line, f'{problem}, {expected}'))


def _to_row(
  line: int, fields: dict[str, Any], inside: str
) -> tuple[_Row | None, str]:
  """Returns what a line says, or None and what is wrong with it."""
  get: Any = fields.get  # Of what JSON has, any type.
  path, label, split = map(get, _COLUMNS)
  if type(label) is int:  # No bool.
    label = str(label)
  for name, value in {'path': path, 'label': label}.items():
    if not isinstance(value, str) or not value.strip() or not _is_text(value):
      return None, f'{name} is {reprlib.repr(value)}, expected a text'
  split = '' if split is None else split
  known = str(split).strip().lower()
  if known and known not in splits.NAMES:
    return (
      None,
      f'split is {reprlib.repr(split)}, expected {" or ".join(splits.NAMES)}',
    )
  return _Row(
    line,
    _relative(path, inside),
    splits.canonical(label.strip()),
    splits.NAMES.get(known, ''),
  ), ''


def _is_text(value: str) -> bool:
  """Tells whether it can be a name: JSON has halves of characters, and NUL."""
  try:
    return b'\0' not in value.encode()
  except UnicodeEncodeError:
    return False


def _relative(path: str, inside: str) -> str:
  """Returns one of the ways to write the same path, which is what is hashed."""
  if '..' not in path:  # After a link, that is another place.
    path = os.path.normpath(path)
  return path.removeprefix(inside)


def _split_problems(rows: list[_Row]) -> list[_Problem]:
  if not any(row.split for row in rows):
    return []
  return [
    (row.line, f'has no split, expected {" or ".join(splits.NAMES)}')
    for row in rows
    if not row.split
  ]


def _repetition_problems(rows: list[_Row]) -> list[_Problem]:
  """Tells of images that are in two splits or have two labels."""
  first: dict[str, _Row] = {}
  problems = []
  for row in rows:
    other = first.setdefault(row.path, row)
    if (other.label, other.split) != (row.label, row.split):
      problems.append(
        (
          row.line,
          f'{decode.shown(row.path)} is in line {other.line} too, with another '
          f'{"label" if other.label != row.label else "split"}',
        )
      )
  return problems


def _problem_text(shown: str, problems: list[_Problem]) -> str:
  lines = [f'  line {line}: {text}' for line, text in sorted(problems)]
  if len(lines) > _MAX_TOLD:
    lines[_MAX_TOLD:] = [f'  and {len(lines) - _MAX_TOLD:,} more']
  count = f'{len(problems):,} line{"s"[: len(problems) != 1]}'
  return f"{shown}: {count} can't be used. Correct:\n" + '\n'.join(lines)


def _check_files(rows: list[_Row], path: str) -> None:
  folder = os.path.dirname(path)
  missing = [
    row for row in rows if not os.path.isfile(os.path.join(folder, row.path))
  ]
  if not missing:
    return
  lines = [
    f'  line {row.line}: {decode.shown(row.path)}'
    for row in missing[:_MAX_TOLD]
  ]
  if len(missing) > _MAX_TOLD:
    lines.append(f'  and {len(missing) - _MAX_TOLD:,} more')
  hint = ''
  if '\\' in missing[0].path:
    hint = ' Separate folders by /, not by \\.'
  raise errors.DataNotFoundError(
    f'{decode.shown(path)}: {len(missing):,} of {len(rows):,} files are not '
    f'there. Paths are absolute, or relative to {folder or "."!r}.{hint}\n'
    + '\n'.join(lines)
  )


def _line_of_bad_byte(path: str) -> int:
  with open(path, 'rb') as file:
    content = file.read()
  try:
    content.decode('utf-8')
  except UnicodeDecodeError as error:
    return content.count(b'\n', 0, error.start) + 1
  return 1  # Mended in the meantime.
