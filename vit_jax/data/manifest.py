"""Lists of images with their labels: CSV or JSON, a line for each image."""

import csv
import dataclasses
import json
import operator
import os
import reprlib
from collections.abc import Iterator
from typing import Any, TextIO

import numpy as np

from vit_jax import errors
from vit_jax.data import decode, splits
from vit_jax.data.files import Listing

_MAX_TOLD = 10  # Of the lines that are wrong, and of the files not there.
_COLUMNS = ('path', 'label', 'split')
_UNKNOWN = '?'  # Instead of a split.

_Problem = tuple[int, str]  # Line and what is wrong with it.


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
  line: int
  path: str  # '' for what is no text, here and below.
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
    DataError: it is not readable; the text has the bad lines and, as far as
      they can be told, the missing files.
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
        rows.append(_to_row(line, fields, inside, problems))
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
  _check(shown, rows, problems, os.path.dirname(path))
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
      # Without the place in the line, which is called a line as well.
      reason = getattr(error, 'msg', '') or errors.first_line(error)
      found, problem = None, f'not JSON ({reason})'
    if isinstance(found, dict):
      yield line, found
    else:
      expected = 'expected an object with path and label'
      problems.append((line, f'{problem}, {expected}'))


def _to_row(
  line: int, fields: dict[str, Any], inside: str, problems: list[_Problem]
) -> _Row:
  """Returns what a line says; what it says wrongly becomes a problem."""
  get: Any = fields.get  # Of what JSON has, any type.
  path, label, split = map(get, _COLUMNS)
  if type(label) is int:  # No bool.
    label = str(label)
  texts = {'path': path, 'label': label}
  for name, value in texts.items():
    if not isinstance(value, str) or not value.strip() or not _is_text(value):
      problem = f'{name} is {reprlib.repr(value)}, expected a text'
      problems.append((line, problem))
      texts[name] = ''
  known = '' if split is None else str(split).strip().lower()
  if known and known not in splits.NAMES:
    expected = ' or '.join(splits.NAMES)
    problems.append(
      (line, f'split is {reprlib.repr(split)}, expected {expected}')
    )
  return _Row(
    line,
    texts['path'] and _relative(texts['path'], inside),
    splits.canonical(texts['label'].strip()),
    known and splits.NAMES.get(known, _UNKNOWN),
  )


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
    other = first.setdefault(row.path, row) if row.path else row
    if (other.label, other.split) == (row.label, row.split):
      continue
    labels, both = {other.label, row.label}, {other.split, row.split}
    # What is missing or wrong is told of its own line.
    differ = ['label'] if len(labels) > 1 and '' not in labels else []
    if len(both) > 1 and not both & {'', _UNKNOWN}:
      differ.append('split')
    if differ:
      text = f'is in line {other.line} too, with another {" and ".join(differ)}'
      problems.append((row.line, f'{decode.shown(row.path)} {text}'))
  return problems


def _check(
  shown: str, rows: list[_Row], problems: list[_Problem], folder: str
) -> None:
  """Raises an error that has all problems, and the files that aren't there."""
  named = [row for row in rows if row.path]
  missing = [
    row for row in named if not os.path.isfile(os.path.join(folder, row.path))
  ]
  texts = []
  if problems:
    by_line: dict[int, list[str]] = {}
    for line, text in sorted(problems, key=operator.itemgetter(0)):
      by_line.setdefault(line, []).append(text)
    count = f'{len(by_line):,} line{"s"[: len(by_line) != 1]}'
    lines = [(line, '; '.join(found)) for line, found in by_line.items()]
    texts.append(f"{count} can't be used. Correct:\n{_listing(lines)}")
  if missing:
    hint = ''
    if '\\' in missing[0].path:
      hint = ' Separate folders by /, not by \\.'
    lines = [(row.line, decode.shown(row.path)) for row in missing]
    texts.append(
      f'{len(missing):,} of {len(named):,} files are not there. Paths are '
      f'absolute, or relative to {folder or "."!r}.{hint}\n{_listing(lines)}'
    )
  if texts:
    kind = errors.DataError if problems else errors.DataNotFoundError
    raise kind(f'{shown}: ' + '\n'.join(texts))
  if not rows:
    raise errors.DataError(
      f'{shown} lists no image. Expected a line for each, with path and label.'
    )


def _listing(problems: list[_Problem]) -> str:
  lines = [f'  line {line}: {text}' for line, text in problems[:_MAX_TOLD]]
  if len(problems) > _MAX_TOLD:
    lines.append(f'  and {len(problems) - _MAX_TOLD:,} more')
  return '\n'.join(lines)


def _line_of_bad_byte(path: str) -> int:
  with open(path, 'rb') as file:
    content = file.read()
  try:
    content.decode('utf-8')
  except UnicodeDecodeError as error:
    return content.count(b'\n', 0, error.start) + 1
  return 1  # Mended in the meantime.
