"""The page to explore attention with, in a real browser, used as readers do."""

import dataclasses
import re
import shutil
import time

import numpy as np
import pages
import pytest
from small_model import IMAGE_SIZE

from vit_jax import figures

pytestmark = pytest.mark.browser
STYLE = figures.Style(alpha=0.5, colormap='magma', note='random weights')


@pytest.fixture(scope='module')
def driver():
  """A headless Chromium with a window of its own."""
  from selenium import webdriver

  paths = [shutil.which(name) for name in ('chromium', 'chromedriver')]
  if None in paths:
    pytest.fail(
      'These tests need Chromium and its driver: apt-get install chromium '
      'chromium-driver.'
    )
  options = webdriver.ChromeOptions()
  options.binary_location = paths[0]
  for argument in ('--headless=new', '--no-sandbox', '--disable-dev-shm-usage'):
    options.add_argument(argument)
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  running = webdriver.Chrome(options, webdriver.ChromeService(paths[1]))
  yield running
  running.quit()


@pytest.fixture(scope='module', params=['token', 'gap'])
def made(request, tmp_path_factory):
  path = tmp_path_factory.mktemp('pages') / f'{request.param}.html'
  return pages.make(path, request.param, style=STYLE, title='small')


class Reader:
  """Who reads a page."""

  def __init__(self, driver, made):
    self.driver, self.made = driver, made
    driver.set_window_size(1200, 1000)
    driver.get(made.path.as_uri())
    self.wait()

  def run(self, script, *args):
    return self.driver.execute_script(script, *args)

  def wait(self):
    """Waits until the image is there and drawn."""
    ready = (
      "return at('stage').ariaBusy === 'false' && state.weights && !planned"
    )
    end = time.monotonic() + 20
    while not self.run(ready):
      assert time.monotonic() < end, self.driver.get_log('browser')
      time.sleep(0.02)

  def text(self, name):
    self.wait()
    return self.run('return at(arguments[0]).textContent', name)

  def point(self, row, column, *, click=False):
    """Puts the mouse on the middle of a patch."""
    from selenium.webdriver.common.action_chains import ActionChains

    x, y, width, height = self.run(
      "const b = at('picture').getBoundingClientRect();"
      'return [b.x, b.y, b.width, b.height]'
    )
    actions = ActionChains(self.driver)
    actions.w3c_actions.pointer_action.move_to_location(
      round(x + (3 * column + 1.5) * width / 17),
      round(y + (5 * row + 2.5) * height / 11),
    )
    if click:
      actions.click()
    actions.perform()

  def keys(self, *keys):
    from selenium.webdriver.common.by import By

    self.driver.find_element(By.ID, 'stage').send_keys(*keys)

  def click(self, css):
    from selenium.webdriver.common.by import By

    self.driver.find_element(By.CSS_SELECTOR, css).click()
    self.wait()

  def answer(self):
    """Returns (row, column) and weight of what is taken most, in the text."""
    found = re.fullmatch(
      r'takes most from row (\d+), column (\d+): ([\d.]+) %',
      self.text('takes'),
    )
    assert found
    return (int(found[1]), int(found[2])), float(found[3]) / 100


@pytest.fixture
def reader(driver, made):
  found = Reader(driver, made)
  yield found
  assert not [
    entry for entry in driver.get_log('browser') if entry['level'] == 'SEVERE'
  ]


def expect(reader, matrix, patch=None):
  """Checks the answer against [tokens, tokens]."""
  first = len(matrix) - 10
  row = matrix[first + patch] if patch is not None else matrix[0]
  if patch is None and not first:
    row = matrix.mean(0)
  place, weight = reader.answer()
  shown = row[first:].reshape(pages.GRID)
  # Of two that are nearly the same, rounding may put either first.
  assert shown[place] >= 0.99 * shown.max()
  assert weight == pytest.approx(shown.max(), rel=0.01)
  if first:
    share = re.search(r'class token ([\d.]+) %$', reader.text('rest'))
    assert share and float(share[1]) == pytest.approx(100 * row[0], rel=0.01)


def test_starts_with_the_output_in_the_last_layer(reader, made):
  expect(reader, made.weights[-1].mean(0))
  who = 'Class token' if len(made.weights[0, 0]) == 11 else 'Mean of all'
  assert reader.text('question').startswith(who)
  assert reader.text('title') == 'small'
  assert reader.text('name') == 'first.png'
  assert reader.text('prediction') == 'class 3, 98.7%'
  assert (
    reader.text('note') == 'random weights · 4 more images had no room here.'
  )


def test_pointing_at_a_patch_asks_it(reader, made):
  reader.point(1, 3)
  expect(reader, made.weights[-1].mean(0), patch=8)
  assert 'row 1, column 3' in reader.text('question')
  reader.point(0, 4)
  expect(reader, made.weights[-1].mean(0), patch=4)
  box = reader.run(
    "const p = at('picture').getBoundingClientRect();"
    "const m = at('marker').getBoundingClientRect();"
    'return [(m.y - p.y) / p.height, (m.x - p.x) / p.width,'
    ' m.height / p.height, m.width / p.width]'
  )
  np.testing.assert_allclose(box, [0, 12 / 17, 5 / 11, 3 / 17], atol=1e-3)


def test_click_keeps_the_patch_and_escape_lets_it_go(reader, made):
  from selenium.webdriver.common.keys import Keys

  reader.point(1, 1, click=True)
  reader.click('#smooth')  # Elsewhere.
  expect(reader, made.weights[-1].mean(0), patch=6)
  reader.keys(Keys.ESCAPE)
  expect(reader, made.weights[-1].mean(0))


def test_tap_on_a_touch_screen(reader, made):
  x, y = reader.run(
    "const b = at('picture').getBoundingClientRect();"
    'return [b.x + b.width * 1.5 / 17, b.y + b.height * 7.5 / 11]'
  )
  touch = reader.driver.execute_cdp_cmd
  touch('Emulation.setTouchEmulationEnabled', {'enabled': True})
  for kind, points in (('touchStart', [{'x': x, 'y': y}]), ('touchEnd', [])):
    event = {'type': kind, 'touchPoints': points}
    touch('Input.dispatchTouchEvent', event)
  touch('Emulation.setTouchEmulationEnabled', {'enabled': False})
  time.sleep(0.1)
  expect(reader, made.weights[-1].mean(0), patch=5)


def test_keys_alone_reach_everything(reader, made):
  from selenium.webdriver.common.keys import Keys

  reader.keys(Keys.ARROW_LEFT)  # From nowhere to the middle.
  expect(reader, made.weights[1].mean(0), patch=7)
  reader.keys(Keys.ARROW_UP, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
  expect(reader, made.weights[1].mean(0), patch=0)
  reader.keys('h', 'h')
  expect(reader, made.weights[1, 1], patch=0)
  reader.keys('L', 'L')  # With shift: down, and no further.
  expect(reader, made.weights[0, 1], patch=0)
  assert reader.text('layer-value') == '0'
  assert reader.text('head-value') == '1'
  reader.keys('r')
  expect(reader, made.rollouts[0], patch=0)
  reader.keys('l', 'r')
  expect(reader, made.weights[1, 1], patch=0)
  assert reader.run('return document.activeElement.id') == 'stage'


def test_sliders_have_their_ends(reader, made):
  from selenium.webdriver.common.by import By
  from selenium.webdriver.common.keys import Keys

  head = reader.driver.find_element(By.ID, 'head')
  layer = reader.driver.find_element(By.ID, 'layer')
  head.send_keys(Keys.END)
  layer.send_keys(Keys.HOME)
  expect(reader, made.weights[0, 2])
  head.send_keys(Keys.HOME)
  layer.send_keys(Keys.END)
  expect(reader, made.weights[1].mean(0))


def test_rollout_needs_no_head(reader, made):
  reader.click('#rollout')
  expect(reader, made.rollouts[-1])
  assert reader.run("return at('head').disabled") is True
  reader.click('#layers button:nth-child(1)')
  reader.point(1, 4)
  expect(reader, made.rollouts[0], patch=9)


def test_small_maps_are_buttons(reader, made):
  reader.click('#heads button:nth-child(4)')
  reader.click('#layers button:nth-child(1)')
  expect(reader, made.weights[0, 2])
  pressed = reader.run(
    "return [...document.querySelectorAll('[aria-pressed=true]')]"
    '.map((button) => button.title)'
  )
  assert sorted(pressed) == ['first.png', 'head 2', 'layer 0']
  drawn = reader.run(
    "const c = document.querySelector('#heads button:nth-child(4) canvas');"
    "return [c.height, c.width, ...c.getContext('2d')"
    '.getImageData(0, 0, 5, 2).data]'
  )
  matrix = made.weights[0, 2]
  first = len(matrix) - 10
  row = matrix[0, first:] if first else matrix.mean(0)
  wanted = colors_of(made, row)
  assert drawn[:2] == [2, 5]
  found = np.reshape(drawn[2:], (10, 4))
  # What a byte can't tell is a few of 256 colours.
  np.testing.assert_allclose(found[:, :3], wanted, atol=8)


def colors_of(made, values):
  """Returns the colours of values, from the least of them to the most."""
  share = (values - values.min()) / (values.max() - values.min())
  colors = np.array(pages.settings_of(made.path)['colors'])
  return colors[np.minimum(256 * share, 255).astype(int)]


def drawn_picture(reader):
  size = reader.run("return [at('picture').height, at('picture').width]")
  data = reader.run(
    'return [...picture.context.getImageData(0, 0,'
    ' picture.canvas.width, picture.canvas.height).data]'
  )
  return np.reshape(data, (*size, 4))[..., :3]


def test_picture_is_the_image_with_the_map_over_it(reader, made):
  reader.point(0, 2)
  reader.wait()
  row = made.weights[-1].mean(0)
  values = row[len(row) - 10 + 2, len(row) - 10 :].reshape(pages.GRID)
  scale = -(-560 // max(IMAGE_SIZE))
  large = made.images[0].repeat(scale, 0).repeat(scale, 1)
  style = dataclasses.replace(STYLE, token_size=(5 * scale, 3 * scale))
  found = drawn_picture(reader)
  assert found.shape == large.shape
  np.testing.assert_allclose(
    found, figures.overlay(large, values, style), atol=6
  )
  low, high = (reader.text(name) for name in ('smallest', 'largest'))
  assert float(low[:-2]) == pytest.approx(100 * values.min(), rel=0.02)
  assert float(high[:-2]) == pytest.approx(100 * values.max(), rel=0.01)

  reader.click('#smooth')
  reader.point(0, 2)
  reader.wait()
  rows = np.minimum(np.arange(11) // 5, 1).repeat(scale)
  columns = np.minimum(np.arange(17) // 3, 4).repeat(scale)
  colors = colors_of(made, values)[rows][:, columns]
  np.testing.assert_allclose(
    drawn_picture(reader), 0.5 * large + 0.5 * colors, atol=6
  )


def test_opacity(reader, made):
  from selenium.webdriver.common.by import By
  from selenium.webdriver.common.keys import Keys

  reader.driver.find_element(By.ID, 'alpha').send_keys(Keys.HOME)
  reader.wait()
  scale = -(-560 // max(IMAGE_SIZE))
  large = made.images[0].repeat(scale, 0).repeat(scale, 1)
  np.testing.assert_array_equal(drawn_picture(reader), large)
  assert reader.text('alpha-value') == '0 %'


def test_another_image(reader, made):
  reader.click('#images button:nth-child(2)')
  assert reader.text('name') == pages.HOSTILE  # Text, not markup.
  patches, _ = pages.weights_of(made.path, 1)
  assert reader.answer()[1] == pytest.approx(
    patches[-1, :3, 0].mean(0).max()
    if patches.shape[2] == 11
    else patches[-1, :3].mean((0, 1)).max(),
    rel=0.01,
  )
  reader.click('#images button:nth-child(1)')
  expect(reader, made.weights[-1].mean(0))


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_light_and_dark(reader, scheme):
  media = {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]}
  reader.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', media)
  reader.driver.refresh()
  other = {'light': 'Dark', 'dark': 'Light'}[scheme]
  assert reader.text('theme') == other

  def brightness(property):
    color = reader.run(
      'return getComputedStyle(document.body)[arguments[0]]', property
    )
    return sum(map(int, re.findall(r'\d+', color)[:3])) / 765

  is_dark = scheme == 'dark'
  assert (brightness('backgroundColor') < brightness('color')) == is_dark
  reader.click('#theme')
  assert (brightness('backgroundColor') < brightness('color')) != is_dark
  reader.driver.execute_cdp_cmd('Emulation.setEmulatedMedia', {'features': []})


@pytest.mark.parametrize('width', [320, 700, 1600])
def test_nothing_is_wider_than_the_window(reader, width):
  metrics = {'width': width, 'height': 800, 'deviceScaleFactor': 1}
  reader.driver.execute_cdp_cmd(
    'Emulation.setDeviceMetricsOverride', metrics | {'mobile': False}
  )
  wide = reader.run('return document.documentElement.scrollWidth')
  reader.driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})
  assert wide <= width


def test_nothing_is_fetched(reader):
  fetched = reader.run(
    "return performance.getEntriesByType('resource').map((each) => each.name)"
  )
  assert all(name.startswith('data:') for name in fetched)
