"""The weight files that a directory on this machine has, and which is meant."""

import os
import pathlib

from vit_jax.checkpoints.places import published
from vit_jax.checkpoints.places.addresses import SUFFIXES

_MOST_LISTED = 10


def path_of(text: str) -> pathlib.Path:
  """Returns the path that the user wrote, '~' replaced."""
  return pathlib.Path(os.path.expanduser(text))


def without_a_name(directory: pathlib.Path) -> list[pathlib.Path]:
  """Returns where a directory has its weights if no model is named.

  What a run of ours wrote goes before what other libraries write, and that
  before the only weight file there is.
  """
  return [*_usual(directory), *_only(directory)]


def with_a_name(
  directory: pathlib.Path, names: tuple[str, ...]
) -> list[pathlib.Path]:
  """Returns where a directory has the weights of a name.

  Args:
    directory: that the user named.
    names: of the file, in the order in which they are looked for.
  """
  # ViT-B_16.npz is not the file of a ViT-L_16, however alone it is.
  only = [each for each in _only(directory) if not published.is_name(each.stem)]
  return [
    *(directory / path_of(each) for each in names),
    *_usual(directory),
    *only,
  ]


def has_one_for_all(directory: pathlib.Path) -> bool:
  """Whether a directory gives the same weights whatever their name is."""
  return any(os.path.exists(each) for each in with_a_name(directory, ()))


def describe(directory: pathlib.Path) -> str:
  """Returns which weight files a directory has."""
  files = _weight_files(directory)
  if not files:
    return f'{directory} has no .npz or .safetensors file.'
  listed = ', '.join(files[:_MOST_LISTED])
  more = len(files) - _MOST_LISTED
  after = f' and {more} more' if more > 0 else ''
  return f'{directory} has {listed}{after}: name one of them by its path.'


def _weight_files(directory: pathlib.Path) -> list[str]:
  try:
    found = os.listdir(directory)
  except (OSError, ValueError):
    return []
  return sorted(
    each
    for each in found
    if each.endswith(SUFFIXES) and not each.startswith('.')
  )


def _only(directory: pathlib.Path) -> list[pathlib.Path]:
  files = _weight_files(directory)
  return [directory / files[0]] if len(files) == 1 else []


def _usual(directory: pathlib.Path) -> list[pathlib.Path]:
  files = ('model.npz', 'model.safetensors', 'checkpoints')
  return [directory / each for each in files]
