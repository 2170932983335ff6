"""Someone who reads a page of the explorer in a real browser."""

import re
import time

import numpy as np
import pages
import pytest

from vit_jax import figures

STYLE = figures.Style(alpha=0.5, colormap='magma', note='random weights')


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
