"""Arrays that lie in a file: shape and dtype known, values read on demand."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from vit_jax import errors

_FLOATS = (np.floating, ml_dtypes.bfloat16)
_NUM_THREADS = 4


class DamagedArrayError(Exception):
  """The values of one array can't be had; `read_arrays` lists them all."""


@dataclasses.dataclass(frozen=True)
class StoredArray:
  """An array in a file, or a part of one.

  Attributes:
    key: what the file calls it; '' for one that is in no file.
    shape: its dims.
    dtype: of its elements.
    load: gives what the file has under `key`, while the file is open; raises
      DamagedArrayError.
    view: what is sliced, reshaped and transposed before it has that shape.
  """

  key: str
  shape: tuple[int, ...]
  dtype: np.dtype
  load: Callable[[], np.ndarray]
  view: Callable[[np.ndarray], np.ndarray] = lambda values: values

  @classmethod
  def of(cls, array: Any, key: str = '') -> StoredArray:
    """Returns one whose values are in memory already."""
    array = np.asarray(array)
    return cls(key, array.shape, array.dtype, lambda: array)

  def read(self) -> np.ndarray:
    """Returns the values; several at once are faster by `read_arrays`."""
    return self.view(self.load())

  def map(self, fn: Callable[[np.ndarray], np.ndarray]) -> StoredArray:
    """Returns this array as `fn` will give it once its values are read.

    Args:
      fn: slices, reshapes or transposes, so that trying it takes no memory. An
        array that it can't be applied to stays as it is: its shape will tell.
    """
    try:
      result = fn(np.broadcast_to(np.zeros((), self.dtype), self.shape))
    except (ValueError, IndexError):
      return self
    view = self.view
    return StoredArray(
      self.key,
      result.shape,
      result.dtype,
      self.load,
      lambda values: fn(view(values)),
    )

  @property
  def size(self) -> int:
    """Returns the number of elements."""
    return int(np.prod(self.shape, dtype=object))


@dataclasses.dataclass(frozen=True)
class StoredFile:
  """An open weight file.

  Attributes:
    path: where it is.
    arrays: by the keys that the file has.
    metadata: what else it says about itself, strings by name.
  """

  path: str
  arrays: dict[str, StoredArray]
  metadata: dict[str, str] = dataclasses.field(default_factory=dict)


def by_name(
  entries: Iterable[tuple[str, StoredArray]], source: str
) -> dict[str, StoredArray]:
  """Returns a dict of arrays that have been renamed.

  Args:
    entries: new names and arrays.
    source: the file, for the text of an error.

  Raises:
    CheckpointError: several arrays have one name, as where a file has both the
      old and the new spelling of it.
  """
  found, twice = {}, []
  for name, stored in entries:
    if name in found:
      twice.append(f'  {found[name].key} and {stored.key}')
    found[name] = stored
  if twice:
    raise errors.CheckpointError(
      f'{source}: expected one array for each parameter, found two; remove one '
      'of each:\n' + '\n'.join(twice)
    )
  return found


def _in_order(name: str, values: np.ndarray) -> np.ndarray:
  del name
  return np.asarray(values, order='C')  # Not a view of something larger.


def read_arrays(
  arrays: Mapping[str, StoredArray],
  source: str,
  convert: Callable[[str, np.ndarray], Any] = _in_order,
) -> dict[str, Any]:
  """Reads all values, what is a part of one array from one reading of it.

  Args:
    arrays: by the names of the result.
    source: the file, for the text of an error.
    convert: (name, values) -> what is kept. Few arrays are read before they
      are converted, so that the whole is never in memory twice. It is called
      from several threads, and may raise DamagedArrayError.

  Raises:
    CheckpointError: values that are damaged, no floating-point numbers, NaN or
      infinite; the text lists all of them by key.
  """
  parts: dict[Any, list[str]] = {}
  for name, stored in arrays.items():
    parts.setdefault(id(stored.load), []).append(name)
  problems, results = {}, {}

  def read(names: list[str]) -> None:
    first = arrays[names[0]]
    try:
      values = first.load()
      check_values(values)
      for name in names if not problems else ():
        results[name] = convert(name, arrays[name].view(values))
    except DamagedArrayError as error:
      problems[first.key or names[0]] = str(error)

  from concurrent import futures  # Takes a while, and sizes need none.

  # Checksums and sums, which take the most of the time, free the interpreter.
  with futures.ThreadPoolExecutor(_NUM_THREADS) as pool:
    list(pool.map(read, parts.values()))
  if problems:
    raise errors.CheckpointError(
      f'{source}: {len(problems)} arrays can not be used:\n'
      + '\n'.join(f'  {key}: {problems[key]}' for key in sorted(problems))
      + '\nDownload or copy the file again. If it is a run of yours, NaN comes '
      'from a training that diverged; take an earlier checkpoint.'
    )
  return {name: results[name] for name in arrays}


def is_float(dtype: np.dtype) -> bool:
  """Whether arrays of that dtype hold what weights are."""
  return issubclass(dtype.type, _FLOATS)


def check_values(values: np.ndarray) -> None:
  """Raises DamagedArrayError if these are no finite floating-point numbers."""
  if not is_float(values.dtype):
    raise DamagedArrayError(
      f'holds {values.dtype}, expected floating-point numbers'
    )
  # A sum is finite only if its terms are, and several times faster to have
  # than a test of each. It overflows where terms are large, though.
  with np.errstate(over='ignore', invalid='ignore'):
    is_wide = values.itemsize >= 8
    total = values.sum() if is_wide else values.sum(dtype=np.float32)
    if np.isfinite(total):
      return
    num_odd = values.size - np.count_nonzero(np.isfinite(values))
  if num_odd:
    raise DamagedArrayError(
      f'{num_odd:,} of {values.size:,} values are NaN or infinite'
    )


def cast(values: np.ndarray, dtype: Any) -> np.ndarray:
  """Returns values of another dtype, in C's order, without a needless copy.

  Raises:
    DamagedArrayError: some are too large for it.
  """
  dtype = np.dtype(dtype)
  with np.errstate(over='ignore'):
    result = values.astype(dtype, order='C', copy=False)
  if dtype.itemsize < values.dtype.itemsize:
    try:
      check_values(result)
    except DamagedArrayError as error:
      raise DamagedArrayError(f'as {dtype}, {error}') from error
  return result


def aligned_bytes(size: int, alignment: int = 64) -> np.ndarray:
  """Returns memory that JAX can use on a CPU without a copy, not set."""
  buffer = np.empty(size + alignment, np.uint8)
  start = -buffer.ctypes.data % alignment
  return buffer[start : start + size]
