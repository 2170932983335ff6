"""The figures that are published of cells, and where they are from."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from vit_jax.reproduction.cells import Cell

_PUBLISHED = pathlib.Path(__file__).with_name('published.json')


@dataclasses.dataclass(frozen=True)
class Published:
  """What somebody else has measured.

  Attributes:
    accuracy: in percent.
    hours: of wall-clock time.
    device: as the source names it, '' where it does not.
    source: key of `sources`.
  """

  accuracy: float
  hours: float
  device: str
  source: str


def of_cell(cell: Cell) -> Published | None:
  """Returns the figure that is published of a cell, None for none."""
  if not cell.table.is_published:
    return None
  wanted = (cell.model, cell.dataset, cell.dropout, cell.schedule)
  for row in _read()['results']:
    found = (row['model'], row['dataset'], row['dropout'], row['schedule'])
    if found == wanted:
      return Published(
        row['accuracy'], row['hours'], row['device'] or '', row['source']
      )
  return None


def sources() -> dict[str, dict[str, str]]:
  """Returns, by name, where figures are from: 'title', 'address', 'says'."""
  return _read()['sources']


def _read() -> dict[str, Any]:
  return json.loads(_PUBLISHED.read_text(encoding='utf-8'))
