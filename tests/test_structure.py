"""How JPEG and PNG files are built: scans that lack, chunks that are odd."""

import io
import itertools
import re
import struct
import zlib

import damaged_images
import numpy as np
import PIL.Image
import pytest

from vit_jax import errors
from vit_jax.data import decode, structure

_END = b'\xff\xd9'


def _jpeg(mode='RGB', **options) -> bytes:
  """Returns one whose scans are long enough to be cut at many places."""
  rng = np.random.default_rng(0)
  smooth = np.add.outer(np.arange(72), np.arange(88)) + 30
  noisy = smooth[..., None] + rng.integers(25, size=(72, 88, 3))
  buffer = io.BytesIO()
  image = PIL.Image.fromarray(noisy.astype(np.uint8)).convert(mode)
  image.save(buffer, 'JPEG', **options)
  return buffer.getvalue()


def _scans(encoded) -> list[int]:
  return [found.start() for found in re.finditer(rb'\xff\xda', encoded)]


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
def test_progressive_jpeg_lacks_scans_until_the_last_has_begun(mode):
  encoded = _jpeg(mode, progressive=True)
  scans = _scans(encoded)
  assert len(scans) > 4
  assert not structure.lacks_scans(encoded)
  for place in range(scans[0], len(encoded), 41):
    cut = encoded[:place] + _END
    # A header of a scan that is cut itself is no JPEG.
    if not any(start <= place < start + 14 for start in scans):
      assert structure.lacks_scans(cut) == (place < scans[-1])


@pytest.mark.parametrize(
  'options', [{}, {'restart_marker_blocks': 3}, {'quality': 100}]
)
def test_other_jpegs_lack_nothing(options):
  encoded = _jpeg(**options)
  assert not structure.lacks_scans(encoded)
  assert not structure.lacks_scans(encoded[: len(encoded) // 2] + _END)


def test_segments_are_not_taken_for_scans():
  encoded = _jpeg(progressive=True)
  # A comment that looks like a scan of all that is missing.
  look = bytes([255, 218, 0, 8, 1, 1, 0, 0, 63, 0, 255, 217])
  comment = b'\xff\xfe' + struct.pack('>H', len(look) + 2) + look
  place = _scans(encoded)[0]
  odd = encoded[:place] + comment + encoded[place:]
  assert not structure.lacks_scans(odd)
  assert structure.lacks_scans(odd[: len(odd) // 3] + _END)


def test_garbage_is_looked_at_without_an_error():
  encoded = _jpeg(progressive=True)
  rng = np.random.default_rng(0)
  for _ in range(500):
    damaged = bytearray(encoded)
    start, size = rng.integers(700), rng.integers(1, 40)
    damaged[start : start + size] = rng.bytes(int(rng.integers(40)))
    assert structure.lacks_scans(bytes(damaged)) in (False, True)


def test_progressive_jpeg_that_was_cut_is_refused(capfd):
  encoded = _jpeg(progressive=True, quality=97)
  scans = _scans(encoded)
  assert len(scans) > 9
  for start, stop in itertools.pairwise(scans):
    place = (2 * start + stop) // 3  # Before the next table.
    with pytest.raises(errors.DataError, match=r'a\.jpg: .* not a readable'):
      decode.decode(encoded[:place] + _END, 'a.jpg')


def test_progressive_jpeg_without_its_last_bits_is_no_damage(capfd):
  encoded = _jpeg(progressive=True)
  # All of the last scan is left out, with the table that is before it.
  place = encoded.rindex(b'\xff\xc4', 0, _scans(encoded)[-1])
  coarse = encoded[:place] + _END
  assert structure.lacks_scans(coarse)
  difference = decode.decode(coarse).astype(int) - decode.decode(encoded)
  assert 0 < np.abs(difference).mean() < 9
  assert capfd.readouterr() == ('', '')


@pytest.mark.parametrize(
  ('kind', 'expected'),
  [
    ('png', True),
    ('png, grey', True),
    ('png, alpha', True),
    ('png, palette', False),  # Has what is transparent.
    ('png, exif', False),
    ('png, frames', False),
    ('jpeg', False),
    ('gif', False),
  ],
)
def test_plain_png_has_pixels_alone(kind, expected):
  assert structure.is_plain_png(damaged_images.whole()[kind]) == expected


def test_damaged_png_is_not_plain():
  encoded = damaged_images.whole()['png']
  assert structure.is_plain_png(encoded + b'more')  # Nobody reads that.
  for place in range(len(encoded)):
    assert not structure.is_plain_png(encoded[:place])
    damaged = bytearray(encoded)
    damaged[place] ^= 16
    assert not structure.is_plain_png(bytes(damaged))


def test_png_is_made_plain():
  whole = damaged_images.whole()
  for kind in ('png', 'png, alpha', 'png, 16 bits'):
    assert structure.plain_png(whole[kind]) == whole[kind]
  plain = structure.plain_png(whole['png, exif'])
  assert plain
  assert b'eXIf' in plain
  assert b'iCCP' not in plain
  np.testing.assert_array_equal(
    decode.decode(plain), decode.decode(whole['png, exif'])
  )
  encoded = whole['png']
  header = encoded[8:33]
  assert structure.plain_png(encoded[:33] + header + encoded[33:]) is None
  assert structure.plain_png(encoded[:-1]) is None
  assert structure.plain_png(encoded[:50] + b'?' + encoded[51:]) is None
  assert not structure.is_plain_png(encoded[:33] + header + encoded[33:])


def test_colour_of_sixteen_bits_is_rounded_beside_other_chunks(capfd):
  encoded = damaged_images.whole()['png, 16 bits']
  profile = b'iCCPa\0\0' + zlib.compress(bytes(99))
  chunk = struct.pack('>I', len(profile) - 4) + profile
  chunk += struct.pack('>I', zlib.crc32(profile))
  odd = encoded[:33] + chunk + encoded[33:]
  np.testing.assert_array_equal(decode.decode(odd), decode.decode(encoded))
  assert capfd.readouterr() == ('', '')


def test_tiff_without_all_of_its_rows_is_refused():
  encoded = bytearray(damaged_images.whole()['tiff'])
  place = encoded.index(struct.pack('<HHI', 257, 4, 1)) + 8
  assert encoded[place] == 29
  encoded[place + 2] = 8
  with pytest.raises(errors.DataError, match='end before its last row'):
    decode.decode(bytes(encoded))
