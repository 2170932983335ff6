"""Images in files of their own, listed compactly and read when asked for."""

import dataclasses
import errno
import os
import stat
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax import errors
from vit_jax.data import decode

MAX_BYTES = 2**28  # What is larger is no picture.


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
  """All images of a split.

  Attributes:
    names: their paths, relative to the split's folder.
    prefix: put before the names, they are relative to the data set's.
    classes: names of those that have images here.
    class_index: int [N], of `classes`.
  """

  names: list[str]
  prefix: str
  classes: list[str]
  class_index: np.ndarray


class Paths(Sequence):
  """Where many files are.

  They are one text and an array, not an object each. That takes little memory,
  and processes that get it unpickle it at once.
  """

  def __init__(self, folder: str, names: Sequence[str]):
    """Looks for nothing.

    Args:
      folder: what the names are relative to.
      names: paths of the files.
    """
    self._folder = os.path.abspath(folder)
    encoded = [os.fsencode(name) for name in names]
    self._names = b''.join(encoded)
    self._ends = np.cumsum([0, *map(len, encoded)])

  def __len__(self) -> int:
    return len(self._ends) - 1

  def __getitem__(self, index: Any) -> Any:
    if not 0 <= index < len(self):
      raise IndexError(index)
    name = self._names[self._ends[index] : self._ends[index + 1]]
    return os.path.join(self._folder, os.fsdecode(name))


class Files(Sequence):
  """(encoded image, label) of each of many files, read when asked for."""

  def __init__(self, paths: Paths, labels: np.ndarray):
    self._paths = paths
    self._labels = labels

  def __len__(self) -> int:
    return len(self._paths)

  def __getitem__(self, index: Any):
    return _read(self._paths[index]), int(self._labels[index])


def check_size(path: str, num_bytes: int) -> None:
  """Raises DataError if a file is too large to be an image."""
  if num_bytes > MAX_BYTES:
    raise errors.DataError(
      f'{decode.shown(path)}: {num_bytes:,} bytes, more than the '
      f'{MAX_BYTES:,} that are read of an image. Scale it down or leave it out.'
    )


def _read(path: str) -> bytes:
  """Returns the bytes of a file that was there when it was listed."""
  try:
    with open(path, 'rb', buffering=0) as file:
      found = os.fstat(file.fileno())
      check_size(path, found.st_size)
      if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, 'it is a device or pipe')
      return file.readall()
  except OSError as error:
    raise errors.DataError(
      f"{decode.shown(path)}: this image of the data set can't be read "
      f'({error.strerror}), and was there when the run began. Put it back, or '
      'start again without it.'
    ) from error
