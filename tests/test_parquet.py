"""Sets kept as Parquet: parts of splits, in memory and within it."""

import os
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tensorflow_datasets.core.utils import shard_utils

from vit_jax import errors
from vit_jax.data import parquet

_RECORDS = [bytes(range(i, 3 * i)) for i in range(17)]


@pytest.fixture
def files(tmp_path):
  """Two files, of 12 records in groups of 5, 5 and 2, and of 5."""
  paths = [tmp_path / '0', tmp_path / '1']
  for path, records in zip(paths, (_RECORDS[:12], _RECORDS[12:]), strict=True):
    table = pa.table({'data': pa.array(records, pa.binary())})
    pq.write_table(table, path, row_group_size=5)
  return paths


def _part(path, num_records, skip, take):
  return shard_utils.FileInstruction(str(path), skip, take, num_records)


@pytest.mark.parametrize('skip', [0, 1, 4, 5, 6, 10, 11, 12])
@pytest.mark.parametrize('take', [0, 1, 4, 5, 6, 12])
def test_records_are_those_asked_for(files, skip, take):
  take = min(take, 12 - skip)
  records = parquet.ParquetRecords(
    [_part(files[1], 5, 2, 3), _part(files[0], 12, skip, take)]
  )
  expected = _RECORDS[14:] + _RECORDS[skip : skip + take]
  assert list(records) == expected
  assert records.__getitems__([2, 0]) == [expected[2], expected[0]]
  for index in (-1, len(expected)):
    with pytest.raises(IndexError):
      records[index]


def test_a_copy_reads_the_files_anew(files):
  records = parquet.ParquetRecords([_part(files[0], 12, 3, 7)])
  pickled = pickle.dumps(records)
  assert len(pickled) < 500
  assert list(pickle.loads(pickled)) == _RECORDS[3:10]


def test_another_number_of_records_is_named(files):
  said = f'{files[0]}: has 12 records, expected 13 by dataset_info.json'
  with pytest.raises(errors.DataError, match=said):
    parquet.ParquetRecords([_part(files[0], 13, 0, 5)])


def test_more_than_half_of_the_memory_is_refused(files, monkeypatch):
  monkeypatch.setattr(
    os, 'sysconf', {'SC_PAGE_SIZE': 9, 'SC_PHYS_PAGES': 9}.get
  )
  with pytest.raises(errors.DataError, match='held in memory and takes more'):
    parquet.ParquetRecords([_part(files[0], 12, 0, 12)])
