"""Whether splits are written as splits are, before any data is opened."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from vit_jax import errors
from vit_jax.data import eval_sets, overlaps, paths
from vit_jax.data import splits as by_hash

# What each part of a split is to tfds, which knows better where it opens it.
_BOUND = r'(-?\d[\d_.]*(%|shard)?)?'
_PART = re.compile(rf'[\w-]+(\[(?!\]){_BOUND}(:{_BOUND})?\])?')
# Others have splits that only opening them tells.
_NAMES: dict[str, tuple[str, ...]] = dict.fromkeys(
  ('cifar10', 'cifar100', 'digits'), ('train', 'test')
)


def problems(config: Any, unread: Collection[str]) -> list[str]:
  """Returns which splits can't be, as far as their texts tell.

  Args:
    config: all of whose fields are of the right types.
    unread: fields whose values there mean nothing.
  """
  own = '' if 'dataset' in unread else config.dataset
  found = []
  for field in ('pp.train', 'pp.test'):
    split = config.pp[field.removeprefix('pp.')]
    if field not in unread and split:
      found += _split_problems(f'config.{field}', own, split)
  try:
    sets = eval_sets.parse(config.eval_sets)
  except errors.ConfigError:  # That is said elsewhere.
    sets = {}
  for name, (dataset, split) in sets.items():
    where = f'config.eval_sets, {name}'
    found += _split_problems(where, dataset or own, split)
  return found


def _split_problems(where: str, dataset: str, split: str) -> Iterator[str]:
  if paths.is_path(dataset):
    try:
      by_hash.parse(split, where)
    except errors.ConfigError as error:
      yield str(error)
    return
  parts = [part.strip() for part in split.split('+')]
  if not all(map(_PART.fullmatch, parts)):
    yield (
      f"{where}: split {split!r} is malformed. Expected the like of 'train', "
      "'train[:98%]' or 'train[500:]+test'."
    )
  names = _NAMES.get(overlaps.base_name(dataset), ())
  for part in parts:
    name = part.partition('[')[0].strip()
    if names and name and name not in (*names, 'all'):
      text = errors.unknown_name('split', name, names)
      yield f'{where}: Data set {dataset!r}: {text}'
