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

from vit_jax import errors
from vit_jax.data import decode, sources

# Steps that no run gets near, while positions still fit into 64 bits.
_ENDLESS = 2**40
# Keeps the two uses of the seed apart: the order and the crops.
_ORDER, _CROP = 0, 1


def train_batches(
  config: Any,
  start_step: int,
  source: sources.Source | None = None,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
  """Iterates without end over shuffled batches, from `start_step` on.

  Each epoch has every example once, in an order of its own. The batches of all
  processes together are the same for any `process_count`, and the same for any
  `num_threads`.

  Args:
    config: with the fields `seed`, `batch` (examples of all processes
      together), `num_threads` (0 reads in the caller's thread), `pp.train` (the
      split), `pp.crop`, `pp.area_range` and `pp.ratio_range` (see
      `decode.random_resized_crop`); those of `sources.load_source` if `source`
      is None.
    start_step: how many steps were done before.
    source: what to read, if it isn't `pp.train` of `config.dataset`.
    process_index: which part of each batch to read, in [0, process_count).
    process_count: number of parts.

  Returns:
    An iterator with `close()`, of {'image': uint8 [local_batch, height, width,
    3], 'label': int32 [local_batch]}. Images kept in memory come as they are;
    others are resized to `pp.crop` square here, where they are decoded, and
    randomly cropped before that if `pp.augment` is 'crop_flip' (the default).
    Reading it raises DataError for a broken record.

  Raises:
    ConfigError: the batch is not divisible by `process_count`.
  """
  if source is None:
    source = sources.load_source(config, config.pp.train)
  local_batch = _local_batch('batch', config.batch, process_count)
  position = functools.partial(
    _position, config.batch, local_batch, process_index
  )
  order = _Order(len(source), config.seed)
  images, labels = source.images, source.labels
  if images is not None and labels is not None:
    # Indices first and one gather a batch: half a microsecond an image.
    def read_batch(step: int):
      indices = order(position(step, np.arange(local_batch)))
      return {'image': images[indices], 'label': labels[indices]}

    return _batch_iterator(read_batch, start_step, _ENDLESS, config)

  def read_row(row: int):
    place = position(*divmod(row, local_batch))
    image, label = _read(source, order(place))
    if config.pp.get('augment', 'crop_flip') != 'crop_flip':
      image = decode.resize_squash(image, config.pp.crop)
      return {'image': image, 'label': label}
    rng = np.random.default_rng([_as_entropy(config.seed), _CROP, place])
    image = decode.random_resized_crop(
      rng, image, config.pp.crop, config.pp.area_range, config.pp.ratio_range
    )
    return {'image': image, 'label': label}

  return _row_iterator(read_row, start_step, _ENDLESS, local_batch, config)


def eval_batches(
  config: Any,
  source: sources.Source,
  process_index: int = 0,
  process_count: int = 1,
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
  """Iterates once over all examples, in order.

  The last batch is filled up with zeros that `mask` excludes, so that all
  batches have one shape and all processes the same number of them.

  Args:
    config: with the fields `batch_eval` (examples of all processes together),
      `num_threads` and `pp.crop`.
    source: what to read.
    process_index: which part of each batch to read, in [0, process_count).
    process_count: number of parts.

  Returns:
    An iterator with `close()`, of {'image': uint8 [local_batch, height, width,
    3], 'label': int32 [local_batch], 'mask': bool [local_batch]}. Images kept
    in memory come as they are; others are squashed to `pp.crop` square.

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

  def read_row(row: int):
    index = position(*divmod(row, local_batch))
    if index >= len(source):
      return {'image': blank, 'label': np.int32(0), 'mask': np.False_}
    image, label = _read(source, index)
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
    # Two, as the threads and one batch may be on both sides of an epoch's end.
    self._permutation = functools.lru_cache(2)(self._draw)

  def _draw(self, epoch: int) -> np.ndarray:
    rng = np.random.default_rng([self._seed, _ORDER, epoch])
    return rng.permutation(self._num_examples)

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


def _read(source: sources.Source, index: int) -> tuple[np.ndarray, np.int32]:
  """Returns an example: uint8 [height, width, 3] of any size, and its label."""
  image, label = source.read(index)
  if isinstance(image, bytes):
    image = decode.decode(image, f'{source.name} {source.split} record {index}')
  return image, np.int32(label)


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
) -> grain.DatasetIterator[Any]:
  """Iterates over batches of `read_row(row)`, rows spread over the threads."""
  rows = grain.MapDataset.range(stop * local_batch)[start * local_batch :]
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
