"""TFRecord files for tests, written plainly and slowly from the format's text.

Of the format: a record is its length (uint64), the masked CRC-32C of these
eight bytes (uint32), its bytes, and their masked CRC-32C (uint32), all
little-endian.
"""

import functools
import itertools
import json
import pathlib
import struct
from collections.abc import Iterable, Sequence

import tensorflow_datasets as tfds
from tensorflow_datasets.core.utils import shard_utils

from vit_jax.data import tfrecord

# Of several lengths, the first empty; in shards of 7, 0, 3, 2 and 5.
RECORDS = [bytes(range(i, 3 * i)) for i in range(17)]
LENGTHS = (7, 0, 3, 2, 5)


@functools.cache
def _remainder(byte: int) -> int:
  """Divides by Castagnoli's polynomial, bit by bit."""
  for _ in range(8):
    byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
  return byte


def crc32c(data: bytes) -> int:
  crc = 0xFFFFFFFF
  for byte in data:
    crc = crc >> 8 ^ _remainder((crc ^ byte) & 0xFF)
  return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
  rotated = crc >> 15 | crc << 17 & 0xFFFFFFFF
  return (rotated + 0xA282EAD8) % 2**32


def frame(data: bytes, length: int | None = None) -> bytes:
  """Returns a record's bytes with all that is around them.

  Args:
    data: the bytes.
    length: what to state as their number, if it is to be a lie.
  """
  header = struct.pack('<Q', len(data) if length is None else length)
  return b''.join(
    [
      header,
      struct.pack('<I', masked(crc32c(header))),
      data,
      struct.pack('<I', masked(crc32c(data))),
    ]
  )


def write(path: pathlib.Path, records: Iterable[bytes]) -> None:
  path.write_bytes(b''.join(frame(record) for record in records))


def write_shards(directory: pathlib.Path) -> list[pathlib.Path]:
  """Writes `RECORDS` and returns the paths of the shards."""
  paths, start = [], 0
  for number, length in enumerate(LENGTHS):
    paths.append(directory / f'emu.tfrecord-{number}')
    write(paths[-1], RECORDS[start : start + length])
    start += length
  return paths


def part(
  path: pathlib.Path, num_records: int, skip: int = 0, take: int | None = None
) -> shard_utils.FileInstruction:
  """Returns tfds's order for some records of a shard, by default for all."""
  take = num_records - skip if take is None else take
  return shard_utils.FileInstruction(str(path), skip, take, num_records)


def open_shards(paths: Iterable[pathlib.Path]) -> tfrecord.TfRecords:
  return tfrecord.TfRecords(list(map(part, paths, LENGTHS)))


def shard_lengths(total: int, num_shards: int) -> list[int]:
  """Returns lengths that are near to each other, without being all the same."""
  cuts = [total * i // num_shards for i in range(num_shards + 1)]
  return [stop - start for start, stop in itertools.pairwise(cuts)]


def convert(
  directory: pathlib.Path, name: str, num_shards: int
) -> dict[str, Sequence[bytes]]:
  """Turns a prepared set of array_record into one of TFRecord shards.

  Args:
    directory: the one with dataset_info.json.
    name: of the data set.
    num_shards: how many to make of each split.

  Returns:
    The records of each split.
  """
  builder = tfds.builder_from_directory(directory)
  path = directory / 'dataset_info.json'
  description = json.loads(path.read_text())
  records = {}
  for split in description['splits']:
    source = builder.as_data_source(
      split['name'],
      deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES,
    )
    ours = list(source.__getitems__(list(range(len(source)))))
    lengths = shard_lengths(len(ours), num_shards)
    split['shardLengths'] = [str(length) for length in lengths]
    start = 0
    for number, length in enumerate(lengths):
      shard = f'{name}-{split["name"]}.tfrecord-{number:05}-of-{num_shards:05}'
      write(directory / shard, ours[start : start + length])
      start += length
    records[split['name']] = ours
  for old in directory.glob('*.array_record*'):
    old.unlink()
  description['fileFormat'] = 'tfrecord'
  path.write_text(json.dumps(description))
  return records


def prepare(
  builder: type[tfds.core.GeneratorBasedBuilder],
  directory: pathlib.Path,
  file_format: str,
  num_shards: int = 2,
) -> None:
  """Prepares a set in any format; TFRecord tfds writes with TensorFlow alone.

  Args:
    builder: of the data set.
    directory: for all data sets.
    file_format: 'array_record', 'tfrecord' or 'parquet'.
    num_shards: how many files each split has.
  """
  made = builder(data_dir=directory)
  made.download_and_prepare(
    file_format='parquet' if file_format == 'parquet' else 'array_record',
    download_config=tfds.download.DownloadConfig(num_shards=num_shards),
  )
  if file_format == 'tfrecord':
    convert(pathlib.Path(made.data_dir), made.name, num_shards)
