"""Small sources to make batches of, whole or with bad images."""

import itertools

import cv2
import numpy as np
from ml_collections import ConfigDict

from vit_jax.data import pipeline, sources

N = 23  # Examples; the batch of 4 below doesn't divide it.


def config(**changes):
  fields = ConfigDict(
    {
      'seed': 5,
      'batch': 4,
      'batch_eval': 8,
      'num_threads': 1,
      'pp': {
        'crop': 6,
        'area_range': (0.3, 1.0),
        'ratio_range': (3 / 4, 4 / 3),
      },
    }
  )
  fields.update(changes)
  return fields


def in_memory():
  rng = np.random.default_rng(0)
  return sources.Source(
    name='small',
    split='train',
    class_names=('a',) * N,
    labels=np.arange(N, dtype=np.int32),
    images=rng.integers(256, size=(N, 3, 5, 3)).astype(np.uint8),
  )


def encoded():
  """Images of several sizes, with the index as the label."""
  rng = np.random.default_rng(0)
  records = []
  for index in range(N):
    image = rng.integers(256, size=(9 + index, 13, 3)).astype(np.uint8)
    records.append((cv2.imencode('.png', image)[1].tobytes(), index))
  return sources.Source('large', 'train', ('a',) * N, records=records)


SOURCES = {'in_memory': in_memory(), 'encoded': encoded()}


def take(fields, start, count, kind='in_memory', **process):
  batches = pipeline.train_batches(fields, start, SOURCES[kind], **process)
  taken = list(itertools.islice(batches, count))
  batches.close()
  return taken


def assert_same(first, second):
  assert len(first) == len(second)
  for one, other in zip(first, second, strict=True):
    assert one.keys() == other.keys()
    for key in one:
      np.testing.assert_array_equal(one[key], other[key])


def with_bad(bad, count=N):
  """A source in which some images are cut short."""
  records = [SOURCES['encoded'].records[i % N] for i in range(count)]
  for index in bad:
    records[index] = (records[index][0][:40], index)
  records = [(image, i) for i, (image, _) in enumerate(records)]
  return sources.Source('some', 'train', ('a',) * count, records=records)


def steps_with_bad(fields, bad, count=N):
  """Returns the first step that has each bad image, if none is skipped."""
  whole = pipeline.train_batches(fields, 0, with_bad([], count))
  stream = np.concatenate(
    [batch['label'] for batch in itertools.islice(whole, -(-count // 4))]
  )
  return [int(np.flatnonzero(stream == index)[0]) // 4 for index in bad]
