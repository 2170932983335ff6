"""Makes folders of tiny images, and loads them."""

import os
import pathlib

import numpy as np
import PIL.Image
from ml_collections import ConfigDict

from vit_jax.data import folder


def add(path: pathlib.Path, grey: int = 0, kind: str = 'PNG') -> None:
  """Writes an image, and the folders that it is in."""
  path.parent.mkdir(parents=True, exist_ok=True)
  image = PIL.Image.fromarray(np.full((5, 7, 3), grey, np.uint8))
  image.save(path, kind)


def add_classes(path: pathlib.Path, **counts: int) -> None:
  """Writes folders of so many images, which get lighter from one to another."""
  for name, count in counts.items():
    for index in range(count):
      add(path / name / f'{index}.png', index)


def make_config(path, train='train', test='test', **fields) -> ConfigDict:
  return ConfigDict(
    {
      'dataset': str(path),
      'follow_links': False,
      'pp': {'train': train, 'test': test},
      **fields,
    }
  )


def load(path, split='train', **fields):
  """Returns a split; `fields` are those of `make_config`."""
  return folder.load_source(make_config(path, **fields), split)


def relative_paths(source, path) -> list[str]:
  return [os.path.relpath(found, path) for found in source.paths]
