"""The cells of the table as data: which runs there are, and their settings."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vit_jax import errors
from vit_jax.models import variants

CONFIG_FILE = 'configs/vit.py'
_PUBLISHED = pathlib.Path(__file__).with_name('published.json')


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How long is trained.

  Attributes:
    overrides: of the config; none leaves what the data set's preset says.
    datasets: those that it is for, () for all.
  """

  overrides: Mapping[str, int]
  datasets: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
  """All cells that can be selected.

  Attributes:
    name: also that of the files with the results.
    title: heading of those.
    models: what the config calls a model -> what is overridden of its fields.
    prefix: of the models' names in this table.
    datasets: as the config calls them.
    dropouts: rates.
    schedules: by name; the first is what is selected by default.
    is_published: whether the cells are those that figures are published of.
  """

  name: str
  title: str
  models: Mapping[str, Mapping[str, Any]]
  datasets: tuple[str, ...]
  dropouts: tuple[float, ...]
  schedules: Mapping[str, Schedule]
  prefix: str = ''
  is_published: bool = False


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


PAPER = Table(
  name='table',
  title='Fine-tuning from ImageNet-21k, beside the published figures',
  models={name: {} for name in ('r50_b16', 'b16', 'b32', 'l16', 'l32')},
  datasets=('cifar10', 'cifar100', 'imagenet2012'),
  dropouts=(0.0, 0.1),
  schedules={
    'paper': Schedule({}),
    '500': Schedule(
      {'total_steps': 500, 'warmup_steps': 50}, ('cifar10', 'cifar100')
    ),
    '1000': Schedule(
      {'total_steps': 1_000, 'warmup_steps': 100}, ('cifar10', 'cifar100')
    ),
  },
  is_published=True,
)


def _mini(patch: int, width: int, layers: int, **others: Any) -> dict[str, Any]:
  return {
    'model.patches.size': (patch, patch),
    'model.hidden_size': width,
    'model.transformer.mlp_dim': 2 * width,
    'model.transformer.num_heads': 4,
    'model.transformer.num_layers': layers,
    # Without augmentation a few epochs are enough to tell it from chance.
    'base_lr': 3e-3,
    'mixup_alpha': 0.0,
    'pp.augment': 'none',
    'best_metric': '',
    **others,
  }


# The same shape on what every machine has. Images are 16 pixels wide: 16 tokens
# for what is 16 pixels to a token there, 4 for 32, and more width and depth for
# L than for B. A stem without stages divides by 4.
STAND_IN = Table(
  name='stand_in',
  title="Stand-in: minute models from scratch on scikit-learn's digits",
  models={
    'r50_b16': _mini(1, 32, 2, **{'model.resnet.num_layers': (1,)}),
    'b16': _mini(4, 32, 2),
    'b32': _mini(8, 32, 2),
    'l16': _mini(4, 48, 3),
    'l32': _mini(8, 48, 3),
  },
  datasets=('digits', 'digits/0_to_4', 'digits/5_to_9'),
  dropouts=(0.0, 0.1),
  schedules={
    name: Schedule(
      {
        'total_steps': steps,
        'warmup_steps': steps // 10,
        'eval_every': steps,
        'checkpoint_every': 50,
      }
    )
    for name, steps in (('full', 200), ('50', 50), ('100', 100))
  },
  prefix='mini-',
)


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


def published(cell: Cell) -> Published | None:
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
