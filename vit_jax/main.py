"""The command line: trains, continues or evaluates what a config describes.

python -m vit_jax.main --config configs/vit.py:tiny,digits
"""

import os
import pathlib
import sys
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import config_flags

from vit_jax import errors

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
  app.run(_main, flags_parser=_parse_flags)


def _main(_) -> None:
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)  # Orbax and tfds tell a lot.
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
  except KeyboardInterrupt:
    print(
      'Interrupted. The same command continues from the last checkpoint.',
      file=sys.stderr,
    )
    sys.exit(130)


def default_workdir(config_argument: str) -> str:
  """Returns 'runs/vit/tiny,digits' for 'configs/vit.py:tiny,digits'."""
  file, _, args = config_argument.partition(':')
  # Slashes of a data set's path or variant would make directories.
  args = args.strip('/').replace('/', '_')
  return os.path.join('runs', pathlib.Path(file).stem, args)


def _parse_flags(argv: list[str]) -> list[str]:
  """Parses the flags; whatever is wrong with them exits with status 2."""
  argument = _config_argument(argv)
  file = pathlib.Path(argument.partition(':')[0])
  if argument and not file.is_file():
    _fail(
      f'No config file {str(file)!r} in {os.getcwd()}. '
      f'Valid in configs/: {_config_names()}.'
    )
  # A config imports its neighbours as `configs.common`, wherever they are.
  sys.path.append(str(file.resolve().parent.parent))
  try:
    rest = flags.FLAGS(argv)
    if not argument:
      _fail('No config. Try --config configs/vit.py:tiny,digits')
    return rest
  except (flags.Error, AttributeError, ValueError, TypeError, OSError) as error:
    _fail(_flag_error_text(error))


def _config_argument(argv: list[str]) -> str:
  """Returns the value of --config as it was written, '' if there is none."""
  for arg, following in zip(argv, [*argv[1:], ''], strict=True):
    name, equals, value = arg.partition('=')
    if name in ('--config', '-config'):
      return value if equals else following
  return ''


def _config_names() -> str:
  files = pathlib.Path('configs').glob('*.py')
  return ', '.join(sorted(p.name for p in files if p.stem != 'common')) or '-'


def _flag_error_text(error: BaseException) -> str:
  """Returns what is wrong, without the traceback ml_collections puts in."""
  cause: BaseException | None = error
  while cause is not None:
    if isinstance(cause, errors.UserError):
      return str(cause)
    cause = cause.__cause__ or cause.__context__
  return str(error)


def _enable_compilation_cache() -> None:
  """Keeps compiled functions between runs; they take most of a start."""
  import jax

  from vit_jax.checkpoints import locate

  current = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
  if current is None:
    jax.config.update(
      'jax_compilation_cache_dir', str(locate.cache_dir() / 'compiled')
    )


def _fail(text: str) -> NoReturn:
  logging.flush()
  print(f'error: {text}', file=sys.stderr)
  sys.exit(2)


if __name__ == '__main__':
  run()
