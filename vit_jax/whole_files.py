"""Files that are there whole or not at all, in the place of files only."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator


def no_file(path: pathlib.Path) -> str:
  """Returns why a path can't be that of a file, such as 'is a directory'.

  Args:
    path: of a file that is to be written.

  Returns:
    '' where there is a file, or nothing.
  """
  if path.is_dir():
    return 'is a directory'
  if path.exists() and not path.is_file():
    return 'is a device, a pipe or a socket'
  return ''


def check_file(path: pathlib.Path) -> None:
  """Raises OSError, which names it, where `no_file` has a reason.

  Whoever writes a file beside another and renames it asks this first: the file
  would come into the place of a device or a pipe.

  Args:
    path: of a file that is to be written.
  """
  if problem := no_file(path):
    raise OSError(errno.EINVAL, f'{problem}, not a file', str(path))


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives the path to write to, which then comes into the place of another.

  Args:
    path: of a file that is to be there whole or as it was.

  Raises:
    OSError: it can't be written, whatever the reason, and is named.
  """
  check_file(path)
  partial = path.with_name(path.name + '.partial')
  try:
    yield partial
    os.replace(partial, path)
  except OSError as error:  # Of a full disk, it has no name.
    reason = error.strerror or str(error)
    raise OSError(error.errno, reason, str(path)) from error
  finally:  # A full disk must not be left fuller.
    with contextlib.suppress(OSError):
      partial.unlink(missing_ok=True)


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file that is there whole or not at all.

  Args:
    path: of the file, which is replaced.
    text: of it.

  Raises:
    OSError: it can't be written; or there is something else than a file, which
      stays.
  """
  with replacing(path) as partial:
    partial.write_text(text, encoding='utf-8')
