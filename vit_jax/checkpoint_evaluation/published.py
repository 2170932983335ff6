"""Published accuracies of published fine-tuned weights, and their sources."""

import csv
import dataclasses
import functools
import importlib.resources
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from vit_jax import errors
from vit_jax.checkpoints import locate
from vit_jax.checkpoints.places import published

_INDEX = 'index.csv'
# What an AugReg file of fine-tuned weights has in its name, and no other.
_TUNED = '--'
# Evaluated on, where the split is not told: big_vision's and the original's.
_TEST_SPLITS = {'imagenet2012': 'validation'}


@dataclasses.dataclass(frozen=True)
class Figure:
  """An accuracy that was published.

  Attributes:
    accuracy: a share in [0, 1].
    dataset: a tfds name.
    split: of it.
    image_size: side in pixels.
    source: who says so.
    where: where that can be read.
    preprocessing: how the images were made that small, where it is not as here
      and known; ''.
  """

  accuracy: float
  dataset: str
  split: str
  image_size: int
  source: str
  where: str
  preprocessing: str = ''


def find_figure(checkpoint: str, path: str) -> Figure | None:
  """Returns what was published of weights, None where nothing is known.

  That is in `published.json`, or, for the tens of thousands of AugReg files, in
  an `index.csv` beside the file or in the cache, its 'adapt_final_test'. It
  goes by the names of weights and says nothing of what a file has inside.

  Args:
    checkpoint: what the user calls the weights.
    path: the file.
  """
  names = {name for text in (checkpoint, path) for name in _names(text)}
  table = _table()
  for row in table['figures']:
    if row['weights'] in names:
      source = table['sources'][row['source']]
      return Figure(
        row['accuracy'],
        table['dataset'],
        table['split'],
        row['image_size'],
        source['name'],
        source['where'],
        source.get('preprocessing', ''),
      )
  return _of_index(path)


@functools.cache
def _table() -> Mapping[str, Any]:
  package = importlib.resources.files('vit_jax.checkpoint_evaluation')
  return json.loads((package / 'published.json').read_text(encoding='utf-8'))


def _names(text: str) -> Iterator[str]:
  """Yields what published weights are called that a text may stand for.

  They are 'vit_models/UPSTREAM/NAME.npz' and 'timm/REPOSITORY'.
  """
  place = text.partition('#')[0].partition('@')[0].rstrip('/')
  plain = published.without_suffix(place)
  upstream, name = published.split_upstream(plain)
  stem = os.path.basename(plain)
  parts = place.split('/')
  for row in published.PUBLISHED.items():
    for weights in (each for some in row[1].values() for each in some):
      file = published.without_suffix(weights.file)
      repo = f'timm/{weights.repo.rpartition("/")[2]}' if weights.repo else ''
      if (
        (upstream == row[0] and weights in published.find(name, upstream)[:1])
        or (file and f'/{plain}'.endswith(f'/{file}'))
        # These say all in their names; 'ViT-B_16' may be one of many.
        or (_TUNED in stem and stem == os.path.basename(file))
        or (repo and repo.removeprefix('timm/') in parts)
      ):
        yield weights.file
        yield repo
  if _TUNED in stem:
    yield f'vit_models/augreg/{stem}.npz'


def _of_index(path: str) -> Figure | None:
  stem = published.without_suffix(os.path.basename(path))
  if _TUNED not in stem:
    return None
  try:
    index = locate.locate_file(_INDEX, os.path.dirname(path), offline=True)
    with open(index, newline='', encoding='utf-8', errors='replace') as file:
      for row in csv.DictReader(file):
        if row.get('adapt_filename') == stem:
          return _of_row(row)
  except (errors.CheckpointNotFoundError, OSError, ValueError, csv.Error):
    return None  # It is an addition, as class names are.
  return None


def _of_row(row: Mapping[str, str]) -> Figure | None:
  accuracy = float(row['adapt_final_test'])
  if not 0 <= accuracy <= 1:  # Not a number, either.
    return None
  dataset = row['adapt_ds']
  return Figure(
    accuracy,
    dataset,
    _TEST_SPLITS.get(dataset, 'test'),
    int(float(row['adapt_resolution'])),
    "AugReg's index.csv",
    'gs://vit_models/augreg/index.csv, adapt_final_test',
  )
