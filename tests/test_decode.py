"""Decoding: formats, colour, orientation, damage; crops and sizes."""

import io
import itertools
import os
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import PIL.Image
import pytest

from vit_jax import errors
from vit_jax.data import complaints, decode


def _encode(image, kind='PNG', **options):
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def _pixels(height=7, width=11, channels=3):
  rng = np.random.default_rng(height * width)
  shape = (height, width, channels) if channels > 1 else (height, width)
  return rng.integers(256, size=shape).astype(np.uint8)


@pytest.mark.parametrize(
  ('kind', 'options'),
  [('PNG', {}), ('BMP', {}), ('WEBP', {'lossless': True}), ('TIFF', {})],
)
def test_lossless_formats_give_the_exact_rgb_pixels(kind, options):
  pixels = _pixels()
  decoded = decode.decode(_encode(PIL.Image.fromarray(pixels), kind, **options))
  np.testing.assert_array_equal(decoded, pixels)


def test_jpeg_is_rgb_and_close():
  pixels = np.zeros((16, 24, 3), np.uint8)
  pixels[..., 0] = 200
  encoded = _encode(PIL.Image.fromarray(pixels), 'JPEG', quality=95)
  assert np.abs(decode.decode(encoded).astype(int) - pixels).max() <= 3


def test_grey_becomes_three_equal_channels():
  pixels = _pixels(channels=1)
  decoded = decode.decode(_encode(PIL.Image.fromarray(pixels)))
  np.testing.assert_array_equal(decoded, np.repeat(pixels[..., None], 3, -1))


def test_palette_becomes_its_colours():
  image = PIL.Image.fromarray(_pixels()).quantize(5)
  expected = np.asarray(image.convert('RGB'))
  np.testing.assert_array_equal(decode.decode(_encode(image)), expected)


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'WEBP'])
@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_transparency_is_dropped(mode, kind):
  image = PIL.Image.fromarray(_pixels(channels=4)).convert(mode)
  expected = np.asarray(image.convert('RGB'))
  options = {'lossless': True, 'exact': True} if kind == 'WEBP' else {}
  encoded = _encode(image, kind, **options)
  np.testing.assert_array_equal(decode.decode(encoded), expected)


@pytest.mark.parametrize('kind', ['.png', '.tiff', '.pgm', '.ppm'])
@pytest.mark.parametrize('channels', [1, 3, 4])
def test_sixteen_bits_are_rounded_to_eight(kind: str, channels: int):
  # Of what is cut off instead, 200 of 256 values would be another.
  channels = {'.pgm': 1, '.ppm': 3}.get(kind, channels)
  rng = np.random.default_rng(channels)
  pixels = rng.integers(1 << 16, size=(31, 37, channels)).astype(np.uint16)
  pixels[0, :3] = np.array([0, 128, 65535])[:, None]
  swapped = pixels[..., [2, 1, 0, 3][:channels] if channels > 1 else [0]]
  encoded = cv2.imencode(kind, swapped)[1].tobytes()
  decoded = decode.decode(encoded)
  expected = np.floor(pixels[..., :3] / 257 + 0.5)
  np.testing.assert_array_equal(decoded, np.broadcast_to(expected, (31, 37, 3)))


@pytest.mark.parametrize('kind', [np.float32, np.int32])
def test_pixels_without_a_white_are_told(kind):
  encoded = _encode(
    PIL.Image.fromarray(_pixels(channels=1).astype(kind)), 'TIFF'
  )
  with pytest.raises(errors.DataError, match=r'a\.tif: .* of 32 bits'):
    decode.decode(encoded, 'a.tif')


@pytest.mark.parametrize('bits', ['1', 'L', 'P', 'CMYK'])
@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'GIF', 'JPEG'])
def test_kinds_of_pixels_become_what_pillow_makes_of_them(kind, bits):
  if (kind, bits) in {('PNG', 'CMYK'), ('GIF', 'CMYK'), ('JPEG', 'P')}:
    bits = 'L'
  smooth = np.add.outer(np.arange(17), np.arange(0, 46, 2)).astype(np.uint8)
  image = PIL.Image.fromarray(np.stack([smooth, smooth * 2, 250 - smooth], 2))
  encoded = _encode(image.convert(bits), kind)
  expected = PIL.Image.open(io.BytesIO(encoded)).convert('RGB')
  difference = decode.decode(encoded).astype(int) - np.asarray(expected)
  assert np.abs(difference).max() <= (bits == 'CMYK')  # It rounds elsewhere.


def test_cmyk_with_and_without_adobe_inversion_is_right():
  ink = PIL.Image.new('CMYK', (16, 16), (255, 0, 0, 51))
  encoded = _encode(ink, 'JPEG', quality=100)
  start = encoded.index(b'\xff\xee')
  stop = start + 2 + int.from_bytes(encoded[start + 2 : start + 4])
  for each in (encoded, encoded[:start] + encoded[stop:]):
    # No cyan's red is left, and a fifth of black darkens the others.
    difference = decode.decode(each) - np.array([0, 204, 204])
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize('kind', ['PNG', 'TIFF', 'GIF'])
def test_colour_below_what_is_transparent_stays(kind):
  image = PIL.Image.fromarray(_pixels()).quantize(5)
  expected = np.asarray(image.convert('RGB'))
  encoded = _encode(image, kind, transparency=3)
  np.testing.assert_array_equal(decode.decode(encoded), expected)


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'PNG'])
def test_animation_is_its_first_frame(kind):
  first, second = (
    PIL.Image.fromarray(_pixels()[:, ::step].copy()).quantize(5)
    for step in (1, -1)
  )
  options = {'lossless': True} if kind == 'WEBP' else {}
  encoded = _encode(
    first, kind, save_all=True, append_images=[second], **options
  )
  expected = np.asarray(first.convert('RGB'))
  np.testing.assert_array_equal(decode.decode(encoded), expected)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_applied(kind, orientation):
  # Four even quarters survive JPEG and tell all eight orientations apart.
  quarters = np.array([[0, 80], [160, 240]], np.uint8)
  pixels = np.kron(quarters, np.ones((16, 24), np.uint8))
  exif = PIL.Image.Exif()
  exif[0x0112] = orientation
  encoded = _encode(PIL.Image.fromarray(pixels), kind, exif=exif)
  turned = {
    1: pixels,
    2: pixels[:, ::-1],
    3: pixels[::-1, ::-1],
    4: pixels[::-1],
    5: pixels.T,
    6: pixels.T[:, ::-1],
    7: pixels.T[::-1, ::-1],
    8: pixels.T[::-1],
  }[orientation]
  decoded = decode.decode(encoded)[..., 0]
  assert decoded.shape == turned.shape
  np.testing.assert_allclose(decoded, turned, atol=6)


def test_what_opencv_lacks_pillow_decodes():
  pixels = _pixels(8, 12)
  image = PIL.Image.fromarray(pixels).quantize(16)
  encoded = _encode(image, 'PCX')
  np.testing.assert_array_equal(
    decode.decode(encoded), np.asarray(image.convert('RGB'))
  )


@pytest.mark.parametrize(
  'encoded', [b'', b'no image', _encode(PIL.Image.fromarray(_pixels()))[:20]]
)
def test_undecodable_bytes_are_named(encoded):
  with pytest.raises(errors.DataError, match=r'cats/7\.png: .* not a readable'):
    decode.decode(encoded, 'cats/7.png')


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'GIF'])
@pytest.mark.parametrize('share', [0.3, 0.9])
def test_cut_off_image_is_refused_rather_than_half_grey(kind, share):
  encoded = _encode(PIL.Image.fromarray(_pixels(61, 67)), kind)
  with pytest.raises(errors.DataError, match='not a readable image'):
    decode.decode(encoded[: int(len(encoded) * share)])


@pytest.mark.parametrize(
  ('encoded', 'text'),
  [
    (b'', '0 bytes .*an empty file'),
    (b' <!DOCTYPE HTML><p>', 'a web page'),
    (b'<svg xmlns="">', 'SVG have no pixels'),
    (b'version https://git-lfs.github.com/spec/v1', 'git lfs pull'),
    (b'\0\0\0\x1cftypheic\0', 'HEIC: convert it'),
    (b'\xff\xd8\xff\xe0', 'a damaged or truncated JPEG'),
    (b'a\nb', r"they begin with b'a\\nb'"),
  ],
)
def test_what_is_no_image_is_named(encoded, text):
  with pytest.raises(errors.DataError, match=text) as caught:
    decode.decode(encoded, 'a.jpg')
  assert str(caught.value).isprintable()


def _photo():
  rng = np.random.default_rng(0)
  smooth = np.add.outer(np.arange(96), np.arange(112)).astype(np.uint8)
  noisy = smooth[..., None] + rng.integers(30, size=(96, 112, 3))
  return PIL.Image.fromarray(noisy.astype(np.uint8))


_JPEG = _encode(_photo(), 'JPEG')
_PROGRESSIVE = _encode(_photo(), 'JPEG', progressive=True)


@pytest.mark.parametrize('share', [0.5, 0.9])
def test_jpeg_that_was_filled_with_grey_is_refused(share, capfd):
  # The mark of the end is there, so that only the pixels lack.
  cut = _JPEG[: int(len(_JPEG) * share)] + _JPEG[-2:]
  with pytest.raises(errors.DataError, match=r'a\.jpg: .*truncated JPEG'):
    decode.decode(cut, 'a.jpg')
  with pytest.raises(errors.DataError, match=r'a\.jpg: .*truncated JPEG'):
    decode.decode_alone(cut, 'a.jpg')
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  turned = _encode(_photo(), 'JPEG', exif=exif)
  turned = turned[: int(len(turned) * share)] + turned[-2:]
  with pytest.raises(errors.DataError, match='truncated JPEG'):
    decode.decode(turned)


def test_alone_blurred_progressive_jpeg_is_refused_as_well(capfd):
  for share in (0.3, 0.9):
    cut = _PROGRESSIVE[: int(len(_PROGRESSIVE) * share)] + _JPEG[-2:]
    with pytest.raises(errors.DataError, match='truncated JPEG'):
      decode.decode_alone(cut)
  assert capfd.readouterr() == ('', '')


def test_grey_picture_is_no_damage():
  grey = np.full((16, 16, 3), 128, np.uint8)
  encoded = _encode(PIL.Image.fromarray(grey), 'JPEG')
  np.testing.assert_array_equal(decode.decode(encoded), grey)
  # Nor is padding before the mark of the end, as some cameras write it.
  padded = _JPEG[:-2] + b'\0\0' + _JPEG[-2:]
  whole = decode.decode(_JPEG)
  np.testing.assert_array_equal(decode.decode_alone(padded), whole)


def _chunk(kind, content):
  check = struct.pack('>I', zlib.crc32(kind + content))
  return struct.pack('>I', len(content)) + kind + content + check


def test_nothing_is_printed_about_a_png(capfd):
  png = _encode(_photo())
  profile = _chunk(b'iCCP', b'a\0\0' + zlib.compress(bytes(99)))
  odd = png[:33] + profile + png[33:]
  expected = np.asarray(_photo())
  np.testing.assert_array_equal(decode.decode_alone(odd), expected)
  damaged = bytearray(png)
  damaged[len(png) // 2] ^= 255
  with pytest.raises(errors.DataError, match='damaged or truncated PNG'):
    decode.decode_alone(bytes(damaged))
  assert capfd.readouterr() == ('', '')
  np.testing.assert_array_equal(decode.decode(odd), expected)
  assert capfd.readouterr() == ('', '')
  decode._decode_with_opencv(odd)  # Else all that would hold of itself.
  assert 'libpng warning' in capfd.readouterr().err


def test_damage_of_another_threads_image_is_not_this_ones(monkeypatch, capfd):
  grey = _encode(PIL.Image.new('RGB', (16, 16), (128,) * 3), 'JPEG')
  own, numbers = decode._decode_with_opencv, itertools.count()

  def decode_beside_a_damaged_one(encoded):
    if next(numbers) == 1:  # When it is listened to for the first time.
      os.write(2, b'Corrupt JPEG data: premature end of data segment\n')
    return own(encoded)

  monkeypatch.setattr(
    decode, '_decode_with_opencv', decode_beside_a_damaged_one
  )
  assert (decode.decode(grey) == 128).all()
  assert next(numbers) == 3


def test_what_others_print_appears_afterwards(capfd):
  with complaints.overheard() as lines:
    os.write(2, b'libpng warning: a\nnot theirs\n')
    with complaints.overheard() as inner:
      os.write(2, b'Corrupt JPEG data: b\n')
    os.write(2, b'no end')
  assert lines == ['libpng warning: a']
  assert inner == ['Corrupt JPEG data: b']
  assert capfd.readouterr().err == 'not theirs\nno end'


def test_pillow_warns_of_nothing():
  tiff = _encode(_photo(), 'TIFF')
  code = (
    'import sys; from vit_jax.data import complaints, decode\n'
    'try: decode.decode(sys.stdin.buffer.read())\n'
    'except ValueError: print("told")'
  )
  ran = subprocess.run(
    [sys.executable, '-c', code], input=tiff[:-200], capture_output=True
  )
  assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, b'told', b'')


def test_header_that_claims_more_than_the_file_can_hold_is_refused():
  frames = [PIL.Image.fromarray(_pixels()[:, ::step]) for step in (1, -1)]
  encoded = bytearray(
    _encode(frames[0], 'WEBP', save_all=True, append_images=frames[1:])
  )
  place = encoded.index(b'VP8X') + 12
  assert encoded[place] == 10  # The width of the canvas, less one.
  encoded[place + 2] = 64
  with pytest.raises(errors.DataError, match='header claims 4194315x7 pixels'):
    decode.decode(bytes(encoded))


@pytest.mark.parametrize('side', [12_000, 100_000])
def test_header_that_claims_too_much_is_refused_unread(side, recwarn):
  header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
  encoded = b'\x89PNG\r\n\x1a\n' + _chunk(b'IHDR', header)
  encoded += _chunk(b'IDAT', zlib.compress(bytes(9999))) + _chunk(b'IEND', b'')
  with pytest.raises(errors.DataError, match=r'bomb\.png.*pixels'):
    decode.decode(encoded, 'bomb.png')
