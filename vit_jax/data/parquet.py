"""The records of data sets that tfds stored as Parquet, held in memory.

tfds's own reader hands out whole files where a part of a split was asked for.
"""

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vit_jax import errors


class ParquetRecords(Sequence[bytes]):
  """The records of one split, in the order of its shards and within each.

  A file of this format is compressed in groups of records, so that one record
  costs as much as a hundred: all are read at once.
  """

  def __init__(self, file_instructions: Iterable[Any]):
    """Reads the records.

    Args:
      file_instructions: as for `TfRecords`.

    Raises:
      DataError: a file has another number of records than it should, or all
        together take more than half of the machine's memory.
      OSError, ValueError: of `pyarrow`, where a file is missing or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    self._file_instructions = list(file_instructions)
    columns, num_bytes = [], 0
    for part in self._file_instructions:
      with pq.ParquetFile(part.filename) as file:
        groups, before, found = _groups(file.metadata, part)
        if file.metadata.num_rows != part.examples_in_shard:
          raise errors.DataError(
            f'{part.filename}: has {file.metadata.num_rows:,} records, '
            f'expected {part.examples_in_shard:,} by dataset_info.json. Copy '
            'or prepare the data set again.'
          )
        num_bytes += found
        _check_memory(num_bytes, part.filename)
        column = file.read_row_groups(groups).column(0)
        columns += column.slice(part.skip - before, part.take).chunks
    self._column = pa.chunked_array(columns, pa.binary())

  def __len__(self) -> int:
    return len(self._column)

  def __getitem__(self, index):
    """Returns the bytes of a record, which is a serialised tf.Example."""
    if not 0 <= index < len(self):
      raise IndexError(index)
    return self._column[int(index)].as_py()

  def __getitems__(self, indices: Iterable[int]) -> list[bytes]:
    """Returns the records of several indices, as tfds's readers do."""
    return self._column.take(np.fromiter(indices, np.int64)).to_pylist()

  def __reduce__(self):
    # Read anew in the process that it is for: faster than by a pipe.
    return ParquetRecords, (self._file_instructions,)


def _groups(metadata: Any, part: Any) -> tuple[list[int], int, int]:
  """Returns which groups have what is wanted, what is before, and the bytes."""
  groups, before, num_bytes, start = [], 0, 0, 0
  for number in range(metadata.num_row_groups):
    group = metadata.row_group(number)
    stop = start + group.num_rows
    if stop <= part.skip:
      before = stop
    elif start < part.skip + part.take:
      groups.append(number)
      num_bytes += group.total_byte_size
    start = stop
  return groups, before, num_bytes


def _check_memory(num_bytes: int, path: str) -> None:
  available = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2
  if num_bytes > available:
    raise errors.DataError(
      f'{os.path.dirname(path)}: is stored as parquet, which is held in memory '
      f'and takes more than half of it ({available / 2**30:.1f} GiB). Prepare '
      "the data set by file_format='array_record' or 'tfrecord', or choose a "
      'part of the split.'
    )
