"""Decodes images to uint8 RGB arrays, crops and resizes them, on the host."""

import io
import math

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps

from vit_jax import errors

# An image of this many pixels takes 400 MB decoded; what claims more is far
# likelier a damaged header or an attack than a picture.
MAX_PIXELS = 2**27

# The pipeline decodes one image a thread; OpenCV's own threads would only
# compete with those.
cv2.setNumThreads(1)
# What it would print about damaged files is raised as DataError.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode(encoded: bytes, name: str = '') -> np.ndarray:
  """Decodes an image of any common format.

  Grey and palette images become colour, transparency is dropped (the colour
  below it stays), 16 bits become 8, and an EXIF orientation is applied.

  Args:
    encoded: the bytes of a JPEG, PNG, WebP, BMP, GIF (first frame), ... file.
    name: what to call the image in an error, such as its path.

  Returns:
    uint8 [height, width, 3], RGB.

  Raises:
    DataError: the bytes are no image, or one of more than `MAX_PIXELS`.
  """
  _check_size(encoded, name)
  try:
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
  except cv2.error:  # Raised for an empty buffer, among others.
    image = None
  return image if image is not None else _decode_with_pillow(encoded, name)


def resize_squash(image: np.ndarray, size: int) -> np.ndarray:
  """Resizes to a square without keeping the aspect ratio.

  Bilinear with half-pixel centres and no antialiasing, which is what
  `tf.image.resize` does and the published weights were evaluated with.

  Args:
    image: uint8 [height, width, channels].
    size: side of the result in pixels.

  Returns:
    uint8 [size, size, channels].
  """
  return cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)


def random_resized_crop(
  rng: np.random.Generator,
  image: np.ndarray,
  size: int,
  area_range: tuple[float, float] = (0.05, 1.0),
  ratio_range: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
  """Cuts out a random box and resizes it to a square (Szegedy et al. 2015).

  Args:
    rng: the source of all randomness.
    image: uint8 [height, width, channels].
    size: side of the result in pixels.
    area_range: smallest and largest share of the image's area, in (0, 1].
    ratio_range: smallest and largest width over height; drawn log-uniformly,
      so that upright and lying boxes are equally likely.

  Returns:
    uint8 [size, size, channels].
  """
  height, width = image.shape[:2]
  top, left, height, width = _random_box(
    rng, height, width, area_range, ratio_range
  )
  return resize_squash(image[top : top + height, left : left + width], size)


def _random_box(rng, image_height, image_width, area_range, ratio_range):
  """Returns (top, left, height, width) of a box inside the image."""
  for _ in range(10):  # A long image rejects many boxes, but rarely ten.
    area = rng.uniform(*area_range) * image_height * image_width
    ratio = math.exp(rng.uniform(*np.log(ratio_range)))
    width = round(math.sqrt(area * ratio))
    height = round(math.sqrt(area / ratio))
    if 0 < width <= image_width and 0 < height <= image_height:
      top = rng.integers(image_height - height + 1)
      left = rng.integers(image_width - width + 1)
      return top, left, height, width
  return 0, 0, image_height, image_width


def _check_size(encoded: bytes, name: str):
  """Raises DataError if the header claims more pixels than `MAX_PIXELS`.

  A small file may claim gigabytes, so this must come before decoding.
  """
  try:
    with PIL.Image.open(io.BytesIO(encoded)) as header:
      width, height = header.size
  except (
    PIL.Image.DecompressionBombError,
    PIL.Image.DecompressionBombWarning,
  ) as error:
    raise errors.DataError(f'{name or "Image"}: {error}') from error
  except Exception:  # Pillow can't read it; OpenCV has a limit of its own.
    return
  if width * height > MAX_PIXELS:
    raise errors.DataError(
      f'{name or "Image"}: the header claims {width}x{height} pixels, more '
      f'than the {MAX_PIXELS} that are decoded. Remove the file or scale it '
      'down.'
    )


def _decode_with_pillow(encoded: bytes, name: str) -> np.ndarray:
  try:
    with PIL.Image.open(io.BytesIO(encoded)) as image:
      upright = PIL.ImageOps.exif_transpose(image)
      return np.asarray(upright.convert('RGB'))
  # Pillow's plugins let many kinds of exception through for damaged files.
  except Exception as error:
    raise errors.DataError(
      f'{name or "Image"}: {len(encoded)} bytes that are not a readable image '
      f'({error}). Remove the file or replace it by a whole copy.'
    ) from error
