"""The page to explore attention with, in a real browser, used as readers do."""

import dataclasses
import time

import browser
import numpy as np
import pages
import pytest
from small_model import IMAGE_SIZE

from vit_jax import figures

pytestmark = pytest.mark.browser


def test_starts_with_the_output_in_the_last_layer(reader, made):
  browser.expect(reader, made.weights[-1].mean(0))
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
  browser.expect(reader, made.weights[-1].mean(0), patch=8)
  assert 'row 1, column 3' in reader.text('question')
  reader.point(0, 4)
  browser.expect(reader, made.weights[-1].mean(0), patch=4)
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
  browser.expect(reader, made.weights[-1].mean(0), patch=6)
  reader.keys(Keys.ESCAPE)
  browser.expect(reader, made.weights[-1].mean(0))


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
  browser.expect(reader, made.weights[-1].mean(0), patch=5)


def test_keys_alone_reach_everything(reader, made):
  from selenium.webdriver.common.keys import Keys

  reader.keys(Keys.ARROW_LEFT)  # From nowhere to the middle.
  browser.expect(reader, made.weights[1].mean(0), patch=7)
  reader.keys(Keys.ARROW_UP, Keys.ARROW_LEFT, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
  browser.expect(reader, made.weights[1].mean(0), patch=0)
  reader.keys('h', 'h')
  browser.expect(reader, made.weights[1, 1], patch=0)
  reader.keys('L', 'L')  # With shift: down, and no further.
  browser.expect(reader, made.weights[0, 1], patch=0)
  assert reader.text('layer-value') == '0'
  assert reader.text('head-value') == '1'
  reader.keys('r')
  browser.expect(reader, made.rollouts[0], patch=0)
  reader.keys('l', 'r')
  browser.expect(reader, made.weights[1, 1], patch=0)
  assert reader.run('return document.activeElement.id') == 'stage'


def test_sliders_have_their_ends(reader, made):
  from selenium.webdriver.common.by import By
  from selenium.webdriver.common.keys import Keys

  head = reader.driver.find_element(By.ID, 'head')
  layer = reader.driver.find_element(By.ID, 'layer')
  head.send_keys(Keys.END)
  layer.send_keys(Keys.HOME)
  browser.expect(reader, made.weights[0, 2])
  head.send_keys(Keys.HOME)
  layer.send_keys(Keys.END)
  browser.expect(reader, made.weights[1].mean(0))


def test_rollout_needs_no_head(reader, made):
  reader.click('#rollout')
  browser.expect(reader, made.rollouts[-1])
  assert reader.run("return at('head').disabled") is True
  reader.click('#layers button:nth-child(1)')
  reader.point(1, 4)
  browser.expect(reader, made.rollouts[0], patch=9)


def test_small_maps_are_buttons(reader, made):
  reader.click('#heads button:nth-child(4)')
  reader.click('#layers button:nth-child(1)')
  browser.expect(reader, made.weights[0, 2])
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
  wanted = browser.colors_of(made, row)
  assert drawn[:2] == [2, 5]
  found = np.reshape(drawn[2:], (10, 4))
  # What a byte can't tell is a few of 256 colours.
  np.testing.assert_allclose(found[:, :3], wanted, atol=8)


@pytest.mark.parametrize('strip, plane', [('heads', 2), ('layers', 0)])
def test_small_maps_follow_layer_and_patch(reader, made, strip, plane):
  """Those of the heads in layer 1; those of the layers for head 1."""
  change = {'heads': 'layer: 1, kept: 3', 'layers': 'head: 1, kept: 3'}[strip]
  reader.run(f'change({{{change}}})')
  reader.wait()
  child = plane + 1 + (strip == 'heads')  # The mean goes before the heads.
  drawn = reader.run(
    f"const c = document.querySelector('#{strip} button:nth-child({child})"
    " canvas'); return [...c.getContext('2d').getImageData(0, 0, 5, 2).data]"
  )
  matrix = made.weights[1, 2] if strip == 'heads' else made.weights[0, 1]
  first = len(matrix) - 10
  wanted = browser.colors_of(made, matrix[first + 3, first:])
  found = np.reshape(drawn, (10, 4))[:, :3]
  np.testing.assert_allclose(found, wanted, atol=8)


def test_picture_is_the_image_with_the_map_over_it(reader, made):
  reader.point(0, 2)
  reader.wait()
  row = made.weights[-1].mean(0)
  values = row[len(row) - 10 + 2, len(row) - 10 :].reshape(pages.GRID)
  scale = -(-560 // max(IMAGE_SIZE))
  large = made.images[0].repeat(scale, 0).repeat(scale, 1)
  style = dataclasses.replace(browser.STYLE, token_size=(5 * scale, 3 * scale))
  found = browser.drawn_picture(reader)
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
  colors = browser.colors_of(made, values)[rows][:, columns]
  np.testing.assert_allclose(
    browser.drawn_picture(reader), 0.5 * large + 0.5 * colors, atol=6
  )


def test_opacity(reader, made):
  from selenium.webdriver.common.by import By
  from selenium.webdriver.common.keys import Keys

  reader.driver.find_element(By.ID, 'alpha').send_keys(Keys.HOME)
  reader.wait()
  scale = -(-560 // max(IMAGE_SIZE))
  large = made.images[0].repeat(scale, 0).repeat(scale, 1)
  np.testing.assert_array_equal(browser.drawn_picture(reader), large)
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
  browser.expect(reader, made.weights[-1].mean(0))


def test_image_that_is_chosen_last_is_shown(reader):
  wanted = browser.drawn_picture(reader)
  reader.run(
    'const read = Weights.read;'
    'Weights.read = async (index) => {'  # The other is slow to come.
    '  if (index) await new Promise((then) => setTimeout(then, 300));'
    '  return read.call(Weights, index);'
    '};'
    'choose(1); choose(0);'
  )
  reader.wait()
  time.sleep(0.6)
  reader.wait()
  assert reader.text('name') == 'first.png'
  np.testing.assert_array_equal(browser.drawn_picture(reader), wanted)
