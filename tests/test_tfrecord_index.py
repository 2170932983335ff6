"""The index of TFRecord files: kept, trusted no further than it can be."""

import os
import struct

import google_crc32c
import pytest
import tfrecords

from vit_jax import environment
from vit_jax.data import tfrecord, tfrecord_index


def _walked(monkeypatch):
  """Returns the list that the paths of files are put on that are walked."""
  paths, walk = [], tfrecord_index._walk

  def note(path):
    paths.append(path)
    return walk(path)

  monkeypatch.setattr(tfrecord_index, '_walk', note)
  return paths


def test_files_are_walked_once(shards, record_cache, monkeypatch):
  walked = _walked(monkeypatch)
  tfrecords.open_shards(shards)
  # tfds has no use for an empty shard.
  assert sorted(walked) == [str(path) for path in shards if path != shards[1]]
  (kept,) = record_cache.iterdir()
  walked.clear()
  assert list(tfrecords.open_shards(shards)) == tfrecords.RECORDS
  assert not walked
  assert list(record_cache.iterdir()) == [kept]


def test_only_what_is_used_is_walked_and_the_rest_added(shards, monkeypatch):
  walked = _walked(monkeypatch)
  tfrecord.TfRecords([tfrecords.part(shards[2], 3)])
  assert walked == [str(shards[2])]
  tfrecords.open_shards(shards)
  assert sorted(walked[1:]) == [str(shards[i]) for i in (0, 3, 4)]


@pytest.mark.parametrize('change', ['time', 'size'])
def test_a_changed_file_is_walked_again(shards, monkeypatch, change):
  tfrecords.open_shards(shards)
  before = shards[3].stat()
  if change == 'time':
    changed = tfrecords.RECORDS[11], tfrecords.RECORDS[10]
    tfrecords.write(shards[3], changed)
    assert shards[3].stat().st_size == before.st_size
  else:
    changed = b'emu', b''
    tfrecords.write(shards[3], changed)
    os.utime(shards[3], ns=(before.st_atime_ns, before.st_mtime_ns))
  walked = _walked(monkeypatch)
  expected = [*tfrecords.RECORDS[:10], *changed, *tfrecords.RECORDS[12:]]
  assert list(tfrecords.open_shards(shards)) == expected
  assert walked == [str(shards[3])]


def test_damaged_index_is_made_anew(shards, record_cache, monkeypatch):
  tfrecords.open_shards(shards)
  (kept,) = record_cache.iterdir()
  whole = kept.read_bytes()
  damaged = [b'', whole[:7], whole[:30], whole[:-1], whole + b'\0', b'{}' * 99]
  for place in range(0, len(whole), 11):
    bits = bytes([whole[place] ^ 1 << place % 8])
    damaged.append(whole[:place] + bits + whole[place + 1 :])
  walked = _walked(monkeypatch)
  for content in damaged:
    kept.write_bytes(content)
    walked.clear()
    assert list(tfrecords.open_shards(shards)) == tfrecords.RECORDS
    assert len(walked) == 4
    assert len(kept.read_bytes()) == len(whole)
  assert list(record_cache.iterdir()) == [kept]


@pytest.mark.parametrize(
  'table', [b'7', b'[7]', b'[["0", 1, 2, -2]]', b'[["0", 1, 2, 99]]', b'[[]]']
)
def test_index_that_only_looks_whole_is_made_anew(shards, record_cache, table):
  tfrecords.open_shards(shards)
  (kept,) = record_cache.iterdir()
  size = len(tfrecord_index._MAGIC)
  content = table.ljust(32)
  crc = google_crc32c.value(content)
  head = kept.read_bytes()[:size] + struct.pack('<IQ', crc, 32)
  kept.write_bytes(head + content)
  assert list(tfrecords.open_shards(shards)) == tfrecords.RECORDS


def test_unwritable_cache_is_no_error(shards, tmp_path, monkeypatch):
  (tmp_path / 'file').write_text('no directory')
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'file'))
  assert environment.cache_dir() == tmp_path / 'file'
  assert list(tfrecords.open_shards(shards)) == tfrecords.RECORDS


def test_full_disk_leaves_no_rest(shards, record_cache, monkeypatch):
  def fail(*args):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'replace', fail)
  assert list(tfrecords.open_shards(shards)) == tfrecords.RECORDS
  assert list(record_cache.iterdir()) == []
