"""What is wrong with a command line: all mistakes at once."""

from __future__ import annotations

import copy
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from vit_jax import errors

_Parser = config_flags.config_flags.ConfigFileFlagParser


def flag_error_text(
  error: Exception, argument: str, argv: Sequence[str], names: Sequence[str]
) -> str:
  """Returns what is wrong with the flags, one mistake a line.

  Beside those of flags it has the mistakes of the config, as the other flags
  make it. Where the argument of --config gives none, it has those of the fields
  that flags set.

  Args:
    error: that parsing them raised.
    argument: of --config.
    argv: of the process.
    names: of the flags besides --config.
  """
  problems = [*_unknown_flags(argv, names), *_bad_values(argv, names)]
  config, of_argument = _parsed(argument)
  given = [*overrides(argv)]
  if of_argument and not given:
    return _as_text([*problems, *of_argument])
  from vit_jax import config_checks  # Loads JAX, for those who mistake.

  if config is None:  # The fields are known all the same.
    config = config_checks.any_config()
  of_fields, read = [], []
  for field, value in given:
    problem = _field_problem(config, field, value)
    if problem:
      of_fields.append(problem)
    else:
      config = _overridden(config, field, value)
      read.append(field)
  if not (problems or of_argument or of_fields):
    problems = [str(error)]  # Of another flag: absl knows what.
  if of_argument:
    config = _part(config, read)
  of_values = config_checks.value_problems(config, is_partial=bool(of_argument))
  return _as_text([*problems, *of_argument, *of_fields, *of_values])


def built_config(
  argument: str, given: Sequence[tuple[str, str]] = ()
) -> ConfigDict:
  """Returns the config that the command line makes, for those who start it.

  Args:
    argument: of --config.
    given: ('pp.crop', '16') for '--config.pp.crop=16'.

  Raises:
    ConfigError: it has all mistakes, one a line.
  """
  file = pathlib.Path(argument.partition(':')[0])
  if not file.is_file():
    raise errors.ConfigError(f'No config file {str(file)!r} in {os.getcwd()}.')
  # A config imports its neighbours as `configs.common`, wherever they are.
  sys.path.append(str(file.resolve().parent.parent))
  config, problems = _parsed(argument)
  for field, value in given if config else ():
    try:
      config = overridden(config, field, value)
    except errors.ConfigError as error:
      problems.append(str(error))
  if config is None or problems:
    raise errors.ConfigError(_as_text(problems))
  return config


def overridden(config: Any, field: str, value: str) -> Any:
  """Returns a copy of a config as `--config.FIELD=VALUE` makes it.

  Raises:
    ConfigError: there is no such field, or the value is of another type.
  """
  problem = _field_problem(config, field, value)
  if problem:
    raise errors.ConfigError(problem)
  return _overridden(config, field, value)


def _parsed(argument: str) -> tuple[ConfigDict | None, list[str]]:
  """Returns the config that --config names, or None and what is wrong."""
  try:
    config = _Parser('config').parse(argument)
  except Exception as error:
    return None, config_error_text(error).splitlines()
  if not isinstance(config, ConfigDict):
    return None, [f'get_config() of {argument} returned no ConfigDict.']
  return config, []


def _part(config: Any, names: Sequence[str]) -> ConfigDict:
  """Returns a config with those fields alone, none of the model's."""
  part: dict[str, Any] = {}
  for name in names:
    *parents, leaf = name.split('.')
    if parents[:1] == ['model']:
      continue
    value, node = config, part
    for parent in parents:
      value, node = value[parent], node.setdefault(parent, {})
    node[leaf] = value[leaf]
  return ConfigDict(part)


def _as_text(problems: Sequence[str]) -> str:
  if len(problems) == 1:
    return problems[0]
  return '\n'.join(
    [f'{len(problems)} mistakes:', *(f'  {text}' for text in problems)]
  )


def config_error_text(error: Exception) -> str:
  """Returns why a config file gives no config, without a traceback."""
  # ml_collections wraps what is raised, in an error of the same type.
  chain: list[BaseException] = [error]
  while inner := chain[-1].__cause__ or chain[-1].__context__:
    chain.append(inner)
  for cause in reversed(chain):
    if isinstance(cause, errors.UserError):
      return str(cause)
  place = traceback.extract_tb(chain[-1].__traceback__)[-1]
  text = ' '.join(str(chain[-1]).split())
  return (
    f'The config file raised {type(chain[-1]).__name__}: {text} '
    f'({place.filename}, line {place.lineno}).'
  )


def overrides(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
  """Gives ('pp.crop', '16') for '--config.pp.crop=16'."""
  for arg, following in zip(argv, [*argv[1:], ''], strict=True):
    match = re.fullmatch(r'--?config\.([^=]+)(=.*)?', arg, re.DOTALL)
    if match:
      yield match[1], match[2][1:] if match[2] else following


def _unknown_flags(argv: Sequence[str], names: Sequence[str]) -> Iterator[str]:
  known = {'config', *names, *flags.FLAGS}
  valid = [f'--{each}' for each in ('config', 'config.FIELD', *names)]
  for arg in argv:
    if arg == '--':
      return
    match = re.fullmatch(r'--?([A-Za-z_]\w*)([.=].*)?', arg, re.DOTALL)
    if match and {match[1], match[1].removeprefix('no')}.isdisjoint(known):
      yield errors.unknown_name('flag', f'--{match[1]}', valid)


def _bad_values(argv: Sequence[str], names: Sequence[str]) -> Iterator[str]:
  """Yields which flags besides --config have values that they can't have."""
  args = iter(argv[1:])
  for arg in args:
    if arg == '--':
      return
    match = re.fullmatch(r'--?([A-Za-z_]\w*)(=.*)?', arg, re.DOTALL)
    if not match or match[1] not in {*names} & {*flags.FLAGS}:
      continue
    name, flag = match[1], flags.FLAGS[match[1]]
    if match[2]:
      value = match[2][1:]
    elif flag.boolean:
      continue
    else:
      value = next(args, None)
      if value is None:
        yield f'Missing value for flag --{name}.'
        return
    try:
      flag.parser.parse(value)
    except (TypeError, ValueError) as error:
      # Some have the value as a second argument.
      yield f'flag --{name}={value}: {error.args[0]}'


def _field_problem(config: Any, field: str, value: str) -> str:
  """Returns what is wrong with `--config.FIELD=VALUE`, '' for nothing."""
  path, node = 'config', config
  for name in field.split('.'):
    fields = [str(key) for key in node] if isinstance(node, ConfigDict) else []
    if path == 'config.eval_sets' and not fields:
      return _eval_sets_problem(field, value)
    if not fields:
      return f'{path} is {node!r} and has no field {name!r}.'
    if name not in fields:
      return errors.unknown_name(f'field of {path}', name, fields)
    path, node = f'{path}.{name}', node[name]
  try:
    _overridden(config, field, value)
  except Exception:  # Whatever a parser of a type raises.
    if isinstance(node, ConfigDict):
      return f'Set single fields of {path}: {", ".join(sorted(node))}.'
    return (
      f'--{path}={value}: expected a value of type {type(node).__name__}, such '
      f'as {node!r}.'
    )
  return ''


def _eval_sets_problem(field: str, value: str) -> str:
  """Returns how to write what was meant by `--config.eval_sets.NAME=`."""
  _, name, *kind = field.split('.')
  example = 'holdout=train[98%:],v2=imagenet_v2:test'
  if value and kind in ([], ['split']):
    example = f'{name}={value}'
  return (
    f'--config.{field}={value}: config.eval_sets is one text, NAME=SPLIT or '
    'NAME=DATASET:SPLIT for each set, with commas between: '
    f"--config.eval_sets='{example}'"
  )


def _overridden(config: Any, field: str, value: str) -> Any:
  """Returns a copy of the config with a flag's value, as absl parses it."""
  found = flags.FlagValues()
  argv = ['', f'--config.{field}={value}']
  # ml_collections looks there for what fields it is to make flags of.
  before, sys.argv = sys.argv, argv
  try:
    config_flags.DEFINE_config_dict(
      'config', copy.deepcopy(config), flag_values=found
    )
    found(argv)
    return found.config
  finally:
    sys.argv = before
