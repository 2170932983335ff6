"""Reads `.safetensors` files by their header, and writes them.

The format: eight bytes with the length of a JSON header, the header, and one
array after the other without gaps. The library of that name reads through a
memory map, with which a file that shrinks kills the process and every page
counts beside its copy, so files are read plainly here.

The format has no checksums. Files written here carry them in the metadata,
where they disturb nobody, and have them compared when they are read.
"""

import contextlib
import functools
import json
import math
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from vit_jax import errors
from vit_jax.checkpoints.arrays import (
  DamagedArrayError,
  StoredArray,
  StoredFile,
  aligned_bytes,
)

_DTYPES: dict[str, np.dtype] = {
  'F64': np.dtype('<f8'),
  'F32': np.dtype('<f4'),
  'F16': np.dtype('<f2'),
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'I64': np.dtype('<i8'),
  'I32': np.dtype('<i4'),
  'I16': np.dtype('<i2'),
  'I8': np.dtype('i1'),
  'U64': np.dtype('<u8'),
  'U32': np.dtype('<u4'),
  'U16': np.dtype('<u2'),
  'U8': np.dtype('u1'),
  'BOOL': np.dtype('?'),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_METADATA = '__metadata__'
# In the metadata of files written here, beside what else is ours.
_CHECKSUMS = 'vit_jax.crc32'
_OURS = 'num_heads'
# The largest model has 1,000 arrays and, with its checksums, a header of
# 150 kB. Parsed, it takes up to 30 times its size, and more for each array.
_MAX_HEADER = 1 << 20
_MAX_ARRAYS = 2_000
_CHANGED = (
  'Bad CRC-32: changed by damage, or by a program that kept the metadata; if '
  "so, save with metadata={'format': 'pt'}, without "
  f'{_CHECKSUMS}'
)
_DAMAGE = (ValueError, OSError, EOFError, MemoryError)


@contextlib.contextmanager
def open_safetensors(path: str | os.PathLike) -> Iterator[StoredFile]:
  """Opens a `.safetensors` file; its header is read and checked, no values are.

  Raises:
    CheckpointError: it is no such file, has a type of numbers that can't be
      read, or claims sizes that it can't have; the text lists all that is
      wrong.
  """
  path = os.fspath(path)
  with contextlib.ExitStack() as stack:
    try:
      file = stack.enter_context(open(path, 'rb'))
      file_size = os.fstat(file.fileno()).st_size
      refuse_pickle(file.read(4096), path)
      header, start = _read_header(file, file_size)
    except errors.CheckpointError:
      raise
    except (*_DAMAGE, RecursionError) as error:
      raise errors.CheckpointError(
        f'{path}: not a readable .safetensors file ({error}). If it was '
        'downloaded, download it again.'
      ) from error
    metadata, checksums = _split_metadata(header.pop(_METADATA, {}), path)
    entries = _checked_entries(header, file_size - start, checksums, path)
    read = _reader(file, start, entries, metadata, checksums)
    arrays = {
      key: StoredArray(key, shape, dtype, functools.partial(read, key))
      for key, (dtype, shape, _) in entries.items()
    }
    yield StoredFile(path, arrays, metadata)


def refuse_pickle(head: bytes, source: str) -> None:
  """Raises CheckpointError if a file begins like a pickle of PyTorch's.

  Args:
    head: its first bytes, some thousand.
    source: the file, for the text of the error.
  """
  # A .safetensors file may begin with the same two bytes, but not go on so.
  is_bare = head[:1] == b'\x80' and head[1:2] <= b'\x05' and head[8:9] != b'{'
  is_zip = head[:4] == b'PK\x03\x04' and b'/data.pkl' in head
  if is_bare or is_zip:
    raise errors.CheckpointError(
      f'{source}: a pickle, as PyTorch writes .bin, .pt and .pth files. Those '
      'are never loaded, as code could be in them. Convert it to .safetensors '
      'where PyTorch is installed: safetensors.torch.save_file(torch.load('
      'path, weights_only=True), "model.safetensors").'
    )


def _read_header(file: BinaryIO, file_size: int) -> tuple[dict[str, Any], int]:
  """Returns the header and where the arrays begin."""
  file.seek(0)
  size = int.from_bytes(file.read(8), 'little')
  if file_size < 8 or size > file_size - 8:
    raise ValueError(
      f'its {file_size:,} bytes begin with the claim of a header of {size:,}'
    )
  if size > _MAX_HEADER:
    raise ValueError(
      f'it has a header of {size:,} bytes, expected at most {_MAX_HEADER:,}'
    )
  header = json.loads(
    file.read(size).decode('utf-8'), object_pairs_hook=_without_duplicates
  )
  if not isinstance(header, dict):
    raise ValueError('its header is no JSON object')
  if len(header) > _MAX_ARRAYS:
    raise ValueError(
      f'it claims to hold {len(header):,} arrays, expected at most '
      f'{_MAX_ARRAYS:,}'
    )
  return header, 8 + size


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    raise ValueError('its header has a key twice')
  return found


def _split_metadata(
  metadata: Any, path: str
) -> tuple[dict[str, str], dict[str, int] | None]:
  """Returns what a file says about itself, and its checksums if it has any."""
  checksums = None
  try:
    if not isinstance(metadata, dict) or not all(
      isinstance(value, str) for value in metadata.values()
    ):
      raise ValueError('expected strings')
    if _CHECKSUMS in metadata:
      checksums = json.loads(metadata[_CHECKSUMS])
      if not isinstance(checksums, dict):
        raise ValueError('its checksums are damaged')
  except (ValueError, RecursionError) as error:
    raise errors.CheckpointError(
      f'{path}: its metadata are damaged ({error}). Download or copy the file '
      'again.'
    ) from error
  words = {key: text for key, text in metadata.items() if key != _CHECKSUMS}
  return words, checksums


_Entry = tuple[np.dtype, tuple[int, ...], int]  # And where its bytes begin.


def _checked_entries(
  header: dict[str, Any],
  data_size: int,
  checksums: dict[str, int] | None,
  path: str,
) -> dict[str, _Entry]:
  """Returns (dtype, shape, begin) by key; all that it says is possible."""
  entries, problems, ranges = {}, [], []
  for key, entry in header.items():
    try:
      dtype, shape, begin, end = _parse(entry, data_size)
      if checksums is not None and key not in checksums:
        raise ValueError(
          f'has no checksum in {_CHECKSUMS}, which was damaged, or kept by a '
          "program that changed the file; if so, save with metadata={'format': "
          "'pt'}"
        )
      entries[key] = dtype, shape, begin
      ranges.append((begin, end, key))
    except ValueError as error:
      problems.append(f'  {key}: {error}')
  if not problems:
    position = 0
    for begin, end, key in sorted(ranges):
      if begin != position:
        problems.append(
          f'  {key}: begins at byte {begin:,}, expected {position:,}'
        )
      position = end
    if position != data_size and not problems:
      problems.append(
        f'  {data_size - position:,} of {data_size:,} bytes belong to no array'
      )
  missing = {*(checksums or {})} - {*header}
  problems += [
    f'  {key}: is missing, and has a checksum in {_CHECKSUMS}'
    for key in sorted(missing)
  ]
  if problems:
    raise errors.CheckpointError(
      f'{path}: its header claims what can not be, or not be loaded. Download '
      'or copy the file again; if its type of numbers is the problem, convert '
      'it to float32 or bfloat16:\n' + '\n'.join(problems[:50])
    )
  return entries


def _parse(
  entry: Any, data_size: int
) -> tuple[np.dtype, tuple[int, ...], int, int]:
  """Returns dtype, shape, begin and end; raises ValueError."""
  if not isinstance(entry, dict) or entry.keys() != {
    'dtype', 'shape', 'data_offsets'
  }:  # fmt: skip
    raise ValueError('expected dtype, shape and data_offsets')
  code, shape, offsets = entry['dtype'], entry['shape'], entry['data_offsets']
  if not isinstance(code, str) or code not in _DTYPES:
    raise ValueError(
      f'holds {str(code)[:20]}, expected one of {", ".join(_DTYPES)}'
    )
  if not _are_sizes(shape, 32) or not _are_sizes(offsets, 2):
    raise ValueError('its shape or place is damaged')
  begin, end = offsets
  claimed = math.prod(shape) * _DTYPES[code].itemsize
  if not begin <= end <= data_size or claimed != end - begin:
    raise ValueError(
      f'claims {shape} {code}, {claimed:,} bytes, at {begin:,} to {end:,} of '
      f'{data_size:,}'
    )
  # Where there are zero elements, dims may still be too large for numpy.
  np.broadcast_to(np.zeros((), _DTYPES[code]), shape)
  return _DTYPES[code], tuple(shape), begin, end


def _are_sizes(values: Any, limit: int) -> bool:
  return (
    isinstance(values, list)
    and len(values) <= limit
    and (limit != 2 or len(values) == 2)
    and all(type(value) is int and 0 <= value < 2**62 for value in values)
  )


def _reader(
  file: BinaryIO,
  start: int,
  entries: dict[str, _Entry],
  metadata: dict[str, str],
  checksums: dict[str, int] | None,
) -> Callable[[str], np.ndarray]:
  """Returns key -> values, which several threads may call."""
  lock = threading.Lock()

  def read(key: str) -> np.ndarray:
    dtype, shape, begin = entries[key]
    try:
      buffer = aligned_bytes(math.prod(shape) * dtype.itemsize)
      with lock:
        file.seek(start + begin)
        num_read = file.readinto(buffer.data)  # pyright: ignore[reportAttributeAccessIssue]
      if num_read != buffer.size:
        raise EOFError(f'{buffer.size - num_read:,} bytes are missing')
      values = buffer.view(dtype).reshape(shape)
      if checksums and _checksum(key, values, metadata) != checksums[key]:
        raise ValueError(_CHANGED)
    except _DAMAGE as error:
      raise DamagedArrayError(str(error) or type(error).__name__) from error
    return values

  return read


def _checksum(key: str, array: np.ndarray, metadata: Mapping[str, str]) -> int:
  """Covers what the header says of an array, too, and the heads.

  What other programs add to the metadata is theirs.
  """
  said = metadata.get(_OURS)
  words = json.dumps([key, _CODES[array.dtype], array.shape, said])
  values = array.reshape(-1).view(np.uint8).data
  return zlib.crc32(values, zlib.crc32(words.encode()))


def write_safetensors(
  arrays: Mapping[str, Any], file: BinaryIO, metadata: Mapping[str, str]
) -> None:
  """Writes arrays to an open file; the same arrays give the same bytes.

  Args:
    arrays: by key.
    file: open for writing.
    metadata: what the file says about itself, such as {'num_heads': '12'}.
      `format` is added to it, without which transformers doesn't load it.

  Raises:
    CheckpointError: arrays of types that the format doesn't know.
  """
  metadata = {'format': 'pt', **metadata}
  # Wide types first, as the library has it: no array is misaligned.
  order = sorted(
    arrays, key=lambda key: (-np.dtype(arrays[key].dtype).itemsize, key)
  )
  _check_dtypes(arrays)
  checksums, header, position = {}, {}, 0
  for key in order:
    array = _little_endian(arrays[key])
    checksums[key] = _checksum(key, array, metadata)
    header[key] = {
      'dtype': _CODES[array.dtype],
      'shape': array.shape,
      'data_offsets': (position, position + array.nbytes),
    }
    position += array.nbytes
  metadata[_CHECKSUMS] = json.dumps(checksums, separators=(',', ':'))
  text = json.dumps({_METADATA: metadata, **header}, separators=(',', ':'))
  data = text.encode()
  data += b' ' * (-len(data) % 8)
  file.write(len(data).to_bytes(8, 'little') + data)
  for key in order:
    values = _little_endian(arrays[key]).reshape(-1)
    file.write(values.view(np.uint8).data)


def _check_dtypes(arrays: Mapping[str, Any]) -> None:
  unknown = [
    f'  {key}: {array.dtype}'
    for key, array in arrays.items()
    if np.dtype(array.dtype).newbyteorder('<') not in _CODES
  ]
  if unknown:
    raise errors.CheckpointError(
      'A .safetensors file can not hold arrays of these types:\n'
      + '\n'.join(unknown)
    )


def _little_endian(array: Any) -> np.ndarray:
  array = np.asarray(array, order='C')
  return array.astype(array.dtype.newbyteorder('<'), copy=False)
