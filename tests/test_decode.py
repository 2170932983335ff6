"""Decoding: formats, colour, orientation, damage; crops and sizes."""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from vit_jax import errors
from vit_jax.data import decode


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


@pytest.mark.parametrize('mode', ['RGBA', 'LA'])
def test_transparency_is_dropped(mode):
  image = PIL.Image.fromarray(_pixels(channels=4)).convert(mode)
  expected = np.asarray(image.convert('RGB'))
  np.testing.assert_array_equal(decode.decode(_encode(image)), expected)


def test_sixteen_bits_become_eight():
  pixels = np.arange(77, dtype=np.uint16).reshape(7, 11) * 851
  decoded = decode.decode(_encode(PIL.Image.fromarray(pixels)))
  np.testing.assert_allclose(decoded[..., 0], pixels / 257, atol=1)


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


@pytest.mark.parametrize('side', [12_000, 100_000])
def test_header_that_claims_too_much_is_refused_unread(side, recwarn):
  header = struct.pack('>IIBBBBB', side, side, 8, 2, 0, 0, 0)
  encoded = b'\x89PNG\r\n\x1a\n'
  for chunk in (
    b'IHDR' + header,
    b'IDAT' + zlib.compress(bytes(9999)),
    b'IEND',
  ):
    encoded += struct.pack('>I', len(chunk) - 4) + chunk
    encoded += struct.pack('>I', zlib.crc32(chunk))
  with pytest.raises(errors.DataError, match=r'bomb\.png.*pixels'):
    decode.decode(encoded, 'bomb.png')


def test_squash_samples_half_pixel_centres_without_antialiasing():
  ramp = np.tile(
    np.arange(0, 240, 24, dtype=np.uint8)[None, :, None], (4, 1, 3)
  )
  down = decode.resize_squash(ramp, 5)
  np.testing.assert_array_equal(down[0, :, 0], [12, 60, 108, 156, 204])
  spike = np.zeros((9, 9, 3), np.uint8)
  spike[4, 4] = 255
  # The centre of three pixels is one of them, at full height.
  assert decode.resize_squash(spike, 3)[1, 1, 0] == 255


def test_crop_is_a_function_of_the_generator():
  image = _pixels(31, 47)
  first, again, other = (
    decode.random_resized_crop(np.random.default_rng(seed), image, 13)
    for seed in (3, 3, 5)
  )
  assert first.shape == (13, 13, 3)
  assert first.dtype == np.uint8
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


def test_boxes_lie_inside_with_area_and_ratio_in_range():
  rng = np.random.default_rng(0)
  height, width = 301, 499
  boxes = np.array(
    [
      decode._random_box(rng, height, width, (0.05, 1.0), (3 / 4, 4 / 3))
      for _ in range(500)
    ]
  )
  top, left, box_height, box_width = boxes.T
  assert (top >= 0).all()
  assert (top + box_height <= height).all()
  assert (left >= 0).all()
  assert (left + box_width <= width).all()
  share = box_height * box_width / (height * width)
  ratio = box_width / box_height
  whole = (box_height == height) & (box_width == width)  # Ten misses.
  assert share.min() > 0.045
  assert share[~whole].max() <= 1
  assert ratio[~whole].min() > 0.73
  assert ratio[~whole].max() < 1.36
  assert share.min() < 0.1
  assert share.max() > 0.6


def test_boxes_are_as_often_upright_as_lying():
  rng = np.random.default_rng(0)
  boxes = np.array(
    [
      decode._random_box(rng, 499, 499, (0.1, 0.5), (1 / 4, 4))
      for _ in range(500)
    ]
  )
  assert 0.44 < (boxes[:, 2] > boxes[:, 3]).mean() < 0.56


def test_image_too_long_for_any_box_is_used_whole():
  box = decode._random_box(
    np.random.default_rng(0), 2, 1000, (0.9, 1.0), (3 / 4, 4 / 3)
  )
  assert box == (0, 0, 2, 1000)
