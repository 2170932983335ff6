"""Single images from files, directories and the web, as a model sees them."""

import os
import re
import stat
from collections.abc import Iterable

import cv2
import numpy as np

from vit_jax import errors
from vit_jax.data import decode, files, web

SUFFIXES = (
  '.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp',
)  # fmt: skip
_GREY = 128  # The nearest to 0 in [-1, 1].

_SCHEME = re.compile(r'[a-z][a-z0-9+.-]+://', re.IGNORECASE)


def find_images(names: Iterable[str]) -> list[str]:
  """Returns the images that files, addresses and directories stand for.

  Args:
    names: kept as they are, but for a directory, which stands for the files in
      it whose names end in one of `SUFFIXES`, in the order of their names.

  Returns:
    Each once, where it is named first.

  Raises:
    DataNotFoundError: there are none in a directory.
    DataError: a directory can't be read.
  """
  found: dict[str, str] = {}
  for name in names:
    inside = _images_in(name) if os.path.isdir(name) else [name]
    for each in inside:
      found.setdefault(each if _SCHEME.match(each) else _place(each), each)
  return list(found.values())


def read_image(name: str) -> np.ndarray:
  """Reads one image, of any of the kinds of `decode.decode`.

  Args:
    name: a file, or an address that begins with http:// or https://.

  Returns:
    uint8 [height, width, 3], RGB, upright.

  Raises:
    DataNotFoundError: there is no such file.
    DataError: it is no image, a damaged one, can not be read, or comes not in
      ten seconds; or it is an address, and `VIT_JAX_OFFLINE` or
      `HF_HUB_OFFLINE` is 1.
  """
  if is_address(name):
    encoded = web.fetch(name, files.MAX_BYTES)
  else:
    encoded = _read(name)
  return decode.decode_alone(encoded, name)


def is_address(name: str) -> bool:
  """Tells whether `name` is to be fetched."""
  return name.lower().startswith(('http://', 'https://'))


def fit_image(
  image: np.ndarray, size: tuple[int, int], fit: str = 'crop'
) -> np.ndarray:
  """Returns an image of the size that a model takes.

  Resized as for evaluation: bilinear, half-pixel centres, no antialiasing.

  Args:
    image: uint8 [height, width, 3].
    size: (height, width) in pixels.
    fit: 'crop' takes the largest box in the middle, 'squash' changes the aspect
      ratio, 'pad' puts mid-grey around.

  Returns:
    uint8 [*size, 3].

  Raises:
    ConfigError: another `fit`.
  """
  if fit not in FITS:
    raise errors.ConfigError(errors.unknown_name('fit', str(fit), FITS))
  return FITS[fit](image, size)


def parse_size(text: str) -> int | tuple[int, int]:
  """Returns the image size that '224' or '224x320', height first, means.

  Raises:
    ConfigError: it is no such text.
  """
  found = re.fullmatch(r'([1-9]\d*)(?:x([1-9]\d*))?', text)
  if not found:
    raise errors.ConfigError(
      f'image size {text!r} is neither a side in pixels, such as 224, nor a '
      'height and a width, such as 224x320.'
    )
  height, width = found.groups()
  return (int(height), int(width)) if width else int(height)


def _crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  height, width = image.shape[:2]
  scale = min(height / size[0], width / size[1])
  # Of a very long image not even a pixel might be left.
  box = [max(1, round(side * scale)) for side in size]
  top, left = (height - box[0]) // 2, (width - box[1]) // 2
  return _squash(image[top : top + box[0], left : left + box[1]], size)


def _squash(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  return cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)


def _pad(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  height, width = image.shape[:2]
  scale = min(size[0] / height, size[1] / width)
  inner = max(1, round(height * scale)), max(1, round(width * scale))
  top, left = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
  padded = np.full((*size, 3), _GREY, np.uint8)
  padded[top : top + inner[0], left : left + inner[1]] = _squash(image, inner)
  return padded


FITS = {'crop': _crop, 'squash': _squash, 'pad': _pad}


def _images_in(directory: str) -> list[str]:
  try:
    inside = [
      os.path.join(directory, name)
      for name in sorted(os.listdir(directory))
      if name.lower().endswith(SUFFIXES) and name[0] != '.'
    ]
  except OSError as error:
    raise errors.DataError(
      f'{decode.shown(directory)}: this directory can not be read '
      f'({error.strerror}). Change its permissions or give its files.'
    ) from error
  inside = [path for path in inside if not os.path.isdir(path)]
  if not inside:
    raise errors.DataNotFoundError(
      f'{decode.shown(directory)}: no file in this directory ends in one of '
      f'{", ".join(SUFFIXES)}. Directories in it are not looked into.'
    )
  return inside


def _place(path: str) -> str:
  """Returns where a file is; not of what it may be a link to."""
  directory, name = os.path.split(os.path.abspath(path))
  return os.path.join(os.path.realpath(directory), name)


def _read(path: str) -> bytes:
  shown = decode.shown(path)
  if _SCHEME.match(path):
    raise errors.DataError(
      f'{shown}: images are fetched from http:// and https:// alone. Copy it '
      'here and give the file.'
    )
  try:
    found = os.stat(path)
    # Others, such as a pipe, may keep a reader waiting for ever.
    if not stat.S_ISREG(found.st_mode):
      kind = 'a directory' if os.path.isdir(path) else 'a device or pipe'
      raise errors.DataError(
        f'{shown}: can not be read as an image (it is {kind}). Give a file.'
      )
    files.check_size(path, found.st_size)
    with open(path, 'rb') as file:
      return file.read()
  except FileNotFoundError as error:
    if os.path.islink(path):
      raise errors.DataNotFoundError(
        f'{shown}: a link to {decode.shown(os.readlink(path))}, and there is '
        'no such file. Give the file itself.'
      ) from error
    raise errors.DataNotFoundError(
      f'{shown}: there is no such file. Give a file, a directory or an address '
      'that begins with https://.'
    ) from error
  except OSError as error:
    raise errors.DataError(
      f'{shown}: can not be read ({error.strerror}). Give a file that can.'
    ) from error
