"""Host batches for training and evaluation: Grain over a random-access source.

Where a batch stands in the stream is a function of its step alone, so resuming
needs nothing but the step: row r of step s of the global batch is position
s * batch + r, and everything random is drawn from (seed, position or epoch).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import grain
import numpy as np
from absl import logging

from vit_jax import errors
from vit_jax.data import decode, sources, workers

# Steps that no run gets near, while positions still fit into 64 bits.
_ENDLESS = 2**40
# Keeps the uses of the seed apart: the order, the crops, and what stands in for
# a bad image.
_ORDER, _CROP, _SUBSTITUTE = 0, 1, 2
# Bad images that may be skipped: one in so many, but one in any case.
_ONE_BAD_IN = 1000
_NUM_NAMED = 5

Batches = grain.DatasetIterator[dict[str, np.ndarray]] | workers.Batches


def train_batches(
  config: Any,
  start_step: int,
  source: sources.Source | None = None,
  process_index: int = 0,
  process_count: int = 1,
) -> Batches:
  """Iterates without end over shuffled batches, from `start_step` on.

  Each epoch has every example once, in an order of its own. The batches of all
  processes together are the same for any `process_count`, and the same for any
  `num_threads`.

  Args:
    config: with the fields `seed`, `batch` (examples of all processes
      together), `num_threads` (0 reads in the caller's thread), `num_workers`
      (processes that decode instead of threads; 0 for none), `on_bad_image`
      ('fail', or 'skip' to take another in its place), `pp.train` (the split),
      `pp.crop`, `pp.area_range` and `pp.ratio_range` (see
      `decode.random_resized_crop`), `pp.repeats` (how often an example is in a
      batch, 1 if it is missing); those of `sources.load_source` if `source` is
      None.
    start_step: how many steps were done before.
    source: what to read, if it isn't `pp.train` of `config.dataset`.
    process_index: which part of each batch to read, in [0, process_count).
    process_count: number of parts.

  Returns:
    An iterator with `close()`, of {'image': uint8 [local_batch, height, width,
    3], 'label': int32 [local_batch]}. Images kept in memory come as they are;
    others are resized to `pp.crop` square here, where they are decoded, and
    randomly cropped before that if `pp.augment` is 'crop_flip' (the default).
    Reading it raises DataError for a broken record, unless those are skipped
    and no more than one in a thousand, and for a process that has died.

  Raises:
    ConfigError: the batch is not divisible by `process_count`, or images have
      several labels.
  """
  if source is None:
    source = sources.load_source(config, config.pp.train)
  check_trainable(source)
  local_batch = _local_batch('batch', config.batch, process_count)
  position = functools.partial(
    _position, config.batch, local_batch, process_index
  )
  order = _Order(len(source), config.seed)
  repeats = config.pp.get('repeats', 1)  # Of an example, one after the other.
  images, labels = source.images, source.labels
  if images is not None and labels is not None:
    # Indices first and one gather a batch: half a microsecond an image.
    def read_batch(step: int):
      places = position(step, np.arange(local_batch))
      indices = order(places // repeats)
      return {'image': images[indices], 'label': labels[indices]}

    return _batch_iterator(read_batch, start_step, _ENDLESS, config)

  reader = _Reader(source, config)

  def read_row(row: int):
    place = position(*divmod(row, local_batch))
    image, label = reader.read_or_substitute(order(place // repeats), place)
    if config.pp.get('augment', 'crop_flip') != 'crop_flip':
      image = decode.resize_squash(image, config.pp.crop)
      return {'image': image, 'label': label}
    rng = np.random.default_rng([_as_entropy(config.seed), _CROP, place])
    image = decode.random_resized_crop(
      rng, image, config.pp.crop, config.pp.area_range, config.pp.ratio_range
    )
    return {'image': image, 'label': label}

  return _row_iterator(read_row, start_step, _ENDLESS, local_batch, config)


def check_trainable(source: sources.Source) -> None:
  """Raises ConfigError if the images have several labels."""
  if source.max_labels is not None:
    raise errors.ConfigError(
      f'Images of {source.name!r} have several labels, or none, so there is no '
      'training on it. Name it in config.eval_sets, or evaluate a run by '
      '--mode=evaluate.'
    )


def eval_batches(
  config: Any,
  source: sources.Source,
  process_index: int = 0,
  process_count: int = 1,
) -> Batches:
  """Iterates once over all examples, in order.

  The last batch is filled up with zeros that `mask` excludes, so that all
  batches have one shape and all processes the same number of them.

  Args:
    config: with the fields `batch_eval` (examples of all processes together),
      `num_threads`, `num_workers`, `on_bad_image` and `pp.crop`.
    source: what to read.
    process_index: which part of each batch to read, in [0, process_count).
    process_count: number of parts.

  Returns:
    An iterator with `close()`, of {'image': uint8 [local_batch, height, width,
    3], 'label': int32 [local_batch], 'mask': bool [local_batch]}; 'label' is
    int32 [local_batch, max_labels] where the source has several. Images kept in
    memory come as they are; others are squashed to `pp.crop` square. What is
    skipped is blank, and `mask` excludes it.

  Raises:
    ConfigError: `batch_eval` is not divisible by `process_count`.
  """
  batch = config.batch_eval
  local_batch = _local_batch('batch_eval', batch, process_count)
  position = functools.partial(_position, batch, local_batch, process_index)
  num_batches = math.ceil(len(source) / batch)
  images, labels = source.images, source.labels
  if images is not None and labels is not None:

    def read_batch(step: int):
      indices = position(step, np.arange(local_batch))
      mask = indices < len(source)
      indices = np.minimum(indices, len(source) - 1)
      image, label = images[indices], labels[indices]
      image[~mask] = label[~mask] = 0
      return {'image': image, 'label': label, 'mask': mask}

    return _batch_iterator(read_batch, 0, num_batches, config)

  blank = np.zeros((config.pp.crop, config.pp.crop, 3), np.uint8)
  no_label = np.int32(0)
  if source.max_labels:
    no_label = np.zeros(source.max_labels, np.int32)
  reader = _Reader(source, config)

  def read_row(row: int):
    index = position(*divmod(row, local_batch))
    example = reader.read(index) if index < len(source) else None
    if example is None:
      return {'image': blank, 'label': no_label, 'mask': np.False_}
    image, label = example
    image = decode.resize_squash(image, config.pp.crop)
    return {'image': image, 'label': label, 'mask': np.True_}

  return _row_iterator(read_row, 0, num_batches, local_batch, config)


class _Order:
  """Maps positions in an endless stream to indices, shuffled in each epoch.

  Grain's own shuffle costs 8 microseconds an index, more than all the rest
  that is done for a small image; a permutation per epoch costs next to nothing.
  """

  def __init__(self, num_examples: int, seed: int):
    self._num_examples = num_examples
    self._seed = _as_entropy(seed)
    self._drawn: dict[int, np.ndarray] = {}

  def __getstate__(self):
    return self.__dict__ | {'_drawn': {}}  # Worker processes draw their own.

  def _permutation(self, epoch: int) -> np.ndarray:
    drawn = self._drawn.get(epoch)
    if drawn is None:
      rng = np.random.default_rng([self._seed, _ORDER, epoch])
      drawn = rng.permutation(self._num_examples)
      # Two, as the threads and one batch may be on both sides of an epoch's
      # end. In one statement, as threads share it.
      self._drawn = {**dict([*self._drawn.items()][-1:]), epoch: drawn}
    return drawn

  def __call__(self, positions):
    """Returns the index for a position, or an array of them for an array."""
    epochs, offsets = np.divmod(positions, self._num_examples)
    if np.ndim(positions) == 0:
      return int(self._permutation(int(epochs))[offsets])
    indices = np.empty_like(offsets)
    for epoch in np.unique(epochs):
      here = epochs == epoch
      indices[here] = self._permutation(int(epoch))[offsets[here]]
    return indices


def _position(batch, local_batch, process_index, step, row):
  """Returns where a row of this process's batch is in the global stream."""
  return step * batch + process_index * local_batch + row


class _Reader:
  """Reads and decodes examples, and skips bad ones where that is asked for."""

  def __init__(self, source: sources.Source, config: Any):
    self._source = source
    self._skips = config.get('on_bad_image', 'fail') == 'skip'
    self._seed = _as_entropy(config.get('seed', 0))
    self._bad: dict[int, str] = {}  # What is wrong, by index.

  def read(self, index: int) -> tuple[np.ndarray, Any] | None:
    """Returns uint8 [height, width, 3] of any size and its int32 label.

    None stands for a bad image that is skipped.

    Raises:
      DataError: a bad image, or too many of those that are skipped.
    """
    try:
      image, label = self._source.read(index)
      if isinstance(image, bytes):
        image = decode.decode(image, self._source.describe(index))
    except errors.DataError as error:
      if not self._skips:
        raise
      self._note(index, error)
      return None
    return image, np.int32(label)

  def read_or_substitute(
    self, index: int, place: int
  ) -> tuple[np.ndarray, Any]:
    """Returns an example; for a bad one another, which `place` decides on."""
    example = self.read(index)
    if example is None:
      rng = np.random.default_rng([self._seed, _SUBSTITUTE, place])
      while example is None:  # Too many bad ones raise.
        example = self.read(int(rng.integers(len(self._source))))
    return example

  def _note(self, index: int, error: errors.DataError) -> None:
    if index in self._bad:
      return
    self._bad[index] = str(error)
    count, total = len(self._bad), len(self._source)
    if count > max(1, total // _ONE_BAD_IN):
      named = '\n'.join(
        f'  {text}' for text in [*self._bad.values()][:_NUM_NAMED]
      )
      raise errors.DataError(
        f'{count} of the {total:,} images of {self._source.name!r} '
        f'{self._source.split} are bad, more than one in {_ONE_BAD_IN:,}; the '
        f'first are\n{named}\nMend or remove them.'
      )
    logging.warning('Skipped (%d of %d images): %s', count, total, error)


def _batch_iterator(
  read_batch: Callable[[int], Any], start: int, stop: int, config: Any
) -> grain.DatasetIterator[Any]:
  """Iterates over `read_batch(step)`; one thread keeps up with any model."""
  dataset = grain.MapDataset.range(stop)[start:].map(read_batch)
  options = grain.ReadOptions(
    num_threads=min(config.num_threads, 1), prefetch_buffer_size=2
  )
  return iter(dataset.to_iter_dataset(options))


def _row_iterator(
  read_row: Callable[[int], Any],
  start: int,
  stop: int,
  local_batch: int,
  config: Any,
) -> Batches:
  """Iterates over batches of `read_row(row)`, on threads or processes."""
  rows = grain.MapDataset.range(stop * local_batch)[start * local_batch :]
  if num_workers := config.get('num_workers', 0):
    return workers.Batches(rows.map(read_row).batch(local_batch), num_workers)
  options = grain.ReadOptions(
    num_threads=config.num_threads,
    prefetch_buffer_size=max(2 * local_batch, config.num_threads),
  )
  dataset = rows.map(read_row).to_iter_dataset(options)
  return iter(dataset.batch(local_batch, drop_remainder=True))


def _local_batch(field: str, batch: int, process_count: int) -> int:
  if batch % process_count:
    below = batch - batch % process_count
    raise errors.ConfigError(
      f'config.{field} is {batch}, which {process_count} processes do not '
      f'divide. Near sizes that work: {below or process_count}, '
      f'{below + process_count}.'
    )
  return batch // process_count


def _as_entropy(seed: int) -> int:
  return seed % 2**64  # A negative seed is as good as any, but not to numpy.
