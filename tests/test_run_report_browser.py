"""The page of a report in a real browser."""

import pytest
from finished_runs import small_config, write_run

from vit_jax.run_report import Settings, write_report

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures('compile_once')]
_NAMES = ['<b>' + 'a long name without a space'.replace(' ', '') * 9] + [
  f'class {i} & others' for i in range(1, 10)
]


@pytest.fixture(scope='module')
def pages(tmp_path_factory):
  path = tmp_path_factory.mktemp('reports')
  runs = [
    write_run(path / f'run{i}', small_config(), _NAMES, seed=i)
    for i in range(2)
  ]
  settings = Settings(num_images=3)
  return {
    'single': write_report(runs[:1], path / 'one', settings).page,
    'several': write_report(runs, path / 'two', settings).page,
  }


@pytest.fixture
def sized(driver):
  def set_size(width):
    # Windows of a headless browser are not made narrower than 500 pixels.
    driver.execute_cdp_cmd(
      'Emulation.setDeviceMetricsOverride',
      {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': False},
    )

  yield set_size
  driver.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


@pytest.mark.parametrize('width', [390, 1400])
@pytest.mark.parametrize('kind', ['single', 'several'])
def test_page(driver, sized, pages, kind, width):
  sized(width)
  driver.get_log('browser')  # What others have left.
  driver.get(pages[kind].as_uri())
  found = driver.execute_script("""
    for (const each of document.querySelectorAll('details')) each.open = true;
    const root = document.documentElement;
    return {
      width: root.scrollWidth,
      images: [...document.images].map(x => x.complete && x.naturalWidth > 0),
      small: [...document.images].filter(x => x.clientWidth < 30).length,
      bold: document.querySelectorAll('b').length,
    };
  """)
  assert found['width'] <= width
  assert len(found['images']) > 8 and all(found['images'])
  assert found['small'] == 0 and found['bold'] == 0
  assert not driver.get_log('browser')


def test_colours_and_keys(driver, sized, pages):
  from selenium.webdriver.common.keys import Keys

  sized(1400)
  driver.get(pages['single'].as_uri())
  active = driver.switch_to.active_element
  active.send_keys(Keys.TAB)
  assert driver.switch_to.active_element.text == 'Skip to the report'
  driver.switch_to.active_element.send_keys(Keys.TAB)
  theme = driver.switch_to.active_element
  assert theme.get_attribute('name') == 'theme'
  papers = []
  for _ in range(2):
    driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    papers.append(
      driver.execute_script(
        'return getComputedStyle(document.body).backgroundColor'
      )
    )
  assert papers == ['rgb(255, 255, 255)', 'rgb(22, 24, 28)']
