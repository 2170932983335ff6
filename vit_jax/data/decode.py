"""Decodes images to uint8 RGB arrays, crops and resizes them, on the host."""

import io
import math
import re
import warnings

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps

from vit_jax import errors
from vit_jax.data import complaints

# An image of this many pixels takes 400 MB decoded; what claims more is far
# likelier a damaged header or an attack than a picture.
MAX_PIXELS = 2**27

# The pipeline decodes one image a thread; OpenCV's own threads would only
# compete with those.
cv2.setNumThreads(1)
# What these would print about damaged files is raised as DataError.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings('ignore', module=r'PIL\.')

# OpenCV is faster than Pillow, but blends what is transparent in a GIF or TIFF
# with black and takes 12 bits for 16.
_FOR_OPENCV = ('JPEG', 'MPO', 'PNG', 'WEBP')
_JPEG_DAMAGE = re.compile(
  'premature end|bad Huffman|instead of RST|before marker 0xd[0-7]', re.I
)
_CORNERS = ((-1, -1), (-1, 0), (0, -1), (0, 0))
# How what is no readable image begins.
_BEGINNINGS = {
  rb'\s*<(!doctype html|html|head)': 'a web page',
  rb'\s*<(\?xml|svg)': 'XML; drawings such as SVG have no pixels',
  rb'%pdf': 'a PDF',
  rb'version https://git-lfs': 'a pointer of git-lfs: run `git lfs pull`',
  rb'....ftyp(heic|heix|mif1)': 'HEIC: convert it to JPEG or PNG',
  rb'\xff\xd8\xff': 'a damaged or truncated JPEG',
  rb'\x89png': 'a damaged or truncated PNG',
  rb'gif8': 'a damaged or truncated GIF',
  rb'riff....webp': 'a damaged or truncated WebP',
  rb'ii\*\0|mm\0\*': 'a damaged or truncated TIFF, or one of a rare kind',
}


def decode(encoded: bytes, name: str = '') -> np.ndarray:
  """Decodes an image of any common format.

  Grey and palette images become colour, transparency is dropped (the colour
  below it stays), 16 bits are rounded to 8, and an EXIF orientation is applied.

  Args:
    encoded: the bytes of a JPEG, PNG, WebP, BMP, GIF (first frame), ... file.
    name: what to call the image in an error, such as its path.

  Returns:
    uint8 [height, width, 3], RGB.

  Raises:
    DataError: the bytes are no image, a truncated one, one of more than
      `MAX_PIXELS`, or one whose pixels are no numbers of 8 or 16 bits.
  """
  opened = _open(encoded, name)
  image = _decode_with_opencv(encoded) if _suits_opencv(opened) else None
  if image is None:
    return _decode_with_pillow(opened, encoded, name)
  if opened.format in ('JPEG', 'MPO') and _has_grey_corner(image):
    with complaints.overheard() as lines:
      _decode_with_opencv(encoded)
    _check_complaints(lines, encoded, name)
  return _eight_bits(image)


def decode_alone(encoded: bytes, name: str = '') -> np.ndarray:
  """As `decode`, but finds more damage and nothing is printed about it.

  Not for a pipeline: only one thread at a time can find out like this what
  libjpeg says of an image while it fills in what is missing.
  """
  with complaints.overheard() as lines:
    image = decode(encoded, name)
  _check_complaints(lines, encoded, name)
  return image


def shown(name: str) -> str:
  """Returns the name of an image as it can be shown on a line."""
  return (
    name if name and name.isprintable() else repr(name) if name else 'Image'
  )


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


def _open(encoded: bytes, name: str) -> PIL.Image.Image:
  """Reads the header; a small file may claim gigabytes."""
  claims = f'{shown(name)}: the header claims'
  does = f'the {MAX_PIXELS:,} that are decoded. Scale it down or remove it.'
  try:
    opened = PIL.Image.open(io.BytesIO(encoded))
  except (
    PIL.Image.DecompressionBombError,
    PIL.Image.DecompressionBombWarning,
  ) as error:
    raise errors.DataError(f'{claims} far more pixels than {does}') from error
  # Pillow's plugins let many kinds of exception through for damaged files.
  except Exception as error:
    raise _unreadable(encoded, name, _likely(encoded)) from error
  width, height = opened.size
  if width * height > MAX_PIXELS:
    raise errors.DataError(
      f'{claims} {width}x{height} pixels, more than {does}'
    )
  return opened


def _suits_opencv(opened: PIL.Image.Image) -> bool:
  if opened.format == 'TIFF':  # Pillow would cut 16 bits of colour off.
    is_colour = opened.mode in ('RGB', 'RGBA', 'RGBX')
    bits = getattr(opened, 'tag_v2', {}).get(258, (8,))
    return is_colour and max(bits) == 16
  return opened.format in _FOR_OPENCV


def _decode_with_opencv(encoded: bytes) -> np.ndarray | None:
  # Of a TIFF of 16 bits, OpenCV 5.0 makes garbage if asked for RGB.
  is_tiff = encoded[:2] in (b'II', b'MM')
  order = cv2.IMREAD_COLOR_BGR if is_tiff else cv2.IMREAD_COLOR_RGB
  try:
    image = cv2.imdecode(
      np.frombuffer(encoded, np.uint8), order | cv2.IMREAD_ANYDEPTH
    )
  except cv2.error:
    return None
  return image[..., ::-1] if is_tiff and image is not None else image


def _decode_with_pillow(
  opened: PIL.Image.Image, encoded: bytes, name: str
) -> np.ndarray:
  mode, kind = opened.mode, opened.format
  try:
    upright = PIL.ImageOps.exif_transpose(opened)
    # Of integers, those of a PPM are scaled to 16 bits.
    if mode[:4] == 'I;16' or (mode == 'I' and kind == 'PPM'):
      grey = _eight_bits(np.asarray(upright).astype(np.uint16))
      return np.repeat(grey[..., None], 3, axis=2)
    image = np.asarray(upright.convert('RGB'))
  except Exception as error:
    reason = f'a damaged or truncated {kind}: {errors.first_line(error)}'
    raise _unreadable(encoded, name, reason) from error
  if mode in ('I', 'F'):
    kind = {'I': 'integers', 'F': 'floats'}[mode]
    raise errors.DataError(
      f'{shown(name)}: its pixels are {kind} of 32 bits, and nothing says '
      'which of them is white. Save it with 8 or 16 bits.'
    )
  return image


def _eight_bits(image: np.ndarray) -> np.ndarray:
  if image.dtype != np.uint16:
    return image
  return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _has_grey_corner(image: np.ndarray) -> bool:
  """Whether the image may end in the grey that libjpeg makes of missing data.

  Turned by its EXIF orientation, it may end in any corner.
  """
  for y, x in _CORNERS:
    if image.item(y, x, 0) == image.item(y, x, 1) == image.item(y, x, 2) == 128:
      return True
  return False


def _check_complaints(lines: list[str], encoded: bytes, name: str) -> None:
  for line in lines:
    if _JPEG_DAMAGE.search(line):
      raise _unreadable(encoded, name, f'a damaged or truncated JPEG: {line}')


def _likely(encoded: bytes) -> str:
  """Returns what it is that no image begins with."""
  for beginning, kind in _BEGINNINGS.items():
    if re.match(beginning, encoded[:99], re.IGNORECASE | re.DOTALL):
      return kind
  return f'they begin with {encoded[:12]!r}' if encoded else 'an empty file'


def _unreadable(encoded: bytes, name: str, reason: str) -> errors.DataError:
  return errors.DataError(
    f'{shown(name)}: {len(encoded):,} bytes that are not a readable image '
    f'({reason}). Remove the file or replace it by a whole copy.'
  )
