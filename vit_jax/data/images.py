"""Single images from files, directories and the web, as a model sees them."""

import os
import pathlib
import threading
from collections.abc import Iterable

import cv2
import numpy as np

from vit_jax import errors
from vit_jax.data import decode

SUFFIXES = (
  '.bmp', '.gif', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp',
)  # fmt: skip
_FETCH_SECONDS = 10.0
_MAX_FETCHED = 2**28  # Bytes; what sends more is no picture.
_GREY = 128  # The nearest to 0 in [-1, 1].


def find_images(names: Iterable[str]) -> list[str]:
  """Returns the images that files, addresses and directories stand for.

  Args:
    names: kept as they are, but for a directory, which stands for the files in
      it whose names end in one of `SUFFIXES`, in the order of their names.

  Raises:
    DataNotFoundError: there are none in a directory.
  """
  found = []
  for name in names:
    if not os.path.isdir(name):
      found.append(name)
      continue
    inside = sorted(
      str(path)
      for path in pathlib.Path(name).iterdir()
      if path.suffix.lower() in SUFFIXES and path.name[0] != '.'
    )
    if not inside:
      raise errors.DataNotFoundError(
        f'{name}: no file in this directory ends in one of '
        f'{", ".join(SUFFIXES)}. Directories in it are not looked into.'
      )
    found += inside
  return found


def read_image(name: str) -> np.ndarray:
  """Reads one image, of any of the kinds of `decode.decode`.

  Args:
    name: a file, or an address that begins with http:// or https://.

  Returns:
    uint8 [height, width, 3], RGB, upright.

  Raises:
    DataNotFoundError: there is no such file.
    DataError: it is no image, can not be read, or comes not in ten seconds.
  """
  if is_address(name):
    return decode.decode(_fetch(name), name)
  try:
    encoded = pathlib.Path(name).read_bytes()
  except FileNotFoundError as error:
    raise errors.DataNotFoundError(
      f'{name}: there is no such file. Give a file, a directory or an address '
      'that begins with https://.'
    ) from error
  except OSError as error:
    raise errors.DataError(
      f'{name}: can not be read ({error.strerror}).'
    ) from error
  return decode.decode(encoded, name)


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


def _fetch(url: str) -> bytes:
  """Returns what is at an address, or raises DataError within ten seconds."""
  # No timeout of requests' is one for looking up a name, nor for the whole of
  # an answer that trickles. A daemon is not waited for at exit.
  result: list[bytes | Exception] = []
  thread = threading.Thread(
    target=lambda: result.append(_get(url)), daemon=True
  )
  thread.start()
  thread.join(_FETCH_SECONDS)
  found = result[0] if result else TimeoutError(
    f'not all of it came in {_FETCH_SECONDS:g} seconds'
  )  # fmt: skip
  if isinstance(found, Exception):
    raise errors.DataError(
      f'{url}: can not be fetched ({_reason(found)}). Download the image '
      'by other means and give the file.'
    ) from found
  return found


def _reason(error: Exception) -> str:
  """Returns what is wrong, without what was tried how often to reach it."""
  inner = error.args[0] if error.args else error
  text = errors.first_line(getattr(inner, 'reason', None) or error)
  return text.rpartition('): ')[2]  # "HTTPSConnection(host=...): Failed to".


def _get(url: str) -> bytes | Exception:
  import requests

  try:
    with requests.get(url, stream=True, timeout=_FETCH_SECONDS) as response:
      response.raise_for_status()
      content = bytearray()
      for chunk in response.iter_content(1 << 16):
        content += chunk
        if len(content) > _MAX_FETCHED:
          return ValueError(f'more than {_MAX_FETCHED:,} bytes')
      return bytes(content)
  # It is told in the thread that waits; an address can fail in many ways.
  except Exception as error:
    return error
