"""Keeps a second run out of a directory while one is writing there.

The file `run.lock` is locked by the system, which lets go however the process
ends, and says for people who holds it. Where the file system knows no locks,
what the file says has to do.
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import functools
import json
import os
import pathlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

from absl import logging

from vit_jax import errors

FILE_NAME = 'run.lock'
IN_USE = 'is in use by another run'  # What the error says.
_HELD = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK}
_NO_LOCKS = {errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@dataclasses.dataclass(frozen=True)
class Holder:
  """A process that writes, or wrote, in a directory.

  Attributes:
    host: name of the machine.
    process: its number there.
    started: when it took the lock, as people write it.
  """

  host: str
  process: int
  started: str

  def __str__(self) -> str:
    return f'process {self.process} on {self.host}, since {self.started}'


@contextlib.contextmanager
def hold(directory: pathlib.Path) -> Iterator[Callable[[], bool]]:
  """Holds the lock of a directory, which is made if it isn't there.

  Of several processes of a run, one does.

  Yields:
    Whether the file is still the one that was locked: False once the directory
    was deleted or replaced, and perhaps belongs to another run.

  Raises:
    ConfigError: another run holds it, or the directory can't be written.
  """
  path = directory / FILE_NAME
  try:
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(path)
  except OSError as error:
    raise errors.ConfigError(
      f'The run can not be kept in {directory}: {error}. '
      'Name another directory: --workdir=DIR.'
    ) from error
  try:
    yield functools.partial(_is_same, descriptor, path)
  finally:
    # Before it is let go of: the next holder's must not be removed.
    with contextlib.suppress(OSError):
      if _is_same(descriptor, path):
        path.unlink()
    os.close(descriptor)


def _locked(path: pathlib.Path) -> int:
  """Returns a descriptor of the file, which holds the lock until it closes."""
  while True:
    # Not inherited by programs that are started, which may live longer.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
      _take(descriptor, path)
      # Who held it before may have removed the file meanwhile.
      if _is_same(descriptor, path):
        _write_holder(descriptor)
        return descriptor
    except BaseException:
      os.close(descriptor)
      raise
    os.close(descriptor)


def _take(descriptor: int, path: pathlib.Path) -> None:
  """Locks the file, or raises ConfigError where another process has."""
  here, holder = socket.gethostname(), _read_holder(path)
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    if error.errno in _HELD:
      raise _taken(path, holder, 'Wait for it, or stop it') from None
    if error.errno not in _NO_LOCKS:
      raise
    if holder and (holder.host != here or _is_running(holder.process)):
      advice = f'Stop it; if it is gone already, remove {path}'
      raise _taken(path, holder, advice) from None
  if holder and holder.host != here:
    logging.warning(
      '%s: a run was begun by %s. It does not hold the lock any more, so this '
      'one goes on. Should it still be running, stop one of the two.',
      path.parent,
      holder,
    )


def _taken(
  path: pathlib.Path, holder: Holder | None, advice: str
) -> errors.ConfigError:
  return errors.ConfigError(
    f'{path.parent} {IN_USE}: {holder or "an unknown process"} '
    f'({FILE_NAME}). {advice}, or name another directory: --workdir=DIR.'
  )


def _read_holder(path: pathlib.Path) -> Holder | None:
  """Returns who the file says holds the lock, None if that can't be read."""
  try:
    found: Any = json.loads(path.read_text(encoding='utf-8'))
    return Holder(**found)
  except (OSError, TypeError, ValueError):
    return None


def _write_holder(descriptor: int) -> None:
  now = datetime.datetime.now().astimezone()
  holder = Holder(
    socket.gethostname(), os.getpid(), now.strftime('%Y-%m-%d %H:%M:%S %z')
  )
  text = json.dumps(dataclasses.asdict(holder)) + '\n'
  os.ftruncate(descriptor, 0)
  os.pwrite(descriptor, text.encode(), 0)


def _is_same(descriptor: int, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(descriptor), path.stat())
  except FileNotFoundError:
    return False


def _is_running(process: int) -> bool:
  """Whether another process of that number is there, on this machine."""
  if process == os.getpid():  # A container gives each start the same number.
    return False
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except PermissionError:  # It is another user's.
    pass
  return True
