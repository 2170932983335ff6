"""Standard output that nobody takes, told apart from files that fail."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


class OutputError(Exception):
  """Standard output can't be written to.

  It is no OSError, so that nobody takes it for one of a file.

  Attributes:
    status: with which the process should exit: 141 of a closed pipe, as the
      shell says of programs that the signal ends; else 2.
    text: for the user; '' of a closed pipe, whose reader has seen enough.
  """

  def __init__(self, error: OSError):
    is_pipe = isinstance(error, BrokenPipeError)
    self.status = 141 if is_pipe else 2
    self.text = '' if is_pipe else f'standard output: {error.strerror or error}'
    super().__init__(self.text)


@contextlib.contextmanager
def guarded_output() -> Iterator[None]:
  """Raises OutputError where standard output fails, at the end as well.

  What is still to be written is dropped then; Python would try once more when
  it ends, and complain.
  """
  stream = sys.stdout
  if stream is None:  # Closed from the beginning: `print` does nothing.
    yield
    return
  sys.stdout = guarded = _Guarded(stream)
  try:
    try:
      yield
    finally:
      guarded.flush()
  except OutputError:
    _drop(stream)
    raise
  finally:
    sys.stdout = stream


class _Guarded:
  """A stream whose own failures are told apart from all others."""

  def __init__(self, stream: Any):
    self._stream = stream

  def write(self, text: str) -> int:
    """Writes a text; returns its length."""
    try:
      return self._stream.write(text)
    except OSError as error:
      raise OutputError(error) from error

  def flush(self) -> None:
    """Writes what has been kept back."""
    try:
      self._stream.flush()
    except OSError as error:
      raise OutputError(error) from error

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


def _drop(stream: Any) -> None:
  """Lets all further writing to a stream go nowhere."""
  with contextlib.suppress(OSError, ValueError):  # It may have no descriptor.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
      os.dup2(nowhere, stream.fileno())
    finally:
      os.close(nowhere)
