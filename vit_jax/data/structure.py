"""Looks at how JPEG and PNG files are built, without decoding them."""

import re
import zlib
from collections.abc import Iterator

# Any but those within the data of a scan: stuffed bytes, restarts, padding.
_MARKER = re.compile(rb'\xff([^\0\xd0-\xd7\xff])')
_START, _TEMPORARY, _PROGRESSIVE, _SCAN, _END = 0xD8, 0x01, 0xC2, 0xDA, 0xD9
_SIGNATURE = b'\x89PNG\r\n\x1a\n'
_PLAIN = (b'IHDR', b'PLTE', b'IDAT', b'IEND')


def lacks_scans(encoded: bytes) -> bool:
  """Tells whether bits of a progressive JPEG's coefficients never come.

  Such a file sends its 64 coefficients of each component, and the bits of each,
  in scan after scan (ITU-T T.81, G.1), so one that was cut short has too few of
  them. A few encoders leave the last bits out on purpose.

  Args:
    encoded: a JPEG that can be decoded; of another kind, nothing is missing.
  """
  missing: dict[int, set[int]] = {}
  place = 0
  while found := _MARKER.search(encoded, place):
    marker, place = found[1][0], found.end()
    if marker == _END:
      break
    if marker in (_START, _TEMPORARY):
      continue
    length = int.from_bytes(encoded[place : place + 2], 'big')
    segment = encoded[place + 2 : place + length]
    place += max(length, 2)
    if marker == _PROGRESSIVE:
      missing = {component: set(range(64)) for component in segment[6::3]}
    elif marker == _SCAN and missing and segment:
      components = segment[1 : 1 + 2 * segment[0] : 2]
      first, last, bits = segment[-3:]
      for component in components if bits & 15 == 0 else b'':
        missing.get(component, set()).difference_update(range(first, last + 1))
  return any(missing.values())


def is_plain_png(encoded: bytes) -> bool:
  """Tells whether a PNG has pixels alone, and all of its CRCs are right."""
  kinds = []
  for kind, start, stop in _chunks(encoded):
    if kind not in _PLAIN or not _is_intact(encoded, start, stop):
      return False
    kinds.append(kind)
  return _is_whole(kinds)


def plain_png(encoded: bytes) -> bytes | None:
  """Returns a PNG's pixels and EXIF data; None if any of its pixels are not."""
  kinds, parts = [], [_SIGNATURE]
  for kind, start, stop in _chunks(encoded):
    if kind not in (*_PLAIN, b'eXIf'):
      continue
    if _is_intact(encoded, start, stop):
      kinds.append(kind)
      parts.append(encoded[start:stop])
    elif kind in _PLAIN:
      return None
  return b''.join(parts) if _is_whole(kinds) else None


def _chunks(encoded: bytes) -> Iterator[tuple[bytes, int, int]]:
  """Yields kind, start and stop of each chunk, of the whole ones at most."""
  place = len(_SIGNATURE) if encoded[:8] == _SIGNATURE else len(encoded)
  kind = b''
  while kind != b'IEND':
    start, kind = place, encoded[place + 4 : place + 8]
    place += 12 + int.from_bytes(encoded[place : place + 4], 'big')
    if place > len(encoded):
      return
    yield kind, start, place


def _is_intact(encoded: bytes, start: int, stop: int) -> bool:
  found = zlib.crc32(memoryview(encoded)[start + 4 : stop - 4])
  return found == int.from_bytes(encoded[stop - 4 : stop], 'big')


def _is_whole(kinds: list[bytes]) -> bool:
  # Of a second header, OpenCV takes gigabytes.
  ends = kinds[:1] + kinds[-1:]
  return ends == [b'IHDR', b'IEND'] and kinds.count(b'IHDR') == 1
