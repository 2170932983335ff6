"""Images from files, directories and addresses, made as large as a model's."""

import io
import os
import re
import time

import numpy as np
import PIL.Image
import pytest
from file_server import Answer

from vit_jax import errors
from vit_jax.data import files, images, web


@pytest.fixture(autouse=True)
def _no_silent_hosts(monkeypatch):
  monkeypatch.setattr(web, '_silent_hosts', {})


def pixels(height=7, width=11):
  rng = np.random.default_rng(height * width)
  return rng.integers(256, size=(height, width, 3)).astype(np.uint8)


def png(image):
  buffer = io.BytesIO()
  PIL.Image.fromarray(image).save(buffer, 'PNG')
  return buffer.getvalue()


def test_directory_stands_for_its_images_by_name(tmp_path):
  for name in ('b.PNG', 'a.jpg', 'c.txt', '.d.png'):
    (tmp_path / name).touch()
  (tmp_path / 'e').mkdir()
  found = images.find_images(['x.png', str(tmp_path), 'https://y/z'])
  inside = [str(tmp_path / name) for name in ('a.jpg', 'b.PNG')]
  assert found == ['x.png', *inside, 'https://y/z']


def test_directory_without_images_is_named(tmp_path):
  with pytest.raises(errors.DataNotFoundError, match=rf'{tmp_path}: no file'):
    images.find_images([str(tmp_path)])


def test_image_named_twice_is_one(tmp_path, monkeypatch):
  (tmp_path / 'a.png').touch()
  (tmp_path / 'again').symlink_to(tmp_path)
  monkeypatch.chdir(tmp_path)
  names = ['a.png', str(tmp_path), './again/a.png', 'https://y/z', 'again']
  assert images.find_images([*names, *names]) == ['a.png', 'https://y/z']


def test_directory_that_can_not_be_read_is_told(tmp_path, monkeypatch):
  def refuse(path):
    raise PermissionError(13, 'Permission denied', path)

  monkeypatch.setattr(images.os, 'listdir', refuse)
  with pytest.raises(errors.DataError, match='not be read .Permission denied'):
    images.find_images([str(tmp_path)])


def test_file_is_read_and_what_is_wrong_with_it_told(tmp_path):
  (tmp_path / 'a.png').write_bytes(png(pixels()))
  found = images.read_image(str(tmp_path / 'a.png'))
  np.testing.assert_array_equal(found, pixels())
  with pytest.raises(errors.DataNotFoundError, match=r'b\.png: there is no'):
    images.read_image(str(tmp_path / 'b.png'))
  with pytest.raises(errors.DataError, match='can not be read'):
    images.read_image(str(tmp_path))
  (tmp_path / 'c.png').touch()
  with pytest.raises(errors.DataError, match=r'c\.png: 0 bytes'):
    images.read_image(str(tmp_path / 'c.png'))


def test_what_is_no_file_is_told_and_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'pipe.png')
  (tmp_path / 'link.png').symlink_to('nowhere.png')
  (tmp_path / 'loop.png').symlink_to('loop.png')
  (tmp_path / 'file.png').touch()
  with open(tmp_path / 'large.png', 'wb') as file:
    file.truncate(2**28 + 1)
  for name, text in (
    ('.', 'it is a directory'),
    ('pipe.png', 'it is a device or pipe'),
    ('link.png', r'a link to nowhere\.png, and there is no such file'),
    ('loop.png', 'symbolic links'),
    ('file.png/a.png', 'Not a directory'),
    (999 * 'a', 'name too long'),
    ('large.png', '268,435,457 bytes, more than the 268,435,456'),
  ):
    path = str(tmp_path / name)
    with pytest.raises((errors.DataError, errors.DataNotFoundError)) as caught:
      images.read_image(path)
    assert re.match(f'{re.escape(path)}: .*{text}', str(caught.value))


@pytest.mark.parametrize('name', ['a b.png', 'ü\n.png', '\udcff.png'])
def test_any_name_is_read_and_told_on_a_line(tmp_path, name):
  path = tmp_path / name
  path.write_bytes(png(pixels()))
  assert images.find_images([str(tmp_path)]) == [str(path)]
  np.testing.assert_array_equal(images.read_image(str(path)), pixels())
  path.write_bytes(b'no')
  with pytest.raises(errors.DataError) as caught:
    images.read_image(str(path))
  assert str(caught.value).isprintable()


# --- Addresses ---------------------------------------------------------------


def test_address_is_fetched(server):
  url = server.give('/a.png', Answer(png(pixels())))
  np.testing.assert_array_equal(images.read_image(url), pixels())


@pytest.mark.parametrize(
  ('answer', 'text'),
  [
    (Answer(status=404), '404'),
    (Answer(b'<html>'), '6 bytes that are not a readable .*web page'),
    (Answer(png(pixels()), length=9999), 'can not be fetched'),
    (Answer(99 * b'x', headers={'Content-Encoding': 'gzip'}), 'gzip'),
    (Answer(), '0 bytes'),
    (Answer(png(pixels()), cut_after=20), 'can not be fetched'),
  ],
)
def test_address_without_an_image_is_told(server, answer, text):
  url = server.give('/a.png', answer)
  with pytest.raises(errors.DataError, match=f'^{url}: .*{text}'):
    images.read_image(url)


@pytest.mark.parametrize(
  'answer', [Answer(is_silent=True), Answer(bytes(99), pause=0.03)]
)
def test_no_address_is_waited_for_longer(server, monkeypatch, answer):
  monkeypatch.setattr(web, '_FETCH_SECONDS', 0.2)
  url = server.give('/a.png', answer)
  start = time.perf_counter()
  with pytest.raises(errors.DataError, match=r'can not be fetched'):
    images.read_image(url)
  assert time.perf_counter() - start < 1.5


def test_reason_is_short(server):
  url = server.give('/a.png', Answer()).replace('http:', 'https:')
  with pytest.raises(errors.DataError, match='SSL') as caught:
    images.read_image(url)
  assert 'retries' not in str(caught.value)
  assert 'Pool' not in str(caught.value)


def test_address_that_sends_without_end_is_cut_off(server, monkeypatch):
  monkeypatch.setattr(files, 'MAX_BYTES', 99)
  url = server.give('/a.png', Answer(bytes(100)))
  with pytest.raises(errors.DataError, match='more than 99 bytes'):
    images.read_image(url)


def test_host_that_is_silent_is_waited_for_once(server, monkeypatch):
  monkeypatch.setattr(web, '_FETCH_SECONDS', 0.2)
  silent = server.give('/a.png', Answer(is_silent=True))
  good = server.give('/b.png', Answer(png(pixels())))
  # Whichever of two limits is noticed first.
  text = 'not all of it came in 0.2 sec|Read timed out'
  with pytest.raises(errors.DataError, match=text):
    images.read_image(silent)
  with pytest.raises(errors.DataError, match='did not answer 0 seconds ago'):
    images.read_image(good)
  monkeypatch.setattr(web, '_SILENCE_SECONDS', 0.0)
  assert images.read_image(good).shape == (7, 11, 3)


def test_slow_answer_does_not_block_its_host(server, monkeypatch):
  monkeypatch.setattr(web, '_FETCH_SECONDS', 0.2)
  slow = server.give('/a.png', Answer(bytes(99), pause=0.03))
  good = server.give('/b.png', Answer(png(pixels())))
  with pytest.raises(errors.DataError, match='not all of it came'):
    images.read_image(slow)
  assert images.read_image(good).shape == (7, 11, 3)


def test_failure_that_is_told_at_once_stays_with_its_address(server):
  loop = server.give(
    '/a.png', Answer(status=302, headers={'Location': '/a.png'})
  )
  good = server.give('/b.png', Answer(png(pixels())))
  with pytest.raises(errors.DataError, match='30 redirects'):
    images.read_image(loop)
  assert images.read_image(good).shape == (7, 11, 3)


def test_offline_no_address_is_asked(server, monkeypatch):
  url = server.give('/a.png', Answer(png(pixels())))
  monkeypatch.setenv('VIT_JAX_OFFLINE', '1')
  with pytest.raises(
    errors.DataError, match='VIT_JAX_OFFLINE or .* forbids it'
  ):
    images.read_image(url)
  assert not server.requests


@pytest.mark.parametrize('name', ['gs://a/b.png', 'file:///a.png', 'ftp://a/b'])
def test_other_addresses_are_refused(name):
  with pytest.raises(errors.DataError, match='http:// and https:// alone'):
    images.read_image(name)
  assert images.find_images([name]) == [name]


@pytest.mark.parametrize('url', ['http://', 'http://[::1/a', 'http://a:99999/'])
def test_malformed_address_is_told(url, monkeypatch):
  monkeypatch.delenv('VIT_JAX_OFFLINE')
  with pytest.raises(errors.DataError, match='can not be fetched'):
    images.read_image(url)


# --- Fitting -----------------------------------------------------------------


def test_crop_is_the_middle_and_pad_is_around_it():
  image = pixels(7, 11)
  cropped = images.fit_image(image, (7, 5), 'crop')
  np.testing.assert_array_equal(cropped, image[:, 3:8])
  padded = images.fit_image(image, (13, 11), 'pad')
  np.testing.assert_array_equal(padded[3:10], image)
  assert (np.delete(padded, np.s_[3:10], axis=0) == 128).all()


def test_squash_keeps_corners_where_they_are():
  image = np.zeros((6, 10, 3), np.uint8)
  image[:3, :5], image[3:, 5:] = 200, 100
  small = images.fit_image(image, (2, 2), 'squash')
  assert small[..., 0].tolist() == [[200, 0], [0, 100]]


@pytest.mark.parametrize('fit', images.FITS)
@pytest.mark.parametrize('shape', [(1, 1), (1, 997), (997, 1), (5, 3), (3, 5)])
def test_any_shape_fits(fit, shape):
  image = np.full((*shape, 3), 77, np.uint8)
  fitted = images.fit_image(image, (5, 3), fit)
  assert fitted.shape == (5, 3, 3)
  assert fitted.dtype == np.uint8
  assert set(np.unique(fitted)) <= {77, 128}
  assert 77 in fitted


def test_unknown_fit_names_the_closest():
  with pytest.raises(errors.ConfigError, match="Did you mean 'crop'"):
    images.fit_image(pixels(), (2, 2), 'corp')
