"""Random crops and resizing of single images on the host, before batching."""

import math
from typing import Protocol

import cv2
import numpy as np

# A long image rejects many boxes, but rarely ten.
_MAX_BOXES = 10
# Two numbers a box, and two for where it is.
MAX_DRAWS = 2 * _MAX_BOXES + 2


class Rng(Protocol):
  """What gives numbers uniform in [0, 1), such as numpy's generators."""

  def random(self) -> float: ...


def resize_squash(
  image: np.ndarray, size: int, out: np.ndarray | None = None
) -> np.ndarray:
  """Resizes to a square without keeping the aspect ratio.

  Bilinear with half-pixel centres and no antialiasing, which is what
  `tf.image.resize` does and the published weights were evaluated with.

  Args:
    image: uint8 [height, width, channels].
    size: side of the result in pixels.
    out: where to put it, uint8 [size, size, channels]; None for a new array.

  Returns:
    uint8 [size, size, channels].
  """
  return cv2.resize(image, (size, size), out, interpolation=cv2.INTER_LINEAR)


def resize_and_crop(
  image: np.ndarray, shorter: int, size: int, out: np.ndarray | None = None
) -> np.ndarray:
  """Cuts the middle out of an image resized with its aspect ratio kept.

  Averages over the pixels that become one, which is what big_vision evaluates
  with (`resize_small`, `central_crop`); where there are too few, bilinear.

  Args:
    image: uint8 [height, width, channels].
    shorter: pixels of its shorter side once it is resized.
    size: side of the result in pixels, at most `shorter`.
    out: where to put it, uint8 [size, size, channels]; None for a new array.

  Returns:
    uint8 [size, size, channels].
  """
  sides = image.shape[:2]
  scale = shorter / min(sides)
  height, width = (round(side * scale) for side in sides)
  method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
  resized = cv2.resize(image, (width, height), interpolation=method)
  top, left = (height - size) // 2, (width - size) // 2
  middle = resized[top : top + size, left : left + size]
  if out is None:
    return middle.copy()
  out[:] = middle
  return out


def random_resized_crop(
  rng: Rng,
  image: np.ndarray,
  size: int,
  area_range: tuple[float, float] = (0.05, 1.0),
  ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
  out: np.ndarray | None = None,
) -> np.ndarray:
  """Cuts out a random box and resizes it to a square (Szegedy et al. 2015).

  Args:
    rng: the source of all randomness, asked for `MAX_DRAWS` numbers at most.
    image: uint8 [height, width, channels].
    size: side of the result in pixels.
    area_range: smallest and largest share of the image's area, in (0, 1].
    ratio_range: smallest and largest width over height; drawn log-uniformly,
      so that upright and lying boxes are equally likely.
    out: where to put it, uint8 [size, size, channels]; None for a new array.

  Returns:
    uint8 [size, size, channels].
  """
  height, width = image.shape[:2]
  top, left, height, width = _random_box(
    rng, height, width, area_range, ratio_range
  )
  box = image[top : top + height, left : left + width]
  return resize_squash(box, size, out)


def _random_box(rng, image_height, image_width, area_range, ratio_range):
  """Returns (top, left, height, width) of a box inside the image."""
  # In floats of Python: numpy's take several times as long, one by one.
  smallest, largest = (
    share * image_height * image_width for share in area_range
  )
  narrowest, widest = map(math.log, ratio_range)
  for _ in range(_MAX_BOXES):
    area = smallest + (largest - smallest) * rng.random()
    ratio = math.exp(narrowest + (widest - narrowest) * rng.random())
    width = round(math.sqrt(area * ratio))
    height = round(math.sqrt(area / ratio))
    if 0 < width <= image_width and 0 < height <= image_height:
      top = int(rng.random() * (image_height - height + 1))
      left = int(rng.random() * (image_width - width + 1))
      return top, left, height, width
  return 0, 0, image_height, image_width
