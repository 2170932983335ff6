"""Random access to the records of TFRecord files, each checked as it is read.

A record is framed by its length (8 bytes, little-endian), the masked CRC-32C of
those (4 bytes), its bytes, and the masked CRC-32C of these (4 bytes).
"""

import bisect
import errno
import functools
import itertools
import os
import struct
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from vit_jax import errors
from vit_jax.data import tfrecord_index

_FOOTER = struct.Struct('<I')
# Beyond these, the least recently used is closed. Some systems let a process
# open no more than 256, and opening one anew takes a few microseconds.
_MAX_OPEN = 128


class TfRecords(Sequence[bytes]):
  """The records of one split, in the order of its shards and within each.

  May be read by any number of threads, and pickled: files are opened where and
  when they are read, and few are open at a time.
  """

  def __init__(self, file_instructions: Iterable[Any]):
    """Finds the records.

    Args:
      file_instructions: tfds's, of a split or a part of one: which `filename`s
        (local paths), how many records to `skip` and how many to `take` in
        each, and how many `examples_in_shard` there should be in all.

    Raises:
      DataError: a shard is missing or damaged as far as its lengths tell, or
        has another number of records than it should.
    """
    parts = [part for part in file_instructions if part.take]
    self._shards = tfrecord_index.find_records(
      {os.fspath(part.filename): part.examples_in_shard for part in parts}
    )
    self._paths = [os.fspath(part.filename) for part in parts]
    self._skips = [part.skip for part in parts]
    stops = itertools.accumulate((part.take for part in parts), initial=0)
    self._starts = list(stops)

  def __len__(self) -> int:
    return self._starts[-1]

  def __getitem__(self, index) -> Any:
    """Returns the bytes of a record, which is a serialised tf.Example.

    Raises:
      IndexError: there is no such record.
      DataError: its bytes have changed or can't be read.
    """
    if not 0 <= index < len(self):
      raise IndexError(index)
    part = bisect.bisect_right(self._starts, index) - 1
    number = self._skips[part] + index - self._starts[part]
    return _read(self._shards[self._paths[part]], int(number))

  def __getitems__(self, indices: Iterable[int]) -> list[bytes]:
    """Returns the records of several indices, as tfds's readers do."""
    return [self[index] for index in indices]


def _read(shard: tfrecord_index.Shard, number: int) -> bytes:
  """Returns the bytes of a shard's record by number."""
  start, stop = int(shard.offsets[number]), int(shard.offsets[number + 1])
  try:
    # Held while it is read, as another thread may push it out of the cache.
    file = _open(shard.path, shard.version)
    # The file's position, which threads would share, isn't used.
    frame = os.pread(file.descriptor, stop - start, start)
  except OSError as error:
    problem = f"can't be read ({error.strerror or error})"
  else:
    data = frame[tfrecord_index.HEADER.size : -_FOOTER.size]
    problem = _problem(frame, data, stop - start)
    if not problem:
      return data
  raise errors.DataError(
    f'{shard.path}: record {number}, at byte {start:,}, {problem}. Copy or '
    'prepare the data set again.'
  )


def _problem(frame: bytes, data: bytes, size: int) -> str:
  """Returns what is wrong with a record that should fill `size`, or ''."""
  if len(frame) < size:
    return f'is cut short: {size - len(frame):,} of {size:,} bytes are missing'
  length = tfrecord_index.checked_length(frame[: tfrecord_index.HEADER.size])
  if length is None:
    return 'has a length that its CRC-32C contradicts: bytes have changed'
  if length != len(data):
    return (
      f'has {length:,} bytes, expected {len(data):,}: the file has changed '
      'since it was indexed'
    )
  (crc,) = _FOOTER.unpack(frame[-_FOOTER.size :])
  if crc != tfrecord_index.masked_crc(data):
    return 'has bytes that its CRC-32C contradicts: some have changed'
  return ''


class _File:
  """A file that is open until the last one who holds it lets go."""

  def __init__(self, path: str):
    self.descriptor = os.open(path, os.O_RDONLY)
    weakref.finalize(self, os.close, self.descriptor)


@functools.lru_cache(_MAX_OPEN)
def _open(path: str, version: tuple[int, int]) -> _File:
  """Opens a file; `version` keeps one from being read that was replaced."""
  del version
  try:
    return _File(path)
  except OSError as error:
    if error.errno not in (errno.EMFILE, errno.ENFILE):
      raise
  _open.cache_clear()  # Others have taken all; those that we have will do.
  return _File(path)
