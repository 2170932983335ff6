"""Decodes images of any common format to uint8 RGB arrays, on the host."""

import io
import logging
import re
import warnings

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps

from vit_jax import errors
from vit_jax.data import complaints, structure

# An image of this many pixels takes 400 MB decoded; what claims more is far
# likelier a damaged header or an attack than a picture.
MAX_PIXELS = 2**27
# So does what claims far more than any format can store in its bytes, unless it
# is so small that it doesn't matter.
_PIXELS_IN_A_BYTE, _FEW_PIXELS = 2**14, 2**24

# The pipeline decodes one image a thread; OpenCV's own threads would only
# compete with those.
cv2.setNumThreads(1)
# What these would print about damaged files is raised as DataError.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
warnings.filterwarnings('ignore', module=r'PIL\.')
logging.getLogger('PIL').setLevel(logging.CRITICAL)

# OpenCV is faster than Pillow, but blends what is transparent in a GIF or TIFF
# with black and takes 12 bits for 16. Of a PNG it prints whatever libpng finds
# odd, such as a colour profile, so that it gets the plain ones.
_FOR_OPENCV = ('JPEG', 'MPO', 'WEBP')
_JPEG_DAMAGE = re.compile(
  'premature end|bad Huffman|instead of RST|before marker 0xd[0-7]', re.I
)
_TIMES_TO_LISTEN = 3
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

  An image that was cut short is an error. Not noticed is damage of which only
  libjpeg tells, by printing: a JPEG that lost bytes in the middle, and a
  progressive one that was cut within its last scan and yet ends in a mark of
  the end. That scan, about a third of the file, has the last bits of the
  details; an image without all of it differs by up to 7 of 255 in the mean.
  `decode_alone` finds both. Here it would take a second decoding or let one
  thread decode at a time. For the same reason, what libjpeg and libtiff say of
  damaged data appears on the standard error; nothing else is printed.

  Args:
    encoded: the bytes of a JPEG, PNG, WebP, BMP, GIF (first frame), ... file.
    name: what to call the image in an error, such as its path.

  Returns:
    uint8 [height, width, 3], RGB.

  Raises:
    DataError: the bytes are no image, a truncated one, one of more than
      `MAX_PIXELS` or of far more than its bytes can hold, or one whose pixels
      are no numbers of 8 or 16 bits.
  """
  opened = _open(encoded, name)
  image = None
  if _has_deep_colour(opened, encoded):
    plain = encoded if opened.format == 'TIFF' else structure.plain_png(encoded)
    with complaints.overheard():  # Rare enough for one at a time.
      image = None if plain is None else _decode_with_opencv(plain)
  elif opened.format in _FOR_OPENCV or structure.is_plain_png(encoded):
    image = _decode_with_opencv(encoded)
  if image is None:
    return _decode_with_pillow(opened, encoded, name)
  if _may_be_cut(opened, encoded, image):
    _check_complaints(_complaints_about(encoded), encoded, name)
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
  if width * height > max(_FEW_PIXELS, len(encoded) * _PIXELS_IN_A_BYTE):
    reason = f'damaged: the header claims {width}x{height} pixels'
    raise _unreadable(encoded, name, reason)
  return opened


def _has_deep_colour(opened: PIL.Image.Image, encoded: bytes) -> bool:
  """Whether it is a kind whose 16 bits of colour Pillow would cut off."""
  if opened.format == 'PNG':  # Its header is always in the same place.
    depth, kind = encoded[24:26]
    return depth == 16 and kind != 0
  if opened.format != 'TIFF':
    return False
  bits = getattr(opened, 'tag_v2', {}).get(258, (8,))
  return opened.mode in ('RGB', 'RGBA', 'RGBX') and max(bits) == 16


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
  if not _is_covered(opened):
    reason = 'a damaged TIFF: its strips end before its last row'
    raise _unreadable(encoded, name, reason)
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


def _is_covered(opened: PIL.Image.Image) -> bool:
  """Whether a TIFF's strips reach its last row; Pillow blackens the rest."""
  if opened.format != 'TIFF':
    return True
  tiles = getattr(opened, 'tile', ())
  bottom = max((extents[3] for _, extents, *_ in tiles), default=0)
  # The tag, as `height` may be that of the image turned upright.
  return bottom >= getattr(opened, 'tag_v2', {}).get(257, 0)


def _eight_bits(image: np.ndarray) -> np.ndarray:
  if image.dtype != np.uint16:
    return image
  return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _may_be_cut(
  opened: PIL.Image.Image, encoded: bytes, image: np.ndarray
) -> bool:
  """Whether to listen to libjpeg, which fills up what is missing."""
  if opened.format not in ('JPEG', 'MPO'):
    return False
  is_progressive = 'progressive' in opened.info
  return _has_grey_corner(image) or (
    is_progressive and structure.lacks_scans(encoded)
  )


def _has_grey_corner(image: np.ndarray) -> bool:
  """Whether the image may end in the grey that libjpeg makes of missing data.

  Turned by its EXIF orientation, it may end in any corner.
  """
  for y, x in _CORNERS:
    if image.item(y, x, 0) == image.item(y, x, 1) == image.item(y, x, 2) == 128:
      return True
  return False


def _complaints_about(encoded: bytes) -> list[str]:
  """Returns what is printed about an image whenever it is decoded.

  What another thread's image causes meanwhile is heard too, but hardly often.
  """
  lines: list[str] = []
  for number in range(_TIMES_TO_LISTEN):
    with complaints.overheard() as heard:
      _decode_with_opencv(encoded)
    lines = [line for line in heard if number == 0 or line in lines]
    if not lines:
      break
  return lines


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
