"""Small images of all formats, and ways to damage them."""

import functools
import io
import random
import struct
import zlib

import numpy as np
import PIL.Image
import PIL.ImageCms

_FIELDS = (b'\0', b'\1', b'\x7f', b'\x80', b'\xff')


def _picture(mode: str = 'RGB') -> PIL.Image.Image:
  """Returns 29 x 37 pixels, smooth enough for a JPEG to be like it."""
  y, x = np.mgrid[:29, :37]
  channels = [y * 6 + 20, x * 5 + 30, (x + y) * 3 + 9]
  image = PIL.Image.fromarray(np.stack(channels, 2).astype(np.uint8))
  return image.convert(mode)


def _encode(kind: str, mode: str = 'RGB', **options) -> bytes:
  buffer = io.BytesIO()
  _picture(mode).save(buffer, kind, **options)
  return buffer.getvalue()


def _exif() -> PIL.Image.Exif:
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  return exif


def _deep(kind: str, mode: str = 'RGB') -> bytes:
  """Returns an image of 16 bits, which Pillow can't write in colour."""
  pixels = np.asarray(_picture(mode)).astype(np.uint16) * 257
  if kind == 'TIFF' or mode == 'L':
    import cv2

    return cv2.imencode(f'.{kind.lower()}', pixels)[1].tobytes()
  rows = b''.join(b'\0' + row.astype('>u2').tobytes() for row in pixels)
  header = struct.pack('>IIBBBBB', 37, 29, 16, 2, 0, 0, 0)
  content = b'\x89PNG\r\n\x1a\n'
  for name, data in (
    (b'IHDR', header),
    (b'IDAT', zlib.compress(rows)),
    (b'IEND', b''),
  ):
    crc = struct.pack('>I', zlib.crc32(name + data))
    content += struct.pack('>I', len(data)) + name + data + crc
  return content


def _profile() -> bytes:
  profile = PIL.ImageCms.createProfile('sRGB')
  return PIL.ImageCms.ImageCmsProfile(profile).tobytes()


@functools.cache
def whole() -> dict[str, bytes]:
  """Returns {kind: file}."""
  frames = {'save_all': True, 'append_images': [_picture('L').convert('RGB')]}
  return {
    'jpeg': _encode('JPEG'),
    'jpeg, 4:4:4': _encode('JPEG', subsampling=0, quality=97),
    'jpeg, grey': _encode('JPEG', 'L'),
    'jpeg, cmyk': _encode('JPEG', 'CMYK'),
    'jpeg, exif': _encode('JPEG', exif=_exif(), icc_profile=_profile()),
    'jpeg, restarts': _encode('JPEG', restart_marker_blocks=2),
    'jpeg, progressive': _encode('JPEG', progressive=True),
    'jpeg, progressive grey': _encode('JPEG', 'L', progressive=True),
    'jpeg, two': _encode('MPO', **frames),
    'png': _encode('PNG'),
    'png, palette': _encode('PNG', 'P', transparency=3),
    'png, grey': _encode('PNG', '1'),
    'png, alpha': _encode('PNG', 'LA'),
    'png, 16 bits grey': _deep('PNG', 'L'),
    'png, 16 bits': _deep('PNG'),
    'png, exif': _encode('PNG', exif=_exif(), icc_profile=_profile()),
    'png, frames': _encode('PNG', **frames),
    'webp': _encode('WEBP', exif=_exif()),
    'webp, lossless': _encode('WEBP', 'RGBA', lossless=True),
    'webp, frames': _encode('WEBP', **frames),
    'bmp': _encode('BMP'),
    'bmp, palette': _encode('BMP', 'P'),
    'gif': _encode('GIF'),
    'gif, frames': _encode('GIF', **frames),
    'tiff': _encode('TIFF'),
    'tiff, exif': _encode('TIFF', 'L', exif=_exif()),
    'tiff, lzw': _encode('TIFF', compression='tiff_lzw'),
    'tiff, deflate': _encode('TIFF', compression='tiff_adobe_deflate'),
    'tiff, jpeg': _encode('TIFF', compression='jpeg'),
    'tiff, 16 bits': _deep('TIFF'),
    'ppm': _encode('PPM'),
  }


def damaged(content: bytes, rng: random.Random) -> bytes:
  """Returns it changed in one to three ways."""
  for _ in range(rng.randrange(1, 4)):
    content = rng.choice(_WAYS)(content, rng)
  return content


def _span(content: bytes, rng: random.Random) -> tuple[int, int]:
  """Returns where a part begins and ends, most often a small one."""
  start = rng.randrange(len(content) + 1)
  most = rng.choice((1, 8, 64, len(content)))
  return start, min(len(content), start + rng.randrange(most + 1))


def _flip(content, rng):
  changed = bytearray(content)
  for _ in range(rng.randrange(1, 5)):
    if changed:
      changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
  return bytes(changed)


def _cut(content, rng):
  return content[: rng.randrange(len(content) + 1)]


def _end_early(content, rng):
  """Cuts it off, but for the mark of the end that its format has."""
  return content[: rng.randrange(len(content) + 1)] + content[-12:]


def _leave_out(content, rng):
  start, stop = _span(content, rng)
  return content[:start] + content[stop:]


def _put_in(content, rng):
  start, _ = _span(content, rng)
  return content[:start] + rng.randbytes(rng.randrange(1, 40)) + content[start:]


def _double(content, rng):
  start, stop = _span(content, rng)
  return content[:stop] + content[start:stop] + content[stop:]


def _move(content, rng):
  start, stop = _span(content, rng)
  rest = content[:start] + content[stop:]
  place = rng.randrange(len(rest) + 1)
  return rest[:place] + content[start:stop] + rest[place:]


def _change_field(content, rng):
  """Sets up to 4 bytes of the header to a number that is often wrong."""
  place = rng.randrange(min(len(content), 99) + 1)
  field = rng.choice(_FIELDS) * rng.choice((1, 2, 4))
  return content[:place] + field + content[place + len(field) :]


def _append(content, rng):
  return content + rng.choice([*whole().values()])


_WAYS = (
  *(_flip, _flip, _cut, _end_early, _leave_out, _put_in),
  *(_double, _move, _change_field, _change_field, _append),
)
