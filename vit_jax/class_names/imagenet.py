"""The 1,000 classes of ImageNet-1k: WordNet IDs and readable names.

NOTICE.md says where they are from and under which licenses.
"""

import collections
import functools
import importlib.resources


def wnids() -> tuple[str, ...]:
  """Returns the WordNet IDs in the order of the labels, as tfds has them."""
  return tuple(_words())


def readable(name: str) -> str:
  """Returns 'tench' for 'n01440764', and whatever is no such ID as it is.

  No two of the 1,000 classes get the same name: what is ambiguous is followed
  by its ID, as in 'crane (n02012849)'.

  Args:
    name: of a class.
  """
  return _names().get(name, name)


@functools.cache
def _words() -> dict[str, str]:
  """Returns the words of each class by its ID, those in front used most."""
  file = importlib.resources.files('vit_jax.class_names') / 'imagenet.tsv'
  lines = file.read_text(encoding='utf-8').splitlines()
  return dict(line.split('\t') for line in lines)


@functools.cache
def _names() -> dict[str, str]:
  first = {wnid: text.split(',')[0] for wnid, text in _words().items()}
  counts = collections.Counter(first.values())
  return {
    wnid: f'{name} ({wnid})' if counts[name] > 1 else name
    for wnid, name in first.items()
  }
