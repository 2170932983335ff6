"""Runs a command line: what ends it becomes a message and an exit status."""

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from vit_jax import errors, preemption
from vit_jax.command_line import interrupting
from vit_jax.command_line.output import OutputError, guarded_output
from vit_jax.command_line.wording import as_options


def start(main: Callable[[], int]) -> NoReturn:
  """Ends the process with the status that `main` returns.

  SIGTERM, by which job schedulers stop a program, ends it with 143 such that
  what is to be tidied up is.

  Args:
    main: of a script.
  """
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  sys.exit(main())


def run(
  command: Callable[[argparse.Namespace], int],
  make_parser: Callable[[], argparse.ArgumentParser],
  stopped: str = 'stopped',
) -> int:
  """Parses the arguments and runs the command; returns the exit status.

  Args:
    command: is given the arguments and returns the exit status.
    make_parser: returns a parser of the arguments. What it and the command
      import themselves, for seconds perhaps, Ctrl-C ends like all the rest.
    stopped: as `status_of` takes it.

  Raises:
    SystemExit: the arguments can't be used, or ask for help.
  """
  args = argparse.Namespace()
  return status_of(
    lambda: command(make_parser().parse_args(namespace=args)),
    stopped,
    vars(args),  # Which parsing fills.
  )


def status_of(
  command: Callable[[], int],
  stopped: str = 'stopped',
  options: Mapping[str, Any] | None = None,
) -> int:
  """Returns the exit status of a command, whatever ends it.

  A mistake of the user's is one message and 2, as is a file or a standard
  output that can't be written; a closed pipe is 141, Ctrl-C 130, and where
  training was stopped, 128 and the number of the signal.

  Args:
    command: returns the status.
    stopped: what to say after Ctrl-C: what stays of it.
    options: of the command line, values by names without dashes, which a
      message shall name instead of fields of a config: see `as_options`.
  """
  options = {} if options is None else options
  try:
    with interrupting.heeded(), guarded_output():
      return command()
  except errors.UserError as error:
    text, status = f'error: {as_options(str(error), options)}', 2
  except OutputError as error:
    text, status = error.text and f'error: {error.text}', error.status
  except preemption.StoppedError as error:
    text, status = str(error), error.status
  except BrokenPipeError:  # Of standard error, which nobody reads either.
    text, status = '', 141
  except OSError as error:
    parts = ['error', str(error.filename or ''), str(error.strerror or error)]
    text, status = ': '.join(filter(None, parts)), 2
  except KeyboardInterrupt:
    text, status = stopped, 130
  with contextlib.suppress(OSError):  # Standard error may be full, too.
    print(text, end='\n' if text else '', file=sys.stderr, flush=True)
  return status
