"""Reads `.npz` files by their headers, and writes them.

An `.npz` file is a zip archive of `.npy` files. Everything that its headers
claim is compared with the size of the file before memory is taken, and nothing
is ever unpickled.
"""

import contextlib
import functools
import io
import math
import os
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
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

# What a flipped or missing byte surfaces as, depending on where it is.
_DAMAGE = (
  ValueError,
  OSError,
  EOFError,
  RuntimeError,
  MemoryError,
  KeyError,
  struct.error,
  zipfile.BadZipFile,
  zlib.error,
)
# Weights hardly compress; the zeros of a fresh optimiser do, but they are few.
_MAX_RATIO = 8
_ALWAYS_ALLOWED = 1 << 24  # Bytes; a ratio says little of a tiny file.
_MAX_READ = 1 << 22  # Bytes at once for zipfile, whose directory comes in one.
_CHUNK_SIZE = 1 << 20  # Of what is unpacked.
_MAX_ARRAYS = 20_000  # With its optimiser's, the largest model has 3,000.
# Of an array, whose header has 128 bytes. numpy has Python parse it, which
# survives what is nested no deeper than this.
_MAX_HEADER_SIZE = 1 << 12
_MAX_PROBLEMS = 50  # That are told.
_HEADER_READERS = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
  (3, 0): np.lib.format.read_array_header_2_0,  # UTF-8, which nobody needs.
}
# Signature, flags, lengths of the name and of what follows it.
_LOCAL_HEADER = struct.Struct('<4s2xH18x2H')
_IS_UTF8 = 0x800


@contextlib.contextmanager
def open_npz(path: str | os.PathLike) -> Iterator[StoredFile]:
  """Opens an `.npz` file; its headers are read and checked, its values are not.

  Raises:
    CheckpointError: it is not a readable archive of plain arrays, or claims
      sizes that it can't have; the text lists all that is wrong.
  """
  path = os.fspath(path)
  with contextlib.ExitStack() as stack:
    try:
      # One to read arrays from directly, and one of zipfile's own.
      file = stack.enter_context(open(path, 'rb'))
      bounded = stack.enter_context(_BoundedFile(path))
      archive = stack.enter_context(zipfile.ZipFile(bounded))
      _check_sizes(archive, os.path.getsize(path), path)
    except errors.CheckpointError:
      raise
    except _DAMAGE as error:
      raise errors.CheckpointError(
        f'{path}: not a readable .npz file ({error}). If it was downloaded, '
        'download it again.'
      ) from error
    yield StoredFile(path, _stored_arrays(archive, file, path))


class _BoundedFile(io.FileIO):
  """A file that refuses to read much at once.

  zipfile takes memory for as large a directory as a file says it has, and 15
  times as much for what it makes of it.
  """

  def read(self, size: int | None = -1, /) -> bytes:
    if size is None or size < 0:  # The end, with a comment of up to 64 kB.
      size = 1 << 17
    if size > _MAX_READ:
      raise ValueError(
        f'its directory has {size:,} bytes, expected at most {_MAX_READ:,}'
      )
    return super().read(size)


def _check_sizes(archive: zipfile.ZipFile, file_size: int, path: str) -> None:
  infos = archive.infolist()
  if len(infos) > _MAX_ARRAYS:
    raise errors.CheckpointError(
      f'{path}: claims to hold {len(infos):,} arrays, expected at most '
      f'{_MAX_ARRAYS:,}; not read, as no model has as many.'
    )
  compressed = sum(info.compress_size for info in infos)
  claimed = sum(info.file_size for info in infos)
  if compressed > file_size or claimed > max(
    _ALWAYS_ALLOWED, _MAX_RATIO * file_size
  ):
    raise errors.CheckpointError(
      f'{path}: its {file_size:,} bytes claim to hold {claimed:,}. Expected at '
      f'most {_MAX_RATIO} times as many; not read, as it may be a zip bomb.'
    )


def _stored_arrays(
  archive: zipfile.ZipFile, file: io.BufferedReader, path: str
) -> dict[str, StoredArray]:
  members, problems, lock = {}, [], threading.Lock()
  for info in archive.infolist():
    key = info.filename.removesuffix('.npy')
    try:
      if key in members:
        raise ValueError('is in the file twice')
      members[key] = _Member(archive, file, lock, info)
    except _DAMAGE as error:
      problems.append(f'  {key}: {error or type(error).__name__}')
  if problems:
    raise errors.CheckpointError(
      f'{path}: {len(problems)} arrays are damaged or not plain numbers; '
      'download or copy the file again:\n' + '\n'.join(problems[:_MAX_PROBLEMS])
    )
  return {
    key: StoredArray(key, member.shape, member.dtype, member.read)
    for key, member in members.items()
  }


class _Member:
  """One array of an archive; what its header says is true of its size."""

  def __init__(
    self,
    archive: zipfile.ZipFile,
    file: io.BufferedReader,
    lock: threading.Lock,
    info: zipfile.ZipInfo,
  ):
    self._archive, self._file, self._info = archive, file, info
    self._lock = lock
    if not info.filename.endswith('.npy'):
      raise ValueError('not an array')
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
      raise ValueError(
        f'compressed by method {info.compress_type}, expected deflate or none'
      )
    self._is_stored = info.compress_type == zipfile.ZIP_STORED
    header = _cut_header(self._first_bytes())
    self._header_size = len(header)
    shape, self._is_fortran, dtype = _parse_header(header)
    # numpy has no name for bfloat16 and stores it as two opaque bytes.
    is_bfloat16 = dtype == np.dtype('V2')
    if dtype.hasobject:
      raise ValueError('Object arrays are not loaded, as code could be in them')
    if not is_bfloat16 and dtype.kind not in 'biuf':
      raise ValueError(f'holds {dtype}, expected numbers')
    self._dtype_on_disk = np.dtype(ml_dtypes.bfloat16) if is_bfloat16 else dtype
    self.dtype = self._dtype_on_disk.newbyteorder('=')
    self.shape = shape
    claimed = math.prod(shape) * dtype.itemsize
    found = info.file_size - self._header_size
    if any(dim < 0 for dim in shape) or claimed != found:
      raise ValueError(
        f'its header claims {shape} {dtype}, {claimed:,} bytes, and {found:,} '
        'are there'
      )

  def read(self) -> np.ndarray:
    try:
      buffer = aligned_bytes(self._info.file_size - self._header_size)
      if self._is_stored:
        self._read_stored(buffer)
      else:
        self._read_compressed(buffer)
    except _DAMAGE as error:
      raise DamagedArrayError(str(error) or type(error).__name__) from error
    values = buffer.view(self._dtype_on_disk).astype(self.dtype, copy=False)
    if self._is_fortran:
      return values.reshape(self.shape[::-1]).T
    return values.reshape(self.shape)

  def _first_bytes(self) -> bytes:
    """Returns as many as a header has, whose checksum isn't checked yet."""
    size = min(self._info.file_size, _MAX_HEADER_SIZE)
    if not self._is_stored:
      with self._archive.open(self._info) as content:
        return content.read(size)
    with self._lock:
      self._seek()
      return self._file.read(size)

  def _seek(self) -> None:
    """Goes to the first byte after the zip file's own header."""
    self._file.seek(self._info.header_offset)
    header = self._file.read(_LOCAL_HEADER.size)
    signature, flags, name_size, extra_size = _LOCAL_HEADER.unpack(header)
    name = self._file.read(name_size)
    encoding = 'utf-8' if flags & _IS_UTF8 else 'cp437'
    if (
      signature != b'PK\x03\x04'
      or name.decode(encoding) != self._info.orig_filename
    ):
      raise ValueError('no array of that name begins where the directory says')
    self._file.seek(extra_size, io.SEEK_CUR)

  def _read_stored(self, buffer: np.ndarray) -> None:
    """Reads past zipfile, which would copy every byte once more."""
    with self._lock:
      self._seek()
      array_header = self._file.read(self._header_size)
      num_read = self._file.readinto(buffer.data)
    if num_read != buffer.size:
      raise EOFError(f'{buffer.size - num_read:,} bytes are missing')
    if zlib.crc32(buffer.data, zlib.crc32(array_header)) != self._info.CRC:
      raise ValueError('Bad CRC-32: bytes have changed')

  def _read_compressed(self, buffer: np.ndarray) -> None:
    # zipfile lets several threads read, but not one open what others read.
    with self._lock, self._archive.open(self._info) as content:
      content.read(self._header_size)
      view, done = buffer.data, 0
      # zipfile holds once more what is read at once.
      while num_read := content.readinto(view[done : done + _CHUNK_SIZE]):  # pyright: ignore[reportAttributeAccessIssue]
        done += num_read
      content.read(1)  # At the end, zipfile compares the CRC-32.
    if done != buffer.size:
      raise EOFError(f'{buffer.size - done:,} bytes are missing')


def _cut_header(content: bytes) -> bytes:
  """Returns what of the first bytes of an array comes before its values."""
  version = np.lib.format.read_magic(io.BytesIO(content))
  if version not in _HEADER_READERS:
    raise ValueError(f'is of .npy version {version}, which is unknown')
  length_size = 2 if version == (1, 0) else 4
  start = np.lib.format.MAGIC_LEN + length_size
  length = int.from_bytes(content[start - length_size : start], 'little')
  if start + length > len(content):
    raise ValueError(
      f'begins with the claim of a header of {length:,} bytes, expected at '
      f'most {min(len(content), _MAX_HEADER_SIZE):,}'
    )
  return content[: start + length]


@functools.lru_cache(256)  # Few of a model's arrays differ in shape.
def _parse_header(header: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Returns shape, whether it is in Fortran's order, and dtype."""
  content = io.BytesIO(header)
  read: Any = _HEADER_READERS[np.lib.format.read_magic(content)]
  try:
    with warnings.catch_warnings(action='ignore'):  # Of headers by Python 2.
      return read(content, max_header_size=_MAX_HEADER_SIZE)
  # Python's parser raises a lot, and numpy's texts advise to unpickle.
  except Exception as error:
    raise ValueError('its header is damaged') from error


def write_npz(arrays: Mapping[str, np.ndarray], file: BinaryIO) -> None:
  """Writes arrays to an open file; the same arrays give the same bytes."""
  with zipfile.ZipFile(file, 'w', zipfile.ZIP_STORED) as archive:
    for key in sorted(arrays):
      # Without a date, which `ZipInfo` has as 1980.
      info = zipfile.ZipInfo(f'{key}.npy')
      with archive.open(info, 'w', force_zip64=True) as member:
        value = np.asarray(arrays[key], order='C')
        np.lib.format.write_array(member, value, allow_pickle=False)
