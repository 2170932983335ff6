"""Finds the images of a class in its folder, and what is better not read."""

import functools
import os
from collections.abc import Collection, Iterable, Iterator

from absl import logging

from vit_jax import errors
from vit_jax.data import decode, images, splits

_MAX_TOLD = 5  # Of many names in a message.


class Scan:
  """What is found in the class folders of one folder.

  Hidden files and folders are passed over. Symbolic links that lead to within
  the data set are followed, others only if asked for.
  """

  def __init__(self, data_set: str, folder: str, *, follow_links: bool):
    """Looks at nothing yet.

    Args:
      data_set: the folder that links should not lead out of.
      folder: where the class folders are: in it, or itself.
      follow_links: whether links may lead out.
    """
    self._data_set = data_set
    self._inside = os.path.join(os.path.realpath(data_set), '')
    self._folder = folder
    self._follow_links = follow_links
    # Paths; filled by any number of threads.
    self._others: list[str] = []
    self._outside: list[str] = []
    self._broken: list[str] = []

  def classes(self) -> dict[str, list[str]]:
    """Returns {class: its folder's name}, sorted by class.

    Two folders are one class if their names differ in Unicode's forms alone.
    """
    found: dict[str, list[str]] = {}
    if not self._may_follow(self._folder):
      return found
    for entry in _visible(self._folder):
      if not self._is_folder(entry):
        self._others.append(entry.name)
      else:
        try:
          entry.name.encode()
        except UnicodeEncodeError as error:
          raise errors.DataError(
            f'{decode.shown(entry.path)}: the name of this folder, and so of a '
            'class, is not UTF-8. Rename it.'
          ) from error
        found.setdefault(splits.canonical(entry.name), []).append(entry.name)
    return {name: sorted(found[name]) for name in sorted(found)}

  def walk(self, name: str) -> Iterator[str]:
    """Yields the images in a folder and those in it, in no order.

    Each folder is looked into once, however many links lead to it.

    Args:
      name: of the folder, in the one that is scanned.

    Yields:
      Paths that begin with `name`.
    """
    seen = set()
    # Links come last: of two ways to a folder, the name is the direct one's.
    pending, links = [name], []
    while pending or links:
      place = pending.pop() if pending else links.pop()
      path = os.path.join(self._folder, place)
      found = _stat(path)
      if (found.st_dev, found.st_ino) in seen:
        continue
      seen.add((found.st_dev, found.st_ino))
      for entry in _visible(path):
        inner = f'{place}/{entry.name}'
        if entry.is_symlink():
          if self._is_folder(entry):
            links.append(inner)
          elif _is_image(entry.name) and self._is_file(entry.path):
            yield inner
        elif entry.is_dir():
          pending.append(inner)
        elif _is_image(entry.name) and entry.is_file():
          yield inner
        else:
          self._others.append(inner)

  def check_links(self) -> None:
    """Raises DataError if links that were found are refused."""
    shown = decode.shown(self._data_set)
    if self._broken:
      raise errors.DataError(
        f'{shown}: {count(self._broken, "symbolic link")} to nothing: '
        f'{listing(self._broken)}. Mend or remove what leads nowhere.'
      )
    if self._outside:
      raise errors.DataError(
        f'{shown}: {count(self._outside, "symbolic link")} out of the data '
        f'set: {listing(self._outside)}. Remove what leads there, or allow it '
        'by --config.follow_links=True.'
      )

  def report_others(self) -> None:
    """Says what was left out since it is no image."""
    if self._others:
      warn_once(
        f'{decode.shown(self._folder)}: left out '
        f'{count(self._others, "file")} that are no images in a class folder '
        f'({" ".join(images.SUFFIXES)}): {listing(self._others)}.'
      )

  def _is_folder(self, entry: os.DirEntry) -> bool:
    if not entry.is_symlink():
      return entry.is_dir()
    return os.path.isdir(entry.path) and self._may_follow(entry.path)

  def _is_file(self, path: str) -> bool:
    if not os.path.exists(path):
      self._broken.append(os.path.relpath(path, self._data_set))
      return False
    return os.path.isfile(path) and self._may_follow(path)

  def _may_follow(self, path: str) -> bool:
    place = os.path.join(os.path.realpath(path), '')
    if self._follow_links or place.startswith(self._inside):
      return True
    self._outside.append(os.path.relpath(path, self._data_set))
    return False


def folders(path: str) -> list[str]:
  """Returns the names of the folders in one, sorted; hidden ones aside."""
  return sorted(entry.name for entry in _visible(path) if entry.is_dir())


def listing(names: Iterable[str]) -> str:
  """Returns the first few names, as they can be shown on a line."""
  names = sorted(names)
  shown = ', '.join(map(decode.shown, names[:_MAX_TOLD]))
  left = len(names) - _MAX_TOLD
  return f'{shown} and {left:,} more' if left > 0 else shown


def count(names: Collection[str], noun: str) -> str:
  """Returns '1 file' or '2 files'."""
  return f'{len(names):,} {noun}{"s"[: len(names) != 1]}'


@functools.lru_cache(64)
def warn_once(text: str) -> None:
  """Logs what would be said of both splits just once."""
  logging.warning('%s', text)


def _visible(path: str) -> Iterator[os.DirEntry]:
  try:
    with os.scandir(path) as entries:
      for entry in entries:
        if entry.name[0] != '.' and entry.name != '__MACOSX':
          yield entry
  except OSError as error:
    raise errors.DataError(
      f"{decode.shown(path)}: this folder can't be read ({error.strerror}). "
      'Change its permissions, or remove it.'
    ) from error


def _stat(path: str) -> os.stat_result:
  try:
    return os.stat(path)
  except OSError as error:
    raise errors.DataError(
      f"{decode.shown(path)}: can't be read ({error.strerror}). It was there a "
      'moment ago: start again.'
    ) from error


def _is_image(name: str) -> bool:
  return name.lower().endswith(images.SUFFIXES)
