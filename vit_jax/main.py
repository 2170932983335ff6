"""The command line: trains, continues or evaluates what a config describes.

python -m vit_jax.main --config configs/vit.py:tiny,digits
"""

import contextlib
import logging as stdlib_logging
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from vit_jax import environment, errors

_CONFIG = config_flags.DEFINE_config_file(
  'config',
  help_string='FILE.py:ARGS, such as configs/vit.py:b16,cifar10. A field is '
  'overridden by --config.FIELD=VALUE.',
)
_WORKDIR = flags.DEFINE_string(
  'workdir',
  None,
  'Directory of the run, which is continued if it is there. By default '
  'runs/CONFIG_FILE/ARGS.',
)
_MODE = flags.DEFINE_enum(
  'mode',
  'train',
  ['train', 'evaluate'],
  'evaluate prints the metrics of the run, or of the pretrained weights where '
  'there is no run, and writes nothing.',
)


def run() -> None:
  """Runs the command; a user's mistake is one message and exit status 2."""
  app.run(_main, flags_parser=parse_flags)


def _main(_) -> None:
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)  # Orbax and tfds tell a lot.
    # What Orbax logs as an error, with a traceback, it raises as well.
    logging.get_absl_logger().addFilter(
      lambda record: (
        'orbax' not in record.pathname or record.levelno < stdlib_logging.ERROR
      )
    )
  sys.unraisablehook = _without_late_answers
  try:
    _enable_compilation_cache()
    # Here, so that a typo in a flag is answered before JAX is loaded.
    from vit_jax import evaluate, train

    workdir = _WORKDIR.value or default_workdir(_config_argument(sys.argv))
    commands = {
      'train': train.train_and_evaluate,
      'evaluate': evaluate.evaluate_run,
    }
    commands[_MODE.value](_CONFIG.value, workdir)
  except errors.UserError as error:
    _fail(str(error))
  except RuntimeError as error:  # What XLA raises is one.
    if not _is_out_of_memory(error):
      raise
    _fail(
      f'Out of memory ({str(error).splitlines()[0]}). Raise '
      'config.accum_steps, lower config.batch or config.pp.crop, or set '
      'config.dtype=bfloat16.'
    )
  except KeyboardInterrupt:
    print(
      'Interrupted. The same command continues from the last checkpoint, if '
      'there is one.',
      file=sys.stderr,
    )
    sys.exit(130)


def default_workdir(config_argument: str) -> str:
  """Returns 'runs/vit/tiny,digits' for 'configs/vit.py:tiny,digits'."""
  file, _, args = config_argument.partition(':')
  # Slashes of a data set's path or variant would make directories.
  args = args.strip('/').replace('/', '_')
  return os.path.join('runs', pathlib.Path(file).stem, args)


def parse_flags(
  argv: list[str], names: Sequence[str] = ('mode', 'workdir')
) -> list[str]:
  """Parses the flags; whatever is wrong with them exits with status 2.

  Args:
    argv: of the process.
    names: of the flags besides --config, as a message lists them.

  Returns:
    What is no flag: the name of the program.
  """
  if {'--help', '-help', '-h'} & {*argv}:  # absl's own exits with status 1.
    app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
  if any(arg.lstrip('-').startswith('help') for arg in argv):
    return flags.FLAGS(argv)
  argument = _config_argument(argv)
  if not argument:
    _fail('No config. Try --config configs/vit.py:tiny,digits')
  file = pathlib.Path(argument.partition(':')[0])
  if not file.is_file():
    _fail(
      f'No config file {str(file)!r} in {os.getcwd()}. '
      f'Valid in configs/: {_config_names()}.'
    )
  # A config imports its neighbours as `configs.common`, wherever they are.
  sys.path.append(str(file.resolve().parent.parent))
  try:
    rest = flags.FLAGS(argv)
  # Besides absl's and ml_collections' own, whatever a config file raises.
  except Exception as error:
    _fail(_flag_error_text(error, argument, argv, names))
  if not isinstance(_CONFIG.value, ConfigDict):
    _fail(f'get_config() of {argument} returned no ConfigDict.')
  if rest[1:]:
    _fail(
      f'Unexpected argument {rest[1]!r}. A field is set by --config.FIELD=.'
    )
  return rest


def _config_argument(argv: list[str]) -> str:
  """Returns the last value of --config as it was written, '' for none."""
  found = ''
  for arg, following in zip(argv, [*argv[1:], ''], strict=True):
    name, equals, value = arg.partition('=')
    if name in ('--config', '-config'):
      found = value if equals else following
  return found


def _config_names() -> str:
  files = pathlib.Path('configs').glob('*.py')
  return ', '.join(sorted(p.name for p in files if p.stem != 'common')) or '-'


def _flag_error_text(
  error: Exception, argument: str, argv: list[str], names: Sequence[str]
) -> str:
  """Returns what is wrong with the flags, in the user's terms."""
  if isinstance(error, flags.UnrecognizedFlagError):
    name = '--' + error.flagname.partition('.')[0]
    valid = [f'--{each}' for each in ('config', 'config.FIELD', *names)]
    return errors.unknown_name('flag', name, valid)
  try:
    # The flag's value is lost where a field's is wrong.
    config = config_flags.config_flags.ConfigFileFlagParser('config').parse(
      argument
    )
  except Exception as config_error:
    return _config_error_text(config_error)
  for field, value in _overrides(argv):
    problem = _field_problem(config, field, value, str(error))
    if problem:
      return problem
  return str(error)


def _config_error_text(error: Exception) -> str:
  """Returns why a config file gives no config, without a traceback."""
  # ml_collections wraps what is raised, in an error of the same type.
  chain: list[BaseException] = [error]
  while inner := chain[-1].__cause__ or chain[-1].__context__:
    chain.append(inner)
  for cause in reversed(chain):
    if isinstance(cause, errors.UserError):
      return str(cause)
  place = traceback.extract_tb(chain[-1].__traceback__)[-1]
  return (
    f'The config file raised {type(chain[-1]).__name__}: {chain[-1]} '
    f'({place.filename}, line {place.lineno}).'
  )


def _overrides(argv: list[str]) -> Iterator[tuple[str, str]]:
  """Gives ('pp.crop', '16') for '--config.pp.crop=16'."""
  for arg, following in zip(argv, [*argv[1:], ''], strict=True):
    match = re.fullmatch(r'--?config\.([^=]+)(=.*)?', arg, re.DOTALL)
    if match:
      yield match[1], match[2][1:] if match[2] else following


def _field_problem(config: Any, field: str, value: str, error: str) -> str:
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
  if not error.startswith(f'flag --config.{field}='):
    return ''
  if isinstance(node, ConfigDict):
    return f'Set single fields of {path}: {", ".join(sorted(node))}.'
  return (
    f'--{path}={value}: expected a value of type {type(node).__name__}, such '
    f'as {node!r}, which the config has.'
  )


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


def _enable_compilation_cache() -> None:
  """Keeps compiled functions between runs; they take most of a start."""
  import jax

  current = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
  if current is None:
    jax.config.update(
      'jax_compilation_cache_dir', str(environment.cache_dir() / 'compiled')
    )


def _is_out_of_memory(error: RuntimeError) -> bool:
  # TensorStore says RESOURCE_EXHAUSTED of a full disk too.
  pattern = r'RESOURCE_EXHAUSTED.*(out of memory|allocat)'
  return bool(re.search(pattern, str(error), re.IGNORECASE | re.DOTALL))


def _without_late_answers(unraisable: Any) -> None:
  """Drops what TensorStore's threads print after a read that failed.

  Their other reads are answered to an event loop that Orbax has closed by then.
  """
  if str(unraisable.exc_value) != 'Event loop is closed':
    sys.__unraisablehook__(unraisable)


def _fail(text: str) -> NoReturn:
  """Prints the message and ends the process, whose last words it is.

  All context managers have been left: the error has come up through them.
  """
  with contextlib.suppress(OSError):  # Full disks and closed pipes.
    sys.stdout.flush()
    logging.flush()
    print(f'error: {text}', file=sys.stderr, flush=True)
  # Unlike `sys.exit`, without the shutdown in which the threads of Orbax and
  # TensorStore would print their tracebacks below the message.
  os._exit(2)


if __name__ == '__main__':
  run()
