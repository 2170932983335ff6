"""Where the records of TFRecord files begin; found once, then kept on disk."""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import struct
import tempfile
from array import array
from collections.abc import Iterable, Mapping
from concurrent import futures

import google_crc32c
import numpy as np

from vit_jax import environment, errors

# The length of a record's bytes, and the masked CRC-32C of that number.
HEADER = struct.Struct('<QI')
_FRAME_SIZE = HEADER.size + 4  # Without the record's bytes.
# More than this, protobuf can't parse.
_MAX_LENGTH = 2**31 - 1
_MASK = 0xA282EAD8
_MAX_PROBLEMS = 5
# They wait for the disk, not for the processor.
_NUM_THREADS = 16
# Begins the files that keep what was found; another layout takes another.
_MAGIC = b'vit_jax TFRecord index 1\n'
_SIZES = struct.Struct('<IQ')  # The CRC-32C of what follows; the table's size.


@dataclasses.dataclass(frozen=True, eq=False)
class Shard:
  """A TFRecord file and where in it records are.

  Attributes:
    path: of the file.
    version: its size in bytes, and when it was last changed (nanoseconds).
    offsets: int64 [num_records + 1], where each record begins, and the end.
  """

  path: str
  version: tuple[int, int]
  offsets: np.ndarray


def masked_crc(data: bytes) -> int:
  """Returns what TFRecord files have for the CRC-32C of `data`.

  Rotated by 15 bits and shifted by a constant, so that the checksum of bytes
  which have checksums among them is as good as any.
  """
  crc = google_crc32c.value(data)
  return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def checked_length(header: bytes) -> int | None:
  """Returns the length that a header states, None if its CRC contradicts."""
  length, crc = HEADER.unpack(header)
  return length if crc == masked_crc(header[:8]) else None


def find_records(num_records: Mapping[str, int]) -> dict[str, Shard]:
  """Returns where the records of TFRecord files are, without reading them.

  What was found is kept in the cache's directory `tfrecord/`, in one file for
  each directory of shards, and taken from there as long as the size and time of
  a shard are what they were.

  Args:
    num_records: how many each file should have, by path.

  Raises:
    DataError: with each file that is missing, is not made of records from
      beginning to end, or has another number of them.
  """
  known: dict[str, Shard] = {}
  for directory in {os.path.dirname(path) for path in num_records}:
    known.update(_load(directory))
  with futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
    found = list(pool.map(lambda path: _find(path, known), num_records))
  shards = {shard.path: shard for shard in found if isinstance(shard, Shard)}
  new = [path for path in shards if shards[path] is not known.get(path)]
  for directory in {os.path.dirname(path) for path in new}:
    _save(directory, {**known, **shards})
  problems = [problem for problem in found if isinstance(problem, str)]
  for path, shard in shards.items():
    num_found, expected = len(shard.offsets) - 1, num_records[path]
    if num_found != expected:
      problems.append(
        f'{path}: has {num_found:,} records, expected {expected:,} by '
        'dataset_info.json'
      )
  if problems:
    raise errors.DataError(_text(problems, len(num_records)))
  return shards


def _text(problems: list[str], num_shards: int) -> str:
  listing = '\n'.join(f'  {problem}' for problem in problems[:_MAX_PROBLEMS])
  if len(problems) > _MAX_PROBLEMS:
    listing += f'\n  and {len(problems) - _MAX_PROBLEMS:,} more'
  return (
    f'{len(problems):,} of {num_shards:,} TFRecord files are missing or '
    f'damaged:\n{listing}\nCopy or prepare the data set again.'
  )


def _find(path: str, known: Mapping[str, Shard]) -> Shard | str:
  """Returns the shard, or what is wrong with it."""
  try:
    if path in known and known[path].version == _version(os.stat(path)):
      return known[path]
    return _walk(path)
  except OSError as error:
    return f"{path}: can't be read ({error.strerror or error})"
  except ValueError as error:
    return f'{path}: {error}'


def _walk(path: str) -> Shard:
  """Goes from header to header; ValueError where none is found."""
  with open(path, 'rb', buffering=0) as file:
    descriptor = file.fileno()
    if hasattr(os, 'posix_fadvise'):  # Else the system reads all between them.
      os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
    version = _version(os.fstat(descriptor))
    size, offset, offsets = version[0], 0, array('q')
    while offset < size:
      header = os.pread(descriptor, HEADER.size, offset)
      length = checked_length(header) if len(header) == HEADER.size else None
      rest = size - offset - _FRAME_SIZE
      if length is None or length > min(rest, _MAX_LENGTH):
        where = f'record {len(offsets):,}, at byte {offset:,} of {size:,},'
        raise ValueError(f'{where} {_why(header, length, rest)}')
      offsets.append(offset)
      offset += _FRAME_SIZE + length
  offsets.append(offset)
  return Shard(path, version, np.frombuffer(offsets, np.int64))


def _why(header: bytes, length: int | None, rest: int) -> str:
  """Returns what is wrong with a header before which `rest` bytes can come."""
  if len(header) < HEADER.size:
    return 'is cut short, or is none and comes after the last'
  if length is None:
    return (
      'has a length that its CRC-32C contradicts: bytes have changed, or come '
      'after the last record'
    )
  if length > rest:
    return f'is cut short: its last {length - rest:,} bytes are missing'
  return f'has {length:,} bytes, expected at most {_MAX_LENGTH:,}'


def _version(status: os.stat_result) -> tuple[int, int]:
  return status.st_size, status.st_mtime_ns


def _kept_in(directory: str) -> pathlib.Path:
  """Returns the file that keeps what was found in a directory."""
  key = hashlib.sha256(os.fsencode(os.path.realpath(directory))).hexdigest()
  return environment.cache_dir() / 'tfrecord' / f'{key[:32]}.index'


def _load(directory: str) -> dict[str, Shard]:
  """Returns the shards of a directory that were walked before, by path.

  Whatever is wrong with what was kept, it is as if nothing had been.
  """
  try:
    content = _kept_in(directory).read_bytes()
    return {shard.path: shard for shard in _parse(content, directory)}
  except (OSError, ValueError, TypeError, LookupError, struct.error):
    return {}


def _parse(content: bytes, directory: str) -> Iterable[Shard]:
  """Yields the shards that `_save` wrote; the table has name, version, count.

  Raises:
    ValueError, TypeError, LookupError, struct.error: it is something else.
  """
  if not content.startswith(_MAGIC):
    raise ValueError('no index')
  crc, table_size = _SIZES.unpack_from(content, len(_MAGIC))
  start = len(_MAGIC) + _SIZES.size
  if crc != google_crc32c.value(content[start:]):
    raise ValueError('damaged')
  table = json.loads(content[start : start + table_size])
  offsets = np.frombuffer(content, '<i8', offset=start + table_size)
  place = 0
  for name, size, time, num_records in table:
    own = offsets[place : place + num_records + 1]
    place += num_records + 1
    # So that no more is ever read than there is.
    if own[0] != 0 or own[-1] != size or np.any(np.diff(own) < _FRAME_SIZE):
      raise ValueError('damaged')
    yield Shard(os.path.join(directory, name), (size, time), own)


def _save(directory: str, shards: Mapping[str, Shard]) -> None:
  """Keeps what was found in a directory, if that can be written."""
  ours = [
    shard
    for path, shard in shards.items()
    if os.path.dirname(path) == directory and os.path.exists(path)
  ]
  table = json.dumps(
    [[os.path.basename(s.path), *s.version, len(s.offsets) - 1] for s in ours]
  ).encode()
  offsets = b''.join(s.offsets.astype('<i8').tobytes() for s in ours)
  # Aligned, as numpy reads that faster.
  table += b' ' * (-(len(_MAGIC) + _SIZES.size + len(table)) % 8)
  content = table + offsets
  head = _MAGIC + _SIZES.pack(google_crc32c.value(content), len(table))
  path, partial = _kept_in(directory), None
  with contextlib.suppress(OSError):
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      # A name of its own, as several processes may begin at once.
      handle, partial = tempfile.mkstemp('.partial', path.stem, path.parent)
      with open(handle, 'wb') as file:
        file.write(head + content)
      os.replace(partial, path)
      partial = None
    finally:
      if partial is not None:
        os.unlink(partial)
