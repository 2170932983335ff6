"""Reads examples, and skips bad ones, which are counted over a whole run."""

import dataclasses
import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from absl import logging

from vit_jax import errors
from vit_jax.data import decode, sources

# Keeps the uses of the seed apart: the order, the crops, and what stands in for
# a bad image.
ORDER, CROP, _SUBSTITUTE = 0, 1, 2
# Bad images that may be skipped: one in so many, but one in any case.
_ONE_BAD_IN = 1000
_NUM_NAMED = 5
# So many substitutes that are all bad are no chance: one in a thousand may be.
_MAX_SUBSTITUTES = 64


@dataclasses.dataclass(frozen=True)
class Bad:
  """An image that was skipped.

  Attributes:
    index: in its source.
    reason: what is wrong with it, and its name.
  """

  index: int
  reason: str


class Reader:
  """Reads and decodes examples, and skips bad ones where that is asked for."""

  def __init__(self, source: sources.Source, config: Any):
    self._source = source
    self._skips = config.get('on_bad_image', 'fail') == 'skip'
    self._seed = as_entropy(config.get('seed', 0))

  def read(
    self, index: int, bad: list[Bad] | None = None
  ) -> tuple[np.ndarray, Any] | None:
    """Returns uint8 [height, width, 3] of any size and its int32 label.

    None stands for a bad image that is skipped, and is appended to `bad`.

    Raises:
      DataError: a bad image, unless those are skipped.
    """
    try:
      image, label = self._source.read(index)
      if isinstance(image, bytes):
        image = decode.decode(image, self._source.describe(index))
    except errors.DataError as error:
      if not self._skips or bad is None:
        raise
      bad.append(Bad(index, str(error)))
      return None
    return image, np.int32(label)

  def read_or_substitute(
    self, index: int, place: int, bad: list[Bad]
  ) -> tuple[np.ndarray, Any]:
    """Returns an example; for a bad one another, which `place` decides on."""
    example = self.read(index, bad)
    if example is not None:
      return example
    rng = np.random.default_rng([self._seed, _SUBSTITUTE, place])
    for other in rng.integers(len(self._source), size=_MAX_SUBSTITUTES):
      example = self.read(int(other), bad)
      if example is not None:
        return example
    raise errors.DataError(
      f'{_MAX_SUBSTITUTES} images of {self._source.name!r} '
      f'{self._source.split}, drawn at random, are all bad. The last is\n'
      f'  {bad[-1].reason}\nMend or remove them.'
    )


class Batches:
  """Batches on their way out, where the bad images in them are counted.

  Here and not where they are read, which may be in several processes: whether
  and where too many are found is then the same for any number of those.
  """

  def __init__(self, batches: Iterator[dict[str, Any]], source: sources.Source):
    """Takes over `batches`, which `close` closes.

    Args:
      batches: {'image': ..., 'label': ...}; maybe with 'bad', a tuple of `Bad`.
      source: what they are of.
    """
    self._batches: Any = batches
    self._source = source

  def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
    return self

  def __next__(self) -> dict[str, np.ndarray]:
    """Returns the next batch.

    Raises:
      DataError: a bad image, too many of those that are skipped, or a process
        that has died.
    """
    batch = next(self._batches)
    if bad := batch.pop('bad', ()):
      _count(bad, self._source)
    return batch

  def close(self) -> None:
    """Ends the threads or processes that read."""
    self._batches.close()


# What is wrong, by index, of each source, as long as that lives: it may be read
# many times in a run.
_all_bad: weakref.WeakKeyDictionary[sources.Source, dict[int, str]]
_all_bad = weakref.WeakKeyDictionary()
_counting = threading.Lock()


def _count(bad: Iterable[Bad], source: sources.Source) -> None:
  """Warns of images that are newly found; DataError if they are too many."""
  total = len(source)
  limit = max(1, total // _ONE_BAD_IN)
  with _counting:
    known = _all_bad.setdefault(source, {})
    for image in bad:
      if image.index in known:
        continue
      known[image.index] = image.reason
      if len(known) <= limit:
        logging.warning(
          'Skipped (%d of %d images): %s', len(known), total, image.reason
        )
    count, reasons = len(known), [*known.values()][:_NUM_NAMED]
  if count > limit:
    named = '\n'.join(f'  {reason}' for reason in reasons)
    raise errors.DataError(
      f'{count} of the {total:,} images of {source.name!r} {source.split} are '
      f'bad, more than one in {_ONE_BAD_IN:,}; the first are\n{named}\nMend or '
      'remove them.'
    )


def as_entropy(seed: int) -> int:
  """Returns a seed that numpy takes: a negative one is as good as any."""
  return seed % 2**64
