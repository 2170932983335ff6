"""What a sweep varies: values and ranges of fields, which are checked first."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ml_collections import ConfigDict

from vit_jax import config_checks, errors, flag_errors

Value = bool | int | float | str
# So many combinations are tried before anything runs; of more, each value.
_MAX_CHECKED = 200


@dataclasses.dataclass(frozen=True)
class Parameter:
  """A field that differs between trials.

  Attributes:
    name: of the field, such as 'model.transformer.dropout_rate'.
    values: that are tried; () of a range.
    low: of a range, which has both its ends.
    high: of a range.
    is_log: whether equal ratios are equally likely.
    is_int: whether only whole numbers are.
  """

  name: str
  values: tuple[Value, ...] = ()
  low: float = 0.0
  high: float = 0.0
  is_log: bool = False
  is_int: bool = False

  def examples(self) -> list[Value]:
    """Returns the values, or the ends of the range."""
    ends: list[Value] = [self.low, self.high]
    if self.is_int:
      ends = [int(self.low), int(self.high)]
    return [*self.values] or ends

  def __str__(self):
    if self.values:
      return f'{self.name}={",".join(map(str, self.values))}'
    low, high = self.examples()
    return f'{self.name}={low}..{high}{":log" * self.is_log}'


def parse(
  grids: Sequence[str], ranges: Sequence[str], base: ConfigDict
) -> tuple[Parameter, ...]:
  """Returns the parameters that the options describe.

  Args:
    grids: 'base_lr=0.01,0.03'; commas within brackets part no values.
    ranges: 'base_lr=1e-4..1e-1:log' or 'batch=32..512'.
    base: config whose fields they are.

  Raises:
    ConfigError: all that can't be read, fields there are none of, values of
      the wrong type, with the closest match.
  """
  found, problems = [], []
  for texts, read in ((grids, _read_grid), (ranges, _read_range)):
    for text in texts:
      try:
        found.append(read(text, base))
      except errors.ConfigError as error:
        problems.append(str(error))
  names = [parameter.name for parameter in found]
  problems += [
    f'{name} is varied twice; name it once.'
    for name in sorted({*names})
    if names.count(name) > 1
  ]
  if not (found or problems):
    problems.append(
      'Nothing is varied. Try --grid base_lr=0.003,0.01,0.03 or '
      '--range base_lr=1e-4..1e-1:log'
    )
  _raise_all(problems)
  return tuple(found)


def check(
  base: ConfigDict, parameters: Sequence[Parameter], metric: str
) -> None:
  """Finds settings that can't work before any of them is run.

  Args:
    base: config that the trials start from.
    parameters: that differ between them.
    metric: that they are compared by.

  Raises:
    ConfigError: all that is wrong, a line each.
  """
  config = base.copy_and_resolve_references()
  config.best_metric = metric  # Checked as such a name.
  problems = {}
  for text in config_checks.value_problems(config):
    text = text.replace('config.best_metric', '--metric')
    problems[text.replace(" '' is for none.", '')] = ''
  if not metric:
    problems['--metric is empty; try test/accuracy.'] = ''
  for params in _checked(parameters):
    changed = base.copy_and_resolve_references()
    changed.update_from_flattened_dict(_typed(params, base))
    for text in config_checks.value_problems(changed):
      if text not in problems:
        problems[text] = _told(params)
  _raise_all([f'{text}{where}' for text, where in problems.items()])


def combinations(parameters: Sequence[Parameter]) -> list[dict[str, Value]]:
  """Returns {field: value} of all combinations, the last varied fastest."""
  names = [parameter.name for parameter in parameters]
  each = itertools.product(*(parameter.values for parameter in parameters))
  return [dict(zip(names, values, strict=True)) for values in each]


def short_names(names: Sequence[str]) -> dict[str, str]:
  """Returns 'dropout_rate' for 'model.transformer.dropout_rate', if unique."""
  last = {name: name.rpartition('.')[2] for name in names}
  return {
    name: short if [*last.values()].count(short) == 1 else name
    for name, short in last.items()
  }


def shown(value: Value) -> str:
  """Returns a value as tables have it, of a float four digits."""
  return f'{value:.4g}' if isinstance(value, float) else str(value)


def _read_grid(text: str, base: ConfigDict) -> Parameter:
  name, equals, rest = text.partition('=')
  # A comma with an open bracket before it is within one value.
  texts = [x.strip() for x in re.split(r',(?![^()\[\]]*[)\]])', rest)]
  if not equals or not name or not all(texts):
    raise errors.ConfigError(
      f'--grid {text}: expected FIELD=VALUE,VALUE, such as base_lr=0.01,0.03.'
    )
  values = _read_values(name, texts, base)
  if len({*values}) < len(values):
    raise errors.ConfigError(f'--grid {text}: a value stands there twice.')
  return Parameter(name, tuple(values))


def _read_range(text: str, base: ConfigDict) -> Parameter:
  match = re.fullmatch(r'([^=]+)=(.+?)\.\.(.+?)(:log)?', text)
  if not match:
    raise errors.ConfigError(
      f'--range {text}: expected FIELD=LOW..HIGH or FIELD=LOW..HIGH:log, such '
      'as base_lr=1e-4..1e-1:log.'
    )
  name, is_log = match[1], bool(match[4])
  low, high = _read_values(name, [match[2], match[3]], base)
  if isinstance(low, bool | str) or isinstance(high, bool | str):
    raise errors.ConfigError(
      f'--range {text}: config.{name} is no number. Give its values by --grid.'
    )
  if not (math.isfinite(low) and math.isfinite(high) and low < high):
    raise errors.ConfigError(
      f'--range {text}: expected two numbers, the smaller one first.'
    )
  if is_log and low <= 0:
    raise errors.ConfigError(f'--range {text}: :log needs numbers above 0.')
  is_int = isinstance(low, int)
  return Parameter(name, (), float(low), float(high), is_log, is_int)


def _read_values(
  name: str, texts: Iterable[str], base: ConfigDict
) -> list[Value]:
  """Returns values as the config has them; a tuple stays as it is written."""
  values, problems = [], []
  for text in texts:
    try:
      config = flag_errors.overridden(base, name, text)
    except errors.ConfigError as error:
      problems.append(str(error))
      continue
    value: Any = config
    for part in name.split('.'):
      value = value[part]
    values.append(value if isinstance(value, Value) else text)
  _raise_all([*dict.fromkeys(problems)])  # All values lack the same field.
  return values


def _checked(parameters: Sequence[Parameter]) -> list[dict[str, Value]]:
  """Returns the combinations of values, or each by itself if too many."""
  each = [(p.name, p.examples()) for p in parameters]
  if math.prod(len(values) for _, values in each) > _MAX_CHECKED:
    return [{name: value} for name, values in each for value in values]
  return [
    dict(zip([name for name, _ in each], values, strict=True))
    for values in itertools.product(*(values for _, values in each))
  ]


def _typed(params: dict[str, Value], base: ConfigDict) -> dict[str, Any]:
  """Returns the values, tuples as tuples."""
  typed: dict[str, Any] = dict(params)
  for name, value in params.items():
    if isinstance(value, str):
      node: Any = flag_errors.overridden(base, name, value)
      for part in name.split('.'):
        node = node[part]
      typed[name] = node
  return typed


def _told(params: dict[str, Value]) -> str:
  return f' (with {", ".join(f"{k}={v}" for k, v in params.items())})'


def _raise_all(problems: Sequence[str]) -> None:
  if problems:
    raise errors.ConfigError('\n'.join(problems))
