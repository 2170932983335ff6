"""What cells take on an accelerator, before anything is read or compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from vit_jax.plan import Plan, make_plan
from vit_jax.reproduction import published, running, writing
from vit_jax.reproduction.cells import Cell


@dataclasses.dataclass(frozen=True)
class Row:
  """The plan of a cell.

  Attributes:
    cell: that is planned.
    total_steps: updates.
    batch: images of each.
    accum_steps: the fewest micro-batches that fit, None if none do.
    plan: with that many, or with the config's.
  """

  cell: Cell
  total_steps: int
  batch: int
  accum_steps: int | None
  plan: Plan

  @property
  def seconds(self) -> float:
    """Returns an estimate of all steps."""
    return self.total_steps * self.plan.speed.step_seconds


def plan_cells(
  cells: Sequence[Cell],
  settings: Sequence[str],
  get_config: running.GetConfig,
  accelerator: str,
) -> list[Row]:
  """Returns a row for each cell.

  Args:
    cells: of any table.
    settings: 'FIELD=VALUE' for all of them. `accum_steps`, unless it is set
      here, is the smallest that fits.
    get_config: of configs/vit.py.
    accelerator: its name, see `vit_jax.plan`; '' for what is here.

  Raises:
    ConfigError: an unknown accelerator, or settings that can't work.
  """
  is_set = any(pair.startswith('accum_steps=') for pair in settings)
  rows, plans = [], {}
  for cell in cells:
    config = running.configure(cell, settings, get_config)
    total_steps = config.total_steps
    # A step takes what it takes, however many there are of them.
    config.total_steps = config.warmup_steps = config.eval_every = 1
    key = config.to_json_best_effort(sort_keys=True)
    if key not in plans:
      plans[key] = make_plan(config, accelerator, smallest=not is_set)
    plan = plans[key]
    accum_steps = plan.smallest_accum_steps
    if is_set:
      accum_steps = config.accum_steps if plan.fits else None
    rows.append(Row(cell, total_steps, config.batch, accum_steps, plan))
  return rows


def as_text(rows: Sequence[Row]) -> str:
  """Returns the plans as a page in Markdown.

  Args:
    rows: at least one.
  """
  lines = [_line(row) for row in rows]
  names = [name for name in lines[0] if any(line[name] for line in lines)]
  total = sum(row.seconds for row in rows if row.accum_steps)
  fitting = sum(bool(row.accum_steps) for row in rows)
  plan = rows[0].plan
  mesh = ', '.join(f'{axis}={size}' for axis, size in plan.mesh.items())
  parts = [
    f'Planned for {plan.device.name}, {mesh}: {len(rows)} cells, of which '
    f'{fitting} fit, in {writing.hours(total)} hours altogether.',
    'Time and memory of each device are estimates, from what the layers do and '
    'what the accelerator can, without evaluations, compilation, communication '
    'and waiting for data. accum_steps is the fewest micro-batches that fit: '
    'run a cell with --set accum_steps=N. Published times name a kind of '
    'device, but not how many there were.',
    _data_line(rows),
    writing.table_text(names, lines),
  ]
  return '\n\n'.join(parts)


def _line(row: Row) -> dict[str, str]:
  theirs = published.of_cell(row.cell)
  plan = row.plan
  return {
    'model': row.cell.model_name,
    'data set': row.cell.dataset,
    'dropout': str(row.cell.dropout),
    'steps': f'{row.total_steps:,}',
    'batch': str(row.batch),
    'accum_steps': str(row.accum_steps or 'none fits'),
    'GB': f'{plan.memory.total / 1e9:.1f}',
    'images/s': _speed(row.batch / plan.speed.step_seconds),
    'estimate': writing.duration(row.seconds) if row.accum_steps else '',
    'published': f'{writing.duration(3600 * theirs.hours)} {theirs.device}'
    if theirs
    else '',
  }


def _speed(images_per_sec: float) -> str:
  # A slow device has not 0.
  digits = ',.0f' if images_per_sec >= 10 else '.2g'
  return f'{images_per_sec:{digits}}'


def _data_line(rows: Sequence[Row]) -> str:
  counted, assumed, known = [], [], []
  for row in rows:
    origin = row.plan.classes_from
    kinds = {'counted': counted, 'assumed': assumed}
    kinds.get(origin.split()[0].rstrip(':'), known).append(row.cell.dataset)
  texts = []
  for datasets, text in (
    (known, 'No data were read, as the numbers of classes are known: '),
    (counted, 'Classes were counted in '),
    (assumed, 'Not prepared here, so 1,000 classes are assumed: '),
  ):
    if names := ', '.join(dict.fromkeys(datasets)):
      texts.append(f'{text}{names}.')
  return ' '.join(texts)
