"""The command line: trains, continues or evaluates what a config describes.

python -m vit_jax.main --config configs/vit.py:tiny,digits
"""

import contextlib
import logging as stdlib_logging
import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from vit_jax import (
  command_line,
  distributed,
  environment,
  errors,
  flag_errors,
  preemption,
)

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
  ['train', 'evaluate', 'plan'],
  'evaluate prints the metrics of the run, or of the pretrained weights where '
  'there is no run, and writes nothing. plan says what a run would take.',
)
_PLAN = flags.DEFINE_bool(
  'plan',
  False,
  'The same as --mode=plan: prints parameters, bytes, FLOPs and an estimate of '
  'the time, and compiles nothing.',
)
_ACCELERATOR = flags.DEFINE_string(
  'accelerator',
  '',
  'What is planned for, such as h100; by default the devices that are here.',
)
_COORDINATOR_ADDRESS = flags.DEFINE_string(
  'coordinator_address',
  None,
  'HOST:PORT of process 0, where several processes that train as one meet. '
  'SLURM, Cloud TPUs and the like say it by themselves: docs/scaling.md.',
)
_NUM_PROCESSES = flags.DEFINE_integer(
  'num_processes',
  None,
  'How many they are; 1 trains alone, whatever a launcher says.',
  lower_bound=1,
)
_PROCESS_ID = flags.DEFINE_integer(
  'process_id', None, 'Which of them this is, from 0.', lower_bound=0
)
_START_TIMEOUT = flags.DEFINE_integer(
  'start_timeout', 300, 'Seconds they wait for each other.', lower_bound=1
)
_HEARTBEAT_TIMEOUT = flags.DEFINE_integer(
  'heartbeat_timeout',
  60,
  'Seconds after which one without a sign of life counts as dead, and the '
  'others end.',
  lower_bound=2,
)
_GRACE = flags.DEFINE_float(
  'grace',
  25.0,
  'Seconds after SIGTERM or Ctrl-C in which training may finish its step and '
  'save.',
  lower_bound=0.0,
)
_FLAGS = (
  'accelerator',
  'coordinator_address',
  'grace',
  'heartbeat_timeout',
  'mode',
  'num_processes',
  'plan',
  'process_id',
  'start_timeout',
  'workdir',
)


def run() -> None:
  """Runs the command; a user's mistake is one message and exit status 2."""
  app.run(_main, flags_parser=parse_flags)


def _main(_) -> None:
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)  # Orbax and tfds tell a lot.
    # What matters of what Orbax logs, it raises as well.
    logging.get_absl_logger().addFilter(
      lambda record: 'orbax' not in record.pathname
    )
    logging.get_absl_handler().setFormatter(_PlainFormatter())
  workdir = _WORKDIR.value or default_workdir(_config_argument(sys.argv))
  commands = {'train': _train, 'evaluate': _evaluate, 'plan': _plan}
  try:
    with command_line.guarded_output():
      commands['plan' if _PLAN.value else _MODE.value](workdir)
  except errors.UserError as error:
    _fail_if_alone(error)
    _fail(str(error))
  except command_line.OutputError as error:
    _fail(_of_output(error), error.status)
  except preemption.StoppedError as stopped:
    import jax

    if jax.process_index() == 0:
      print(stopped, file=sys.stderr)
    sys.exit(stopped.status)
  except (RuntimeError, ValueError) as error:  # What XLA raises is one.
    _fail_if_alone(error)
    if not _is_out_of_memory(error):
      raise
    _fail(
      f'Out of memory ({str(error).splitlines()[0]}). Raise '
      'config.accum_steps, lower config.batch or config.pp.crop, or set '
      'config.dtype=bfloat16, or config.remat=full with '
      'config.scan_layers=True.'
    )
  except KeyboardInterrupt:
    print(
      'Interrupted. The same command continues from the last checkpoint, if '
      'there is one.',
      file=sys.stderr,
    )
    sys.exit(130)


def _of_output(error: command_line.OutputError) -> str:
  """Returns what to say: of a training more than of what only prints."""
  if _PLAN.value or _MODE.value != 'train':
    return error.text
  text = error.text or 'standard output: nobody reads it any more'
  return (
    f'{text}. The same command continues from the last checkpoint, if there is '
    'one.'
  )


class _PlainFormatter(logging.PythonFormatter):
  """Shows our own warnings as people write them, others as absl does."""

  def format(self, record: stdlib_logging.LogRecord) -> str:
    """Returns the lines of a record."""
    ours = pathlib.Path(__file__).parent
    if ours not in pathlib.Path(record.pathname).parents:
      return super().format(record)
    return f'{record.levelname.lower()}: {record.getMessage()}'


def _fail_if_alone(error: Exception) -> None:
  """Ends the process if the error is that another one has died."""
  reason = distributed.lost_process(error)
  if reason:
    _fail(
      f'Another process has died ({reason}), so this one ends. The same '
      'command, in every process, continues from the last checkpoint.',
      status=1,
    )


def _train(workdir: str) -> None:
  with preemption.Preemption(_GRACE.value) as signals:
    _start_processes(signals)
    from vit_jax import train

    train.train_and_evaluate(_CONFIG.value, workdir, signals)


def _evaluate(workdir: str) -> None:
  _start_processes()
  from vit_jax import evaluate

  evaluate.evaluate_run(_CONFIG.value, workdir)


def _plan(_) -> None:
  from vit_jax import plan

  plan.print_plan(_CONFIG.value, _ACCELERATOR.value)


def _start_processes(signals: preemption.Preemption | None = None) -> None:
  """Loads JAX, which a typo in a flag is answered before, and meets others."""
  _enable_compilation_cache()
  cluster = distributed.find_cluster(
    _COORDINATOR_ADDRESS.value, _NUM_PROCESSES.value, _PROCESS_ID.value
  )
  if cluster is not None:
    distributed.start(cluster, _START_TIMEOUT.value, _HEARTBEAT_TIMEOUT.value)
    if signals is not None:
      signals.share()


def default_workdir(config_argument: str) -> str:
  """Returns 'runs/vit/tiny,digits' for 'configs/vit.py:tiny,digits'."""
  file, _, args = config_argument.partition(':')
  # Slashes of a data set's path or variant would make directories.
  args = args.strip('/').replace('/', '_')
  return os.path.join('runs', pathlib.Path(file).stem, args)


def parse_flags(argv: list[str], names: Sequence[str] = _FLAGS) -> list[str]:
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
    _fail(flag_errors.flag_error_text(error, argument, argv, names))
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


def _enable_compilation_cache() -> None:
  """Keeps compiled functions between runs; they take most of a start."""
  import jax

  current = jax.config.jax_compilation_cache_dir  # pyright: ignore[reportAttributeAccessIssue]
  if current is None:
    jax.config.update(
      'jax_compilation_cache_dir', str(environment.cache_dir() / 'compiled')
    )


def _is_out_of_memory(error: Exception) -> bool:
  # TensorStore says RESOURCE_EXHAUSTED of a full disk too.
  pattern = r'RESOURCE_EXHAUSTED.*(out of memory|allocat)'
  return bool(re.search(pattern, str(error), re.IGNORECASE | re.DOTALL))


def _fail(text: str, status: int = 2) -> NoReturn:
  """Prints the message, if any, and ends the process, whose last words it is.

  All context managers have been left: the error has come up through them.
  """
  with contextlib.suppress(OSError):  # Full disks and closed pipes.
    sys.stdout.flush()
    logging.flush()
    if text:
      print(f'error: {text}', file=sys.stderr, flush=True)
  # Unlike `sys.exit`, without the shutdown in which the threads of Orbax and
  # TensorStore would print their tracebacks below the message.
  os._exit(status)


if __name__ == '__main__':
  run()
