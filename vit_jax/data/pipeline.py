"""Host batches for training and evaluation: Grain over a random-access source.

Where a batch stands in the stream is a function of its step alone, so resuming
needs nothing but the step: row r of step s of the global batch is position
s * batch + r, and everything random is drawn from (seed, position or epoch).
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from vit_jax import errors
from vit_jax.data import crops, reading, sources, workers

# Steps that no run gets near, while positions still fit into 64 bits.
_ENDLESS = 2**40
# What `config.pp.augment` is where images are cropped by chance.
_CROPS = ('crop_flip', 'crop')
# Rows that a thread reads at once, at most: one by one, Grain takes as long to
# hand them on as it takes to resize them.
_MAX_CHUNK = 8
# Positions whose random numbers are drawn at once.
_BLOCK = 64

Batches = reading.Batches
# Writes the image of a row into an array, appends what was bad to a list, and
# returns the rest of the example.
_ReadRow = Callable[[int, np.ndarray, list[reading.Bad]], dict[str, Any]]


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
  `num_threads` and `num_workers`.

  Args:
    config: with the fields `seed`, `batch` (examples of all processes
      together), `num_threads` (0 reads in the caller's thread), `num_workers`
      (processes that decode instead of threads; 0 for none), `on_bad_image`
      ('fail', or 'skip' to take another in its place), `pp.train` (the split),
      `pp.crop`, `pp.area_range` and `pp.ratio_range` (see
      `crops.random_resized_crop`), `pp.repeats` (how often an example is in a
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
    randomly cropped before that if `pp.augment` is 'crop_flip' (the default)
    or 'crop'.
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

    batches = _batch_iterator(read_batch, start_step, _ENDLESS, config)
    return Batches(batches, source)

  reader = reading.Reader(source, config)
  # Looked up once: a ConfigDict takes microseconds for each.
  pp, seed = config.pp, reading.as_entropy(config.seed)
  size, area_range, ratio_range = pp.crop, pp.area_range, pp.ratio_range
  is_cropped = pp.get('augment', 'crop_flip') in _CROPS

  def read_row(row: int, out: np.ndarray, bad: list[reading.Bad]):
    place = position(*divmod(row, local_batch))
    index = order(place // repeats)
    image, label = reader.read_or_substitute(index, place, bad)
    if is_cropped:
      rng = _crop_rng(seed, place)
      crops.random_resized_crop(rng, image, size, area_range, ratio_range, out)
    else:
      crops.resize_squash(image, size, out)
    return {'label': label}

  if num_workers := config.get('num_workers', 0):
    read = functools.partial(_read_chunk, read_row, local_batch, size)
    steps = grain.MapDataset.range(_ENDLESS)[start_step:]
    batches = workers.Batches(steps.map(read), num_workers)
  else:
    batches = _row_iterator(
      read_row, start_step, _ENDLESS, local_batch, size, config.num_threads
    )
  return Batches(batches, source)


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

  Threads read, never processes: those would take seconds to start for each
  evaluation, or the memory of a second pool.

  Args:
    config: with the fields `batch_eval` (examples of all processes together),
      `num_threads` (if it is 0, `num_workers` threads read), `on_bad_image`,
      `pp.crop` and `pp.test_resize` (0 if it is missing).
    source: what to read.
    process_index: which part of each batch to read, in [0, process_count).
    process_count: number of parts.

  Returns:
    An iterator with `close()`, of {'image': uint8 [local_batch, height, width,
    3], 'label': int32 [local_batch], 'mask': bool [local_batch]}; 'label' is
    int32 [local_batch, max_labels] where the source has several. Images kept in
    memory come as they are; others are squashed to `pp.crop` square, or cut to
    it as `pp.test_resize` says. What is skipped is blank, and `mask` excludes
    it.

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

    batches = _batch_iterator(read_batch, 0, num_batches, config)
    return Batches(batches, source)

  size, no_label = config.pp.crop, np.int32(0)
  test_resize = config.pp.get('test_resize', 0)
  if source.max_labels:
    no_label = np.zeros(source.max_labels, np.int32)
  reader = reading.Reader(source, config)

  def read_row(row: int, out: np.ndarray, bad: list[reading.Bad]):
    index = position(*divmod(row, local_batch))
    example = reader.read(index, bad) if index < len(source) else None
    if example is None:
      out[:] = 0
      return {'label': no_label, 'mask': False}
    if test_resize:
      crops.resize_and_crop(example[0], test_resize, size, out)
    else:
      crops.resize_squash(example[0], size, out)
    return {'label': example[1], 'mask': True}

  num_threads = config.num_threads or config.get('num_workers', 0)
  batches = _row_iterator(
    read_row, 0, num_batches, local_batch, size, num_threads
  )
  return Batches(batches, source)


class _Order:
  """Maps positions in an endless stream to indices, shuffled in each epoch.

  Grain's own shuffle costs 8 microseconds an index, more than all the rest
  that is done for a small image; a permutation per epoch costs next to nothing.
  """

  def __init__(self, num_examples: int, seed: int):
    self._num_examples = num_examples
    self._seed = reading.as_entropy(seed)
    self._drawn: dict[int, np.ndarray] = {}

  def __getstate__(self):
    return self.__dict__ | {'_drawn': {}}  # Worker processes draw their own.

  def _permutation(self, epoch: int) -> np.ndarray:
    drawn = self._drawn.get(epoch)
    if drawn is None:
      rng = np.random.default_rng([self._seed, reading.ORDER, epoch])
      drawn = rng.permutation(self._num_examples)
      # Two, as the threads and one batch may be on both sides of an epoch's
      # end. In one statement, as threads share it.
      self._drawn = {**dict([*self._drawn.items()][-1:]), epoch: drawn}
    return drawn

  def __call__(self, positions):
    """Returns the index for a position, or an array of them for an array."""
    if isinstance(positions, int):
      epoch, offset = divmod(positions, self._num_examples)
      return int(self._permutation(epoch)[offset])
    epochs, offsets = np.divmod(positions, self._num_examples)
    indices = np.empty_like(offsets)
    for epoch in np.unique(epochs):
      here = epochs == epoch
      indices[here] = self._permutation(int(epoch))[offsets[here]]
    return indices


def _position(batch, local_batch, process_index, step, row):
  """Returns where a row of this process's batch is in the global stream."""
  return step * batch + process_index * local_batch + row


@functools.lru_cache(maxsize=64)  # The threads are on few blocks at a time.
def _drawn(seed: int, block: int) -> list[list[float]]:
  """Returns the random numbers of `_BLOCK` positions."""
  rng = np.random.default_rng([seed, reading.CROP, block])
  return rng.random((_BLOCK, crops.MAX_DRAWS)).tolist()


class _Drawn:
  """Gives numbers that are drawn already."""

  def __init__(self, numbers: Sequence[float]):
    self.random: Callable[[], float] = iter(numbers).__next__


def _crop_rng(seed: int, place: int) -> crops.Rng:
  """Returns what is random in a crop, a function of the arguments alone.

  Seeding a generator of its own for each position would take 14 microseconds.
  """
  block, offset = divmod(place, _BLOCK)
  return _Drawn(_drawn(seed, block)[offset])


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
  read_row: _ReadRow,
  start: int,
  stop: int,
  local_batch: int,
  size: int,
  num_threads: int,
) -> grain.DatasetIterator[Any]:
  """Iterates over batches that threads read, a few rows at a time each."""
  chunk = max(n for n in range(1, _MAX_CHUNK + 1) if local_batch % n == 0)
  per_batch = local_batch // chunk
  read = functools.partial(_read_chunk, read_row, chunk, size)
  chunks = grain.MapDataset.range(stop * per_batch)[start * per_batch :]
  options = grain.ReadOptions(
    num_threads=num_threads,
    prefetch_buffer_size=max(2 * per_batch, num_threads),
  )
  dataset = chunks.map(read).to_iter_dataset(options)
  return iter(dataset.batch(per_batch, drop_remainder=True, batch_fn=_join))


def _read_chunk(
  read_row: _ReadRow, num_rows: int, size: int, number: int
) -> dict[str, Any]:
  """Returns rows from `number * num_rows` on, and what was bad among them."""
  images = np.empty((num_rows, size, size, 3), np.uint8)
  bad: list[reading.Bad] = []
  rows = [
    read_row(number * num_rows + i, image, bad)
    for i, image in enumerate(images)
  ]
  others = {key: np.array([row[key] for row in rows]) for key in rows[0]}
  return {'image': images, **others, 'bad': tuple(bad)}


def _join(chunks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  return {
    key: sum((chunk[key] for chunk in chunks), ())
    if key == 'bad'
    else np.concatenate([chunk[key] for chunk in chunks])
    for key in chunks[0]
  }


def _local_batch(field: str, batch: int, process_count: int) -> int:
  if batch % process_count:
    below = batch - batch % process_count
    raise errors.ConfigError(
      f'config.{field} is {batch}, which {process_count} processes do not '
      f'divide. Near sizes that work: {below or process_count}, '
      f'{below + process_count}.'
    )
  return batch // process_count
