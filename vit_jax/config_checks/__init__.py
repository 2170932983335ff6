"""Checks of a training config before anything heavy starts."""

from __future__ import annotations

import re
from typing import Any

from ml_collections import ConfigDict

from vit_jax import errors
from vit_jax.config_checks import (
  choices,
  devices,
  fields,
  model,
  ranges,
  splits,
)


def check_config(config: Any, num_devices: int) -> None:
  """Raises one error that lists all settings that can't work.

  Args:
    config: as `configs/common.py` defines it.
    num_devices: that the mesh is made of.

  Raises:
    ConfigError: each problem with the field, its value and values that work.
  """
  problems = value_problems(config, num_devices)
  if problems:
    raise errors.ConfigError(
      'The config can not work:\n' + '\n'.join(f'  {p}' for p in problems)
    )


def value_problems(
  config: Any, num_devices: int | None = None, is_partial: bool = False
) -> list[str]:
  """Returns what is wrong with a config, one text for each problem.

  Args:
    config: as `configs/common.py` defines it; fields may be missing, misspelt
      or of a wrong type.
    num_devices: that the mesh is made of; None where that is not known, which
      leaves out what depends on it.
    is_partial: whether missing fields are no mistake. What depends on them is
      left out as well.
  """
  of_fields = fields.problems(config)
  if is_partial:
    of_fields.pop('', None)
  # What can't be read has no value that could be out of range. Others have,
  # and are told at the same time.
  readable, bad = fields.readable(config)
  names = '|'.join(map(re.escape, sorted(bad)))
  unread = re.compile(rf'config\.({names})\b' if bad else '$^')
  found = [
    *devices.problems(readable, num_devices, bad),
    *ranges.problems(readable),
    *choices.problems(readable, bad),
    *splits.problems(readable, bad),
  ]
  if 'model' not in bad:
    found += model.problems(readable)
  return [
    *of_fields.values(),
    *(problem for problem in found if not unread.search(problem)),
  ]


def any_config() -> ConfigDict:
  """Returns a config with all fields that a config of any model has.

  Its values mean nothing, but for their types.
  """
  return fields.stand_in()


def check_classes(config: Any, num_classes: int) -> None:
  """Raises ConfigError if `best_metric` means nothing for so many classes."""
  if config.best_metric.endswith('/top5') and num_classes <= 5:
    raise errors.ConfigError(
      f'config.best_metric={config.best_metric!r} needs more than five '
      f'classes, and {config.dataset} has {num_classes}. Use '
      f"'{config.best_metric.removesuffix('/top5')}/accuracy'."
    )
