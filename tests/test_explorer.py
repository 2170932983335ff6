"""The page to explore attention with: what is in it, and what it refuses."""

import base64

import cv2
import numpy as np
import pages
import pytest
from small_model import IMAGE_SIZE, make_model, random_params

from vit_jax import errors, figures
from vit_jax.attention_report import explorer
from vit_jax.attention_report.explorer import packing


@pytest.fixture(scope='module', params=['token', 'gap'])
def made(request, tmp_path_factory):
  path = tmp_path_factory.mktemp('pages') / f'{request.param}.html'
  style = figures.Style(alpha=0.25, colormap='gray', note='<random> weights')
  return pages.make(path, request.param, style=style, title='<b>$5</b>')


def test_page_has_the_weights_of_every_layer_head_and_token(made):
  patches, on_class = pages.weights_of(made.path, 0)
  wanted = np.concatenate([made.weights, made.rollouts[:, None]], axis=1)
  first = wanted.shape[-1] - 10
  assert patches.shape == (2, 4, 10 + first, 10)
  largest = wanted[..., first:].max(-1, keepdims=True)
  error = np.abs(patches - wanted[..., first:]) / largest
  assert error.max() < 0.004
  np.testing.assert_allclose(on_class, wanted[..., 0] * first, rtol=1e-6)


def test_small_weights_have_digits_too():
  weights = np.geomspace(1, 1e-4, 8, dtype='f4')
  weights = np.tile(weights / weights.sum(), (1, 1, 8, 1))
  content = packing.zlib.decompress(packing.pack(weights, weights[0], False))
  codes = np.frombuffer(content, np.uint8)[-8:]
  # 1e-4 of the largest would be nothing in 255 equal steps.
  assert codes[-1] == 3 and codes[0] == 255


def test_settings_and_images_are_as_given(made):
  settings = pages.settings_of(made.path)
  assert settings['title'] == '<b>$5</b>'
  assert settings['note'] == '<random> weights'
  assert settings['alpha'] == 0.25
  assert settings['grid'] == [2, 5]
  assert settings['imageSize'] == [11, 17]
  assert settings['tokenSize'] == [5, 3]
  assert settings['numLeftOut'] == 4
  grey = np.arange(256)[:, None].repeat(3, 1)
  np.testing.assert_allclose(settings['colors'], grey, atol=1)
  assert [each['name'] for each in settings['images']] == [
    'first.png', pages.HOSTILE
  ]  # fmt: skip
  for image, entry in zip(made.images, settings['images'], strict=True):
    kind, _, content = entry['source'].partition(',')
    assert kind == 'data:image/png;base64'
    stored = np.frombuffer(base64.b64decode(content), np.uint8)
    found = cv2.imdecode(stored, cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(found, image)


def test_names_are_text_not_markup(made):
  text = made.path.read_text(encoding='utf-8')
  assert '<img' not in text and '<b>' not in text
  assert text.count('</script>') == 4  # Settings, two images, the code.
  assert '@@' not in text


def test_nothing_is_fetched(made):
  text = made.path.read_text(encoding='utf-8')
  assert "default-src 'none'" in text
  for source in ('http:', 'https:', 'src="', '<link', '@import'):
    assert source not in text


def test_same_page_twice_is_the_same_file(made, tmp_path):
  made.page.write(tmp_path / 'again.html', num_left_out=4)
  again = (tmp_path / 'again.html').read_bytes()
  assert again == made.path.read_bytes()
  assert [path.name for path in tmp_path.iterdir()] == ['again.html']


@pytest.fixture
def new_page():
  model = make_model()
  params = random_params(model)
  return lambda **kwargs: explorer.Page(model, params, **kwargs)


def test_images_beyond_the_room_are_not_taken(new_page):
  # 2 layers, 3 heads and a rollout, 11 tokens that ask, 10 patches.
  one = 2 * 4 * 11 * (10 + 8)
  image = np.zeros((*IMAGE_SIZE, 3), np.uint8)
  page = new_page(max_bytes=2 * one)
  assert [page.add(image, str(i)) for i in range(3)] == [True, True, False]
  assert page.num_images == 2
  with pytest.raises(errors.ConfigError, match='2 by 5 patches takes .* MB'):
    new_page(max_bytes=one - 1).add(image, 'a')


def test_mistakes(new_page, mini, tmp_path):
  page = new_page()
  with pytest.raises(errors.ConfigError, match='needs an image'):
    page.write(tmp_path / 'a.html')
  page.add(np.zeros((*IMAGE_SIZE, 3), np.uint8), 'a')
  with pytest.raises(errors.ConfigError, match='b: 13 by 17 pixels'):
    page.add(np.zeros((13, 17, 3), np.uint8), 'b')
  with pytest.raises(errors.ConfigError, match='no attention'):
    explorer.Page(mini('mini-mixer').model, {})
