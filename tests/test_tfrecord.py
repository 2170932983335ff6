"""TFRecord files: every record by index, and every kind of damage found."""

import collections
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
import tracemalloc
from concurrent import futures

import pytest
import tfrecords

from vit_jax import errors
from vit_jax.data import tfrecord, tfrecord_index

pytestmark = pytest.mark.usefixtures('record_cache')


def _offset(number):
  """Returns where a record begins in the first shard."""
  return sum(len(record) + 16 for record in tfrecords.RECORDS[:number])


def test_reference_has_the_published_check_value():
  assert tfrecords.crc32c(b'123456789') == 0xE3069283
  for data in (b'', b'emu', bytes(32), bytes(range(256))):
    assert tfrecord_index.masked_crc(data) == tfrecords.masked(
      tfrecords.crc32c(data)
    )


def test_records_come_in_the_order_of_shards(shards):
  records = tfrecords.open_shards(shards)
  assert len(records) == 17
  assert [records[index] for index in range(17)] == tfrecords.RECORDS
  assert list(records) == tfrecords.RECORDS
  assert records.__getitems__([16, 0, 7]) == [
    tfrecords.RECORDS[i] for i in (16, 0, 7)
  ]
  for index in (-1, 17):
    with pytest.raises(IndexError):
      records[index]


def test_parts_skip_and_take_and_may_come_twice(shards):
  records = tfrecord.TfRecords(
    [
      tfrecords.part(shards[4], 5, skip=3),
      tfrecords.part(shards[0], 7, skip=2, take=3),
      tfrecords.part(shards[0], 7, skip=6, take=0),
      tfrecords.part(shards[4], 5, skip=4),
    ]
  )
  expected = [tfrecords.RECORDS[i] for i in (15, 16, 2, 3, 4, 16)]
  assert list(records) == expected


def test_nothing_taken_is_empty():
  assert len(tfrecord.TfRecords([])) == 0


def test_another_process_opens_the_files_itself(shards, tmp_path):
  records = tfrecords.open_shards(shards)
  records[3]
  program = 'import pickle, sys\nprint(list(pickle.load(sys.stdin.buffer)))'
  shutil.rmtree(tmp_path / 'cache')
  command = [sys.executable, '-W', 'error', '-c', program]
  done = subprocess.run(
    command, input=pickle.dumps(records), check=False, capture_output=True
  )
  assert (done.stdout.decode(), done.stderr) == (f'{tfrecords.RECORDS}\n', b'')
  assert not (tmp_path / 'cache').exists()  # Nor were records looked for.


def test_many_threads_and_shards_share_few_open_files(tmp_path):
  num_shards = tfrecord._MAX_OPEN + 29
  for number in range(num_shards):
    tfrecords.write(tmp_path / f'{number:03}', [b'%d' % number, b'emu'])
  paths = [tmp_path / f'{number:03}' for number in range(num_shards)]
  records = tfrecord.TfRecords([tfrecords.part(path, 2) for path in paths])
  order = random.Random(0).choices(range(2 * num_shards), k=2000)
  tfrecord._open.cache_clear()
  before = len(os.listdir('/dev/fd'))
  with futures.ThreadPoolExecutor(8) as pool:
    found = list(pool.map(records.__getitem__, order))
  assert found == [b'emu' if i % 2 else b'%d' % (i // 2) for i in order]
  now = len(os.listdir('/dev/fd')) - before
  assert tfrecord._MAX_OPEN / 2 < now <= tfrecord._MAX_OPEN


def test_files_are_closed_when_the_process_can_open_no_more(shards):
  records = tfrecords.open_shards(shards)
  tfrecord._open.cache_clear()
  records[0]
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  highest = max(int(name) for name in os.listdir('/dev/fd'))
  holes = [os.open(os.devnull, os.O_RDONLY) for _ in range(highest)]
  try:
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(holes) + 1, hard))
    assert list(records) == tfrecords.RECORDS
  finally:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for hole in holes:
      os.close(hole)


_CUT, _CRC = 'is cut short', 'has a length that its CRC-32C contradicts'
_BYTES = 'has bytes that its CRC-32C contradicts'


@pytest.mark.parametrize(
  ('place', 'said'),
  [(0, _CRC), (6, _CRC), (8, _CRC), (11, _CRC), (12, _BYTES), (-1, _BYTES)],
)
def test_changed_bit_is_found_in_its_record(shards, place, said):
  content = bytearray(shards[0].read_bytes())
  content[_offset(4 + (place < 0)) + place] ^= 16
  shards[0].write_bytes(content)
  with pytest.raises(errors.DataError, match=said) as raised:
    records = tfrecords.open_shards(shards)
    assert said == _BYTES  # For lengths are looked at before bytes.
    assert [records[i] for i in (3, 5)] == [
      tfrecords.RECORDS[i] for i in (3, 5)
    ]
    records[4]
  text = str(raised.value)
  assert f'{shards[0]}: record 4, at byte {_offset(4)}' in text
  assert 'Copy or prepare the data set again.' in text


@pytest.mark.parametrize(
  ('rest', 'said'),
  [(1, _CUT), (11, _CUT), (12, '12 bytes are missing'), (19, '5 bytes are m')],
)
def test_cut_file_is_found(shards, rest, said):
  shards[0].write_bytes(shards[0].read_bytes()[: _offset(4) + rest])
  with pytest.raises(errors.DataError, match=f'record 4, at .*{said}'):
    tfrecords.open_shards(shards)


@pytest.mark.parametrize(
  ('garbage', 'said'), [(b'\0', _CUT), (bytes(15), _CRC), (bytes(99), _CRC)]
)
def test_garbage_after_the_last_record_is_found(shards, garbage, said):
  shards[0].write_bytes(shards[0].read_bytes() + garbage)
  with pytest.raises(errors.DataError, match=f'record 7, at .*{said}'):
    tfrecords.open_shards(shards)


@pytest.mark.parametrize('length', [2**31, 2**60, 2**63, 2**64 - 1])
def test_enormous_length_takes_no_memory(shards, length):
  shards[0].write_bytes(tfrecords.frame(b'emu', length))
  tracemalloc.start()
  try:
    with pytest.raises(errors.DataError, match=r'[\d,]{13,} bytes are missing'):
      tfrecords.open_shards(shards)
    assert tracemalloc.get_traced_memory()[1] < 2**20
  finally:
    tracemalloc.stop()


def test_length_beyond_any_example_is_refused(shards):
  header = tfrecords.frame(b'', 2**31)[:12]
  shards[0].write_bytes(header)
  os.truncate(shards[0], 2**31 + 16)  # A hole, which takes no room.
  with pytest.raises(errors.DataError, match='expected at most 2,147,483,647'):
    tfrecords.open_shards(shards)


def test_another_number_of_records_is_named(shards):
  tfrecords.write(shards[3], [b'emu'] * 3)
  with pytest.raises(errors.DataError) as raised:
    tfrecords.open_shards(shards)
  expected = f'{shards[3]}: has 3 records, expected 2 by dataset_info.json'
  assert expected in str(raised.value)


def test_all_damaged_shards_are_counted(shards):
  shards[0].unlink()
  shards[2].unlink()
  shards[2].mkdir()
  shards[4].write_bytes(b'emu')
  with pytest.raises(errors.DataError) as raised:
    tfrecords.open_shards(shards)
  text = str(raised.value)
  assert text.startswith('3 of 4 TFRecord files are missing or damaged:\n')
  assert f"{shards[0]}: can't be read (No such file or directory)\n" in text
  assert f"{shards[2]}: can't be read (Is a directory)\n" in text


def test_listing_of_damage_is_short(tmp_path):
  parts = [tfrecords.part(tmp_path / str(number), 1) for number in range(1024)]
  with pytest.raises(errors.DataError, match='and 1,019 more') as raised:
    tfrecord.TfRecords(parts)
  assert len(str(raised.value).splitlines()) == 8


@pytest.mark.parametrize('change', ['cut', 'grown', 'gone'])
def test_change_after_opening_is_found(shards, change):
  records = tfrecords.open_shards(shards)
  tfrecord._open.cache_clear()
  if change == 'cut':
    os.truncate(shards[0], _offset(6) + 20)
    said = '8 of 28 bytes are missing'
  elif change == 'grown':
    changed = [*tfrecords.RECORDS[:6], b'emu', bytes(99)]
    shards[0].write_bytes(b''.join(map(tfrecords.frame, changed)))
    said = 'has 3 bytes, expected 12: the file has changed'
  else:
    shards[0].unlink()
    said = r"can't be read \(No such file"
  with pytest.raises(errors.DataError, match=f'record 6, at byte .* {said}'):
    records[6]


def test_mutated_files_give_our_errors_or_the_right_bytes(tmp_path, shards):
  rng = random.Random(7)
  whole = shards[4].read_bytes()
  outcomes = collections.Counter()
  for number in range(1000):
    path = tmp_path / str(number)  # A new one, so that no index fits it.
    path.write_bytes(_mutated(whole, rng))
    said = _said(lambda path=path: _open_five(path))
    outcomes['opened' if said is None else 'refused'] += 1
    assert str(path) in (said or str(path))
    if said is None:
      for index, expected in enumerate(tfrecords.RECORDS[12:]):
        said = _said(lambda i=index, path=path: _open_five(path)[i], expected)
        outcomes['read' if said is None else 'changed'] += 1
        where = f'{path}: record {index}, at byte'
        assert said is None or said.startswith(where)
    path.unlink()
  assert outcomes.keys() == {'opened', 'refused', 'read', 'changed'}
  assert min(outcomes.values()) > 50


def _open_five(path):
  records = tfrecord.TfRecords([tfrecords.part(path, 5)])
  assert len(records) == 5
  return records


def _said(do, expected=None):
  """Returns the text of a DataError, None where there is none."""
  try:
    found = do()
  except errors.DataError as error:
    return str(error)
  assert expected is None or found == expected
  return None


def _mutated(content, rng):
  """Returns bytes cut, changed, left out, put in, doubled or swapped."""
  start, stop = sorted(rng.choices(range(len(content) + 1), k=2))
  middle = content[start:stop]
  kind = rng.randrange(6)
  if kind == 0:
    return content[:start]
  if kind == 1:
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
      changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)
  if kind == 2:
    return content[:start] + content[stop:]
  if kind == 3:
    return (
      content[:start] + rng.randbytes(rng.randrange(1, 40)) + content[start:]
    )
  if kind == 4:
    return content[:stop] + middle + content[stop:]
  return middle + content[:start] + content[stop:]
