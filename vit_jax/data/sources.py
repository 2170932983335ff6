"""Random access to labelled image data sets by name, one split at a time."""

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np

from vit_jax import errors
from vit_jax.data import builders, decode, examples, paths
from vit_jax.data import labels as derived

# Images of one size up to this side are decoded once and kept in memory, as
# long as all of them take no more than this many bytes.
_MAX_SIDE = 64
_MAX_BYTES = 4 * 2**30


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
  """One split of a labelled image data set.

  Attributes:
    name: of the data set, such as 'cifar10'.
    split: what of it, such as 'train[:98%]'.
    class_names: the name of each label.
    labels: int32 [N], or [N, max_labels]; None where knowing them means reading
      all records.
    images: uint8 [N, height, width, 3] in memory, or None where images are
      large or of several sizes.
    records: (encoded image, label) by index, where `images` is None; a label is
      a number, or int32 [max_labels].
    paths: of the files, where each example is one.
    max_labels: where an image may have several labels, or none, how many there
      is room for; those that are not there are -1. None where each has one.
    gain: what the pixels of `records` are to be multiplied by.
    fingerprint: what `make_fingerprint` makes of the examples, whose order is
      the same where it is; '' for unknown.
  """

  name: str
  split: str
  class_names: tuple[str, ...]
  labels: np.ndarray | None = None
  images: np.ndarray | None = None
  records: Sequence[tuple[bytes, Any]] | None = None
  paths: Sequence[str] | None = None
  max_labels: int | None = None
  gain: int = 1
  fingerprint: str = ''

  def __len__(self) -> int:
    held = self.records if self.images is None else self.images
    return 0 if held is None else len(held)

  @property
  def num_classes(self) -> int:
    return len(self.class_names)

  def describe(self, index: int) -> str:
    """Returns what to call an example in an error."""
    if self.paths is not None:
      return self.paths[index]
    return f'{self.name} {self.split} record {index}'

  def read(self, index: int) -> tuple[bytes | np.ndarray, Any]:
    """Returns an image, decoded (uint8 [H, W, 3]) or encoded, and its label.

    Where images have several, the label is int32 [max_labels].

    Raises:
      DataError: the record can't be read.
    """
    if self.images is not None and self.labels is not None:
      label = self.labels[index]
      return self.images[index], int(label) if label.ndim == 0 else label
    assert self.records is not None
    image, label = self.records[index]
    if self.gain != 1:
      image = decode.decode(image, self.describe(index)) * np.uint8(self.gain)
    return image, label


def make_fingerprint(num_examples: int, *contents: str | bytes) -> str:
  """Returns a short text that differs where examples or their order do.

  It is the number of examples, a hyphen and 16 hexadecimal digits: BLAKE2b (RFC
  7693, digest of 8) of the contents, each after its length in 8 bytes, the
  least significant first. Texts are taken as UTF-8.

  Args:
    num_examples: of the split.
    *contents: what identifies the examples in their order.
  """
  digest = hashlib.blake2b(digest_size=8)
  for content in contents:
    if isinstance(content, str):  # Names of files need not be UTF-8.
      content = content.encode('utf-8', 'surrogateescape')
    digest.update(len(content).to_bytes(8, 'little'))
    digest.update(content)
  return f'{num_examples}-{digest.hexdigest()}'


def load_source(config: Any, split: str) -> Source:
  """Opens one split of `config.dataset`, preparing it first where needed.

  `digits`, `digits/0_to_4`, `digits/5_to_9`, `cifar10` and `cifar100` are
  prepared on first use. Any other tfds data set must already be prepared, as
  array_record, TFRecord or Parquet; `examples.find_fields` tells which of its
  features are read. One with 'real_label' for 'label', as imagenet2012_real has
  it, has several labels an image. A path is a folder of images or a manifest,
  see `folder.load_source`.

  Args:
    config: with the fields `dataset` (a tfds name), `tfds_data_dir` (None for
      tfds's default), `tfds_manual_dir` (where archives were put by hand, or
      None) and `label` (a name of `labels.LABELS`; '' or missing for the data
      set's own).
    split: a tfds split, such as 'test' or 'train[:98%]+validation'.

  Raises:
    ConfigError: there is no such data set, split or label.
    DataNotFoundError: the data set is not prepared and can't be.
    DataError: the data set is broken or has no images with labels.
  """
  from vit_jax.data import folder  # Which imports this module.

  label = config.get('label', '')
  if paths.is_path(config.dataset):
    _check_no_label(config.dataset, label)
    return folder.load_source(config, split)
  _check_no_preset(config.dataset)
  gain = derived.find(label).gain if label else 1
  builder = builders.open_builder(config)
  fields = examples.find_fields(config.dataset, builder, label)
  _check_split(config, split, builder)
  records = _Records(config.dataset, split, builder, fields)
  source = Source(
    name=config.dataset,
    split=split,
    class_names=fields.class_names,
    records=records,
    max_labels=fields.max_labels,
    gain=gain,
    # tfds keeps the order of a version, in any format; reading all records
    # would take longer than it is worth.
    fingerprint=make_fingerprint(
      len(records), builder.info.full_name, '\0'.join(fields.class_names)
    ),
  )
  size = fields.size
  if not size or max(size) > _MAX_SIDE:
    return source
  if len(records) * math.prod(size) * 3 > _MAX_BYTES:
    return source
  return _in_memory(source, records, *size)


class _Records(Sequence):
  """(encoded image, label) of each record of a prepared tfds data set."""

  def __init__(
    self, dataset: str, split: str, builder: Any, fields: examples.Fields
  ):
    self._fields = fields
    self._where = f'Data set {dataset!r} in {builder.data_dir}, {split}'
    with self._readable('the split'):
      self._records = _open_records(split, builder)

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index):
    if not 0 <= index < len(self):
      raise IndexError(index)
    with self._readable(f'record {index}'):
      return examples.parse(self._records[index], self._fields)

  def read_range(self, start: int, stop: int) -> list[tuple[bytes, Any]]:
    """Returns records at half the cost of one at a time."""
    with self._readable(f'one of records {start} to {stop - 1}'):
      records = self._records.__getitems__(list(range(start, stop)))
      return [examples.parse(record, self._fields) for record in records]

  @contextlib.contextmanager
  def _readable(self, what: str) -> Iterator[None]:
    try:
      yield
    except errors.DataError:  # Of our own readers, which tell more.
      raise
    # The reader's C++ raises several kinds for files that are cut or gone.
    except Exception as error:
      raise errors.DataError(
        f"{self._where}: {what} can't be read ({error}). Copy or prepare the "
        'data set again.'
      ) from error


def _open_records(split: str, builder: Any) -> Any:
  """Returns the serialised tf.Examples of a split, whatever they are kept in.

  Where they are is what tfds's own parser of splits says.
  """
  import tensorflow_datasets as tfds

  from vit_jax.data import parquet, tfrecord

  if builder.info.file_format is tfds.core.FileFormat.ARRAY_RECORD:
    return builder.as_data_source(
      split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
  file_instructions = builder.info.splits[split].file_instructions
  if builder.info.file_format is tfds.core.FileFormat.TFRECORD:
    return tfrecord.TfRecords(file_instructions)
  return parquet.ParquetRecords(file_instructions)


def _in_memory(
  source: Source, records: _Records, height: int, width: int
) -> Source:
  """Returns the same split with all its images decoded."""
  images = np.empty((len(source), height, width, 3), np.uint8)
  shape = (len(source), *([source.max_labels] if source.max_labels else []))
  labels = np.empty(shape, np.int32)

  def read(start: int):
    stop = min(start + 1000, len(source))
    for index, (encoded, label) in enumerate(
      records.read_range(start, stop), start
    ):
      name = f'{source.name} {source.split} record {index}'
      image = decode.decode(encoded, name)
      if image.shape != images.shape[1:]:
        raise errors.DataError(
          f'{name}: image of {image.shape[:2]} pixels, expected '
          f'{(height, width)}. Prepare the data set again.'
        )
      images[index], labels[index] = image * np.uint8(source.gain), label

  with futures.ThreadPoolExecutor() as pool:
    list(pool.map(read, range(0, len(source), 1000)))  # Raises what read does.
  return dataclasses.replace(
    source, images=images, labels=labels, records=None, gain=1
  )


def _check_no_label(dataset: str, label: str):
  if label:
    raise errors.ConfigError(
      f'config.label is {label!r}, which is worked out from what a tfds data '
      f'set tells of its images, and config.dataset={dataset!r} is a path. '
      'Pass --config.label='
    )


def _check_no_preset(dataset: str):
  if dataset.startswith('vtab/'):
    raise errors.ConfigError(
      f'config.dataset={dataset!r} names a preset, which sets more than the '
      'data set. Name it where the model is named: '
      f'--config configs/vit.py:b16,{dataset}'
    )


def _check_split(config: Any, split: str, builder: Any):
  """Raises ConfigError unless `split` names at least one example.

  Where it is what is trained on, the text has what is wrong with what is tested
  on as well.
  """
  problem = _split_problem(config.dataset, split, builder)
  if not problem:
    return
  pp = config.get('pp') or {}
  test = pp.get('test')
  if test and test != split == pp.get('train'):
    of_test = _split_problem(config.dataset, test, builder)
    problem += f'\n{of_test}' if of_test else ''
  raise errors.ConfigError(problem)


def _split_problem(dataset: str, split: str, builder: Any) -> str:
  """Returns why a split can't be had, '' if it can."""
  names = list(builder.info.splits)
  for part in split.split('+'):
    name = part.partition('[')[0].strip()
    if name not in (*names, 'all'):
      text = errors.unknown_name('split', name, names)
      return f'Data set {dataset!r}: {text}'
  try:
    num_examples = builder.info.splits[split].num_examples
  except Exception as error:  # tfds's parser raises many kinds.
    return (
      f'Data set {dataset!r}: split {split!r} is malformed ({error}). Expected '
      "the like of 'train', 'train[:98%]' or 'train[500:]+test'."
    )
  if not num_examples:
    return f'Data set {dataset!r}: split {split!r} has no examples.'
  return ''
