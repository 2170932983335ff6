"""The page to explore attention with is for everybody, on any screen."""

import re

import browser
import numpy as np
import pytest

pytestmark = pytest.mark.browser


def test_keys_of_the_browser_are_left_to_it(reader):
  from selenium.webdriver.common.keys import Keys

  before = reader.run('return JSON.stringify([state.layer, state.rollout])')
  taken = reader.run(
    "return ['ctrlKey', 'metaKey', 'altKey'].map((modifier) => "
    "!at('stage').dispatchEvent(new KeyboardEvent('keydown', "
    "{key: 'r', cancelable: true, [modifier]: true})))"
  )
  assert taken == [False] * 3
  reader.keys(Keys.TAB)  # The focus can leave.
  assert reader.run('return document.activeElement.id') != 'stage'
  after = reader.run('return JSON.stringify([state.layer, state.rollout])')
  assert after == before


def test_back_button_lets_the_patch_go_and_keeps_the_focus(reader, made):
  from selenium.webdriver.common.by import By
  from selenium.webdriver.common.keys import Keys

  assert reader.run("return at('release').disabled") is True
  reader.keys(Keys.ARROW_UP)
  browser.expect(reader, made.weights[-1].mean(0), patch=7)
  reader.driver.find_element(By.ID, 'release').send_keys(Keys.ENTER)
  browser.expect(reader, made.weights[-1].mean(0))
  assert reader.run('return document.activeElement.id') == 'stage'


def test_screen_readers_have_names_and_values(reader):
  nodes = reader.driver.execute_cdp_cmd('Accessibility.getFullAXTree', {})
  found = {
    (node['role']['value'], node.get('name', {}).get('value'))
    for node in nodes['nodes']
    if not node['ignored']
  }
  for name in ('Layer', 'Head', 'Opacity'):
    assert ('slider', name) in found
  for name in ('mean of 3 heads', 'head 2', 'layer 1', 'first.png'):
    assert ('button', name) in found
  assert ('checkbox', 'Rollout') in found
  assert ('application', 'The image, divided into patches') in found
  texts = reader.run(
    "return ['layer', 'head', 'alpha'].map((name) => at(name).ariaValueText)"
  )
  assert texts == ['1', 'mean', '50 %']


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_texts_stand_out_and_the_focus_shows(reader, theme):
  from selenium.webdriver.common.keys import Keys

  reader.run('root.dataset.theme = arguments[0]', theme)

  def luminance(color):
    values = [int(x) / 255 for x in re.findall(r'\d+', color)[:3]]
    linear = [
      x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4
      for x in values
    ]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

  paper = luminance(
    reader.run('return getComputedStyle(document.body).backgroundColor')
  )
  for name in ('title', 'note', 'question', 'rest', 'keys', 'heads-title'):
    color = reader.run('return getComputedStyle(at(arguments[0])).color', name)
    light, dark = sorted([luminance(color), paper], reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5, name
  reader.keys(Keys.ARROW_UP)
  outline = reader.run(
    "const s = getComputedStyle(at('stage'));"
    'return [s.outlineStyle, parseFloat(s.outlineWidth)]'
  )
  assert outline[0] == 'solid' and outline[1] >= 2


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
