"""What is in a run's directory: settings, metrics, weights, and what is not."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vit_jax import errors, metrics, workdir

Series = tuple[np.ndarray, np.ndarray]

# Of fields that a report needs and that the config.json of older runs lacks.
_DEFAULTS: dict[str, Any] = {
  'batch_eval': 512,
  'dtype': 'float32',
  'eval_sets': '',
  'follow_links': False,
  'label': '',
  'num_threads': 16,
  'num_workers': 0,
  'offline': False,
  'on_bad_image': 'fail',
  'tfds_data_dir': None,
  'tfds_manual_dir': None,
}
# And without these there is nothing to evaluate.
_NEEDED: dict[str, type] = {'dataset': str, 'model': Mapping, 'pp': Mapping}
_NUM_EVALUATIONS = 10


@dataclasses.dataclass
class Run:
  """A run as it lies there.

  Attributes:
    path: its directory.
    name: what to call it, no two runs of a report the same.
    config: its settings, with defaults for what older runs lack; None where
      they can't be read.
    metrics: by name (steps [n], values [n]).
    class_names: in the order of the logits, None where they are not known.
    weights: 'model.npz' or 'checkpoints/STEP', '' for none.
    missing: what can't be shown, and why, a sentence each.
    notes: what else a reader should know, a sentence each.
  """

  path: pathlib.Path
  name: str
  config: ConfigDict | None
  metrics: dict[str, Series]
  class_names: list[str] | None
  weights: str
  missing: list[str] = dataclasses.field(default_factory=list)
  notes: list[str] = dataclasses.field(default_factory=list)

  @property
  def is_under_way(self) -> bool:
    """Whether it has not written its `model.npz`."""
    return self.weights != 'model.npz'

  @property
  def is_exported_best(self) -> bool:
    """Whether its `model.npz` may be of an earlier step than the last."""
    best = self.config is not None and self.config.get('export') == 'best'
    return best and not self.is_under_way

  @property
  def last_step(self) -> int:
    """The newest step that anything was logged of, 0 for none."""
    steps = [int(steps[-1]) for steps, _ in self.metrics.values() if len(steps)]
    return max(steps, default=0)

  @property
  def total_steps(self) -> int | None:
    """How many it is to make."""
    return self.config.get('total_steps') if self.config else None


def read(path: str | os.PathLike, name: str) -> Run:
  """Returns what is in a run's directory.

  Args:
    path: a directory with `config.json` or `metrics.jsonl`.
    name: what to call it.

  Raises:
    ConfigError: it is no run.
    DataError: `metrics.jsonl` is damaged.
  """
  files = workdir.Workdir(path)
  if not (files.config.is_file() or files.metrics.is_file()):
    raise errors.ConfigError(
      f'{files.path} is not the directory of a run: it has neither '
      f'{files.config.name} nor {files.metrics.name}. Give the --workdir that '
      'a run was started with.'
    )
  run = Run(
    files.path,
    name,
    None,
    {},
    workdir.read_labels(files.path),
    find_weights(path),
  )
  try:
    run.config = _config(files.config)
  except errors.ConfigError as error:
    run.missing.append(str(error))
  if files.metrics.is_file():
    run.metrics = metrics.read_metrics(files.metrics)
  else:
    run.missing.append(
      f'No curves: {files.metrics.name} is not there, so nothing was logged.'
    )
  return run


def find_weights(path: str | os.PathLike) -> str:
  """Returns 'model.npz' or 'checkpoints/STEP' of a run, '' for none."""
  files = workdir.Workdir(path)
  if files.model.is_file():
    return files.model.name
  steps = [
    int(path.name)
    for path in files.checkpoints.glob('*')
    if path.name.isdecimal()
  ]
  return f'{files.checkpoints.name}/{max(steps)}' if steps else ''


def _config(path: pathlib.Path) -> ConfigDict:
  nothing = 'No accuracy, mistakes or calibration'
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    reason = getattr(error, 'strerror', None) or str(error)
    raise errors.ConfigError(
      f'{nothing}: {path.name} can not be read ({reason}).'
    ) from error
  found = found if isinstance(found, Mapping) else {}
  if lacks := [key for key in _NEEDED if not found.get(key)]:
    raise errors.ConfigError(
      f'{nothing}: {path.name} does not say {", ".join(lacks)}.'
    )
  settings = {**_DEFAULTS, **found}
  kinds: dict[str, Any] = _NEEDED | {
    key: str | None if value is None else type(value)
    for key, value in _DEFAULTS.items()
  }
  wrong = [key for key in kinds if not isinstance(settings[key], kinds[key])]
  if not wrong:
    settings['pp'] = pp = {'test': 'test', **found['pp']}
    kinds_of_pp = {'crop': int, 'test': str}
    wrong = [
      f'pp.{key}'
      for key, kind in kinds_of_pp.items()
      if not isinstance(pp.get(key), kind)
    ]
  if wrong:
    raise errors.ConfigError(
      f'{nothing}: in {path.name}, {", ".join(wrong)} is of another type than '
      'in a run.'
    )
  return ConfigDict(settings)


def names_of(paths: Sequence[str | os.PathLike]) -> list[str]:
  """Returns what to call runs: the ends of their paths, as short as differ.

  Args:
    paths: of the runs.

  Raises:
    ConfigError: one is there twice.
  """
  parts = [pathlib.Path(path).expanduser().resolve().parts for path in paths]
  if len({*parts}) < len(parts):
    twice = next(each for i, each in enumerate(parts) if each in parts[:i])
    raise errors.ConfigError(
      f'{pathlib.Path(*twice)} is given twice; a run is compared with others.'
    )
  length = 1
  while True:  # At full length, they differ.
    names = ['/'.join(each[-length:]) for each in parts]
    if len({*names}) == len(names):
      return names
    length += 1


@dataclasses.dataclass(frozen=True)
class Evaluations:
  """The last evaluations of a run.

  Attributes:
    columns: names of the metrics, such as 'test/accuracy'.
    steps: at which they were made.
    values: [len(steps)][len(columns)], None where there is none.
  """

  columns: list[str]
  steps: list[int]
  values: list[list[float | None]]


def last_evaluations(run: Run) -> Evaluations:
  """Returns the last ten evaluations, those of all sets at a step as one."""
  columns = [
    name
    for name in run.metrics
    if '/' in name and name.partition('/')[0] != 'train'
  ]
  by_step: dict[int, dict[str, float]] = {}
  for name in columns:
    for step, value in zip(*run.metrics[name], strict=True):
      by_step.setdefault(int(step), {})[name] = float(value)
  # Accuracies first, whatever was logged first.
  columns.sort(key=lambda name: (name.partition('/')[0], _place(name)))
  steps = sorted(by_step)[-_NUM_EVALUATIONS:]
  values = [
    [
      value if (value := by_step[step].get(name)) is not None else None
      for name in columns
    ]
    for step in steps
  ]
  return Evaluations(columns, steps, values)


def _place(name: str) -> tuple[int, str]:
  kinds = ('accuracy', 'top5', 'loss')
  kind = name.rpartition('/')[2]
  return (kinds.index(kind) if kind in kinds else len(kinds), name)
