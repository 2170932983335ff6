"""The cells of the tables: which runs there are, and their settings."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence

from vit_jax import errors
from vit_jax.models import variants
from vit_jax.reproduction.tables import PAPER, STAND_IN, Table

__all__ = [
  'CONFIG_FILE',
  'PAPER',
  'STAND_IN',
  'Cell',
  'Table',
  'all_cells',
  'select',
]

CONFIG_FILE = 'configs/vit.py'


@dataclasses.dataclass(frozen=True)
class Cell:
  """One run of the table.

  Attributes:
    table: that it is of.
    model: without the prefix of the table's models.
    dataset: of `table.datasets`.
    dropout: rate.
    schedule: of `table.schedules`.
  """

  table: Table
  model: str
  dataset: str
  dropout: float
  schedule: str

  @property
  def model_name(self) -> str:
    """Returns what to call the model: nothing but its own name is it."""
    return self.table.prefix + variants.SHORT_NAMES[self.model]

  @property
  def name(self) -> str:
    """Returns a name that no other cell has, of any table: a directory's."""
    parts = [self.table.prefix + self.model, self.dataset.replace('/', '_')]
    parts.append(f'dropout_{self.dropout}')
    if self.schedule != next(iter(self.table.schedules)):
      parts.append(f'{self.schedule}_steps')
    return ','.join(parts)

  @property
  def argument(self) -> str:
    """Returns what follows 'configs/vit.py:'."""
    return f'{self.model},{self.dataset}'

  @property
  def overrides(self) -> list[str]:
    """Returns what the cell sets of the config, as 'FIELD=VALUE'."""
    values = {
      **self.table.models[self.model],
      'model.transformer.dropout_rate': self.dropout,
      **self.table.schedules[self.schedule].overrides,
    }
    if self.table.prefix:
      values['model.model_name'] = self.model_name
    return [f'{field}={value}' for field, value in values.items()]


def select(
  table: Table,
  models: Sequence[str] = (),
  datasets: Sequence[str] = (),
  dropouts: Sequence[str] = (),
  schedules: Sequence[str] = (),
) -> list[Cell]:
  """Returns the cells that are all of these, in the order of the table.

  Args:
    table: to choose from.
    models: 'b16' or 'ViT-B_16'; here and below, none is all.
    datasets: of the table.
    dropouts: '0.0', '0.1'.
    schedules: by name; none is the first.

  Raises:
    ConfigError: a name that the table doesn't have, or no cell has them all.
  """
  short = {long: name for name, long in variants.SHORT_NAMES.items()}
  plain = [name.removeprefix(table.prefix) for name in models]
  chosen = (
    _chosen('model', [short.get(name, name) for name in plain], table.models),
    _chosen('data set', datasets, table.datasets),
    _chosen('dropout', map(_rate, dropouts), map(str, table.dropouts)),
    _chosen('schedule', schedules or [*table.schedules][:1], table.schedules),
  )
  # Schedules last, so that those of one model stand together.
  cells = [
    Cell(table, model, dataset, float(dropout), schedule)
    for schedule, model, dataset, dropout in itertools.product(
      chosen[3], *chosen[:3]
    )
    if dataset in (table.schedules[schedule].datasets or table.datasets)
  ]
  if not cells:
    raise errors.ConfigError(
      f'There is no such cell: the schedule {" and ".join(chosen[3])} is of '
      f'{" and ".join(table.schedules[chosen[3][0]].datasets)} alone.'
    )
  return cells


def all_cells(table: Table) -> list[Cell]:
  """Returns every cell of a table."""
  return select(table, schedules=[*table.schedules])


def _chosen(kind: str, names: Iterable[str], valid: Iterable[str]) -> list[str]:
  names, valid = [*names], [*valid]
  for name in names:
    if name not in valid:
      raise errors.ConfigError(errors.unknown_name(kind, name, valid))
  return [name for name in valid if name in names or not names]


def _rate(text: str) -> str:
  """Returns '0.0' for '0', and what is no number as it is."""
  try:
    return str(float(text))
  except ValueError:
    return text
