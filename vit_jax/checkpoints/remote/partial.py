"""The part of a file that is still coming, and how it becomes the whole.

It is `NAME.partial`, with `NAME.partial.json` saying of which version of the
file it is a part; both outlive the process, so that the next one goes on where
this one stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import time
from collections.abc import Iterator

from vit_jax import errors
from vit_jax.checkpoints.digest import file_digest
from vit_jax.checkpoints.remote import patience
from vit_jax.checkpoints.remote.reasons import UnavailableError

# How long another process that downloads the same file may make no progress.
LOCK_SECONDS = 10.0


@dataclasses.dataclass
class Partial:
  """The part of a file that is there, and what the whole is to be.

  Attributes:
    path: of the part.
    version: what the server called this version of the file, its ETag or else
      its date, or ''.
    num_bytes: of the whole, or None if unknown.
    md5: of the whole in hexadecimal, or ''.
  """

  path: pathlib.Path
  version: str = ''
  num_bytes: int | None = None
  md5: str = ''

  @classmethod
  def of(cls, target: pathlib.Path) -> Partial:
    """Returns what an earlier attempt left for `target`."""
    partial = cls(target.with_name(f'{target.name}.partial'))
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
      notes = json.loads(partial._notes.read_bytes())
      num_bytes, md5 = notes['num_bytes'], str(notes['md5'])
      partial.num_bytes = None if num_bytes is None else int(num_bytes)
      partial.md5, partial.version = md5, str(notes['version'])
    # Without a version, nobody knows what the bytes are a part of.
    too_long = partial.num_bytes and partial.size > partial.num_bytes
    if not partial.version or too_long:
      partial.remove()
    return partial

  @property
  def _notes(self) -> pathlib.Path:
    return self.path.with_name(f'{self.path.name}.json')

  @property
  def size(self) -> int:
    """Number of bytes that are there."""
    return self.path.stat().st_size if self.path.is_file() else 0

  @property
  def is_whole(self) -> bool:
    return bool(self.num_bytes) and self.size == self.num_bytes

  def begin(self, version: str, num_bytes: int | None, md5: str) -> None:
    """Empties it for another version."""
    self.version, self.num_bytes, self.md5 = version, num_bytes, md5
    self.path.write_bytes(b'')
    notes = {'version': version, 'num_bytes': num_bytes, 'md5': md5}
    self._notes.write_text(json.dumps(notes), encoding='utf-8')

  def remove(self) -> None:
    self.version, self.num_bytes, self.md5 = '', None, ''
    self.path.unlink(missing_ok=True)
    self._notes.unlink(missing_ok=True)

  def finish(self, target: pathlib.Path, sha256: str) -> None:
    """Checks it and moves it into place."""
    size = self.size
    if self.num_bytes is not None and size != self.num_bytes:
      total = self.num_bytes
      self.remove()
      raise UnavailableError(f'{size} bytes came of a file of {total}')
    if problem := _wrong_beginning(self.path, target.suffix):
      self.remove()
      raise UnavailableError(problem, is_final=True)
    for name, expected in (('md5', self.md5), ('sha256', sha256)):
      if expected and (found := file_digest(self.path, name)) != expected:
        self.remove()
        raise UnavailableError(
          f'wrong {name}: expected {expected}, got {found}; what came was '
          'removed',
          is_final=True,
        )
    os.replace(self.path, target)
    self._notes.unlink(missing_ok=True)


def is_there(target: pathlib.Path, sha256: str) -> bool:
  """Whether a file needs no download; what is wrong waits for a better one."""
  return target.is_file() and (not sha256 or file_digest(target) == sha256)


def _wrong_beginning(path: pathlib.Path, suffix: str) -> str:
  """Returns what is wrong with a file that holds no weights, or ''.

  Servers send notices, and pointers to files, where the file was asked for.

  Args:
    path: of the file.
    suffix: of the name that it is to have; of one without, it may be either.
  """
  if suffix == '.csv':
    return ''
  with open(path, 'rb') as file:
    first = file.read(60)
  header = int.from_bytes(first[:8], 'little')
  is_npz = first[:2] == b'PK'
  is_safetensors = first[8:9] == b'{' and header <= path.stat().st_size - 8
  if is_npz and suffix != '.safetensors':
    return ''
  if is_safetensors and suffix != '.npz':
    return ''
  expected = suffix if suffix != '.file' else '.npz or .safetensors'
  return (
    f'not a file of weights ({expected}): it begins with {ascii(first)[1:]}'
  )


@contextlib.contextmanager
def only_one(target: pathlib.Path) -> Iterator[None]:
  """Lets one process at a time download `target`; the others wait for it.

  Raises:
    UnavailableError: the other process gets nowhere.
  """
  import filelock

  partial = target.with_name(f'{target.name}.partial')
  target.parent.mkdir(parents=True, exist_ok=True)
  lock = filelock.FileLock(target.with_name(f'.{target.name}.lock'))
  size, since = -1, time.monotonic()
  while not lock.is_locked:
    try:
      lock.acquire(timeout=min(0.5, LOCK_SECONDS))
    except filelock.Timeout as error:
      now = partial.stat().st_size if partial.is_file() else 0
      if now != size:
        size, since = now, time.monotonic()
      elif time.monotonic() - since > min(LOCK_SECONDS, patience.left()):
        patience.spend(time.monotonic() - since)
        raise UnavailableError(
          'another process is downloading it and gets nowhere'
        ) from error
  try:
    yield
  finally:
    lock.release()


@contextlib.contextmanager
def disk_errors(target: pathlib.Path) -> Iterator[None]:
  """Turns what is wrong with the disk into an error for the user."""
  try:
    yield
  except OSError as error:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
      problem = f'No space left for {target}. Free some'
      after = ' and run again; it goes on where it stopped.'
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
      problem = f'{target.parent} can not be written to. Make it writable'
      after = '.'
    else:
      problem = f'{target} can not be written: {error}. Mend that'
      after = '.'
    raise errors.CheckpointNotFoundError(
      f'{problem}, or name another directory for downloads in the environment '
      f'variable VIT_JAX_CACHE{after}'
    ) from error
