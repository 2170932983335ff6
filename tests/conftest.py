"""Fixtures shared by the tests; what is slow to make is made once a session."""

import dataclasses
import functools
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator
from typing import Any

import compiling
import jax
import numpy as np
import parity
import PIL.Image
import pytest
from jaxtyping import install_import_hook

# What these say of the shapes that they take and give is checked at every call.
# Before the first import of the package: the hook is for what comes after it.
install_import_hook(
  [
    'vit_jax.attention',
    'vit_jax.checkpoints.adapt',
    'vit_jax.figures.pictures',
    'vit_jax.models.positions',
    'vit_jax.models.resnet',
  ],
  'beartype.beartype',
)

import file_server  # noqa: E402

import vit_jax  # noqa: E402
from vit_jax import checkpoints, sharding  # noqa: E402
from vit_jax.checkpoints import leftovers  # noqa: E402

# What is compared was recorded on a CPU; other devices multiply with fewer
# digits. The variable is for the processes that tests start.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
jax.config.update('jax_platforms', os.environ['JAX_PLATFORMS'])


def pytest_configure(config) -> None:
  """Compiles in a hurry, except for the slow tests."""
  if 'not slow' in config.option.markexpr:
    compiling.hurry()


@dataclasses.dataclass(frozen=True)
class Mini:
  """A mini model of the parity data with its seed-0 weights and images."""

  name: str
  num_classes: int
  image_size: int
  model: Any
  path: pathlib.Path
  params: Any  # As read from `path`.
  images: np.ndarray  # [2, image_size, image_size, 3]
  # (params, images) -> (logits, attention weights [layers, 2, heads, tokens,
  # tokens], of a Mixer None); compiled at the first call.
  apply: Callable


@pytest.fixture(scope='session', autouse=True)
def _private_cache(tmp_path_factory) -> Iterator[None]:
  """Keeps the tests out of the cache of whoever runs them."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('VIT_JAX_CACHE', str(tmp_path_factory.mktemp('cache')))
    patch.setenv('VIT_JAX_OFFLINE', '1')  # Nor may they need a network.
    yield


@pytest.fixture(scope='session', autouse=True)
def _without_leftovers() -> None:
  """Drops what Orbax leaves behind, in whichever test it is collected."""
  leftovers.drop()


@pytest.fixture(scope='session')
def everywhere() -> jax.sharding.NamedSharding:
  """A copy of an array on each device."""
  return sharding.replicated(sharding.make_mesh())


@pytest.fixture
def saved(monkeypatch) -> list[Any]:
  """Gives the figures that are saved, with all that is in them."""
  from vit_jax.figures import canvas

  found = []
  save = canvas.save

  def spy(figure, *args):
    found.append(figure)
    save(figure, *args)

  monkeypatch.setattr(canvas, 'save', spy)
  return found


@pytest.fixture
def draw(monkeypatch, capsys, tmp_path):
  """Gives (checkpoint, images, options) -> (status, standard error).

  It runs `scripts/attention_figures.py`, which writes to tmp_path / 'out'.
  """

  from scripts import attention_figures

  def call(checkpoint, names, *options, out=True):
    monkeypatch.setattr(
      sys,
      'argv',
      [
        'attention_figures.py',
        f'--checkpoint={checkpoint}',
        *([f'--out={tmp_path / "out"}'] if out else []),
        '--dpi=20',
        *options,
        '--images',
        *map(str, names),
      ],
    )
    status = attention_figures.main()
    return status, capsys.readouterr().err

  return call


@pytest.fixture
def photos(tmp_path) -> list[pathlib.Path]:
  """Three images in a directory of their own."""
  rng = np.random.default_rng(0)
  paths = []
  for i in range(3):
    paths.append(tmp_path / 'photos' / f'photo{i}.png')
    paths[0].parent.mkdir(exist_ok=True)
    pixels = rng.integers(256, size=(37, 53, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(paths[-1])
  return paths


@pytest.fixture(scope='session')
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
  import browser
  import pages

  path = tmp_path_factory.mktemp('pages') / f'{request.param}.html'
  return pages.make(path, request.param, style=browser.STYLE, title='small')


@pytest.fixture
def reader(driver, made):
  import browser

  found = browser.Reader(driver, made)
  yield found
  assert not [
    entry for entry in driver.get_log('browser') if entry['level'] == 'SEVERE'
  ]


@pytest.fixture(scope='module')
def compile_once(tmp_path_factory):
  """Runs that differ in nothing compiled share the compilation."""
  names = {
    'jax_compilation_cache_dir': str(tmp_path_factory.mktemp('compiled')),
    'jax_persistent_cache_min_compile_time_secs': 0,
  }
  before = {name: getattr(jax.config, name) for name in names}
  for name, value in names.items():
    jax.config.update(name, value)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.fixture
def warned(caplog) -> Iterator[Callable[[], str]]:
  """Gives a function that returns what was warned of a folder so far."""
  from vit_jax.data import scan

  scan.warn_once.cache_clear()
  with caplog.at_level('WARNING', 'absl'):
    yield lambda: caplog.text


@pytest.fixture
def root(tmp_path) -> pathlib.Path:
  """An empty folder beside others, for a data set of images."""
  path = tmp_path / 'pets'
  path.mkdir()
  return path


@pytest.fixture
def record_cache(tmp_path, monkeypatch) -> pathlib.Path:
  """Where TFRecord's indices are kept, which the first to write there makes."""
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'cache'))
  return tmp_path / 'cache' / 'tfrecord'


@pytest.fixture
def shards(tmp_path, record_cache) -> list[pathlib.Path]:
  """Paths of the five shards of `tfrecords.RECORDS`, to be damaged at will."""
  import tfrecords

  return tfrecords.write_shards(tmp_path)


@pytest.fixture(scope='session')
def real_dir(tmp_path_factory) -> str:
  """Directory of the data sets `real_small` and `real_large`."""
  import real_labels
  import tfrecords

  directory = tmp_path_factory.mktemp('tfds')
  for builder in (real_labels.RealSmall, real_labels.RealLarge):
    tfrecords.prepare(builder, directory, 'array_record')
  return str(directory)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> pathlib.Path:
  """An empty cache and an empty working directory; nothing is contacted."""
  return file_server.isolate(tmp_path, monkeypatch)


@pytest.fixture
def server(monkeypatch) -> Iterator[Any]:
  """A server in place of Google's storage and of Hugging Face."""
  with file_server.stand_in(monkeypatch) as running:
    yield running


@pytest.fixture(scope='session')
def checkpoint_file(tmp_path_factory) -> Callable[..., pathlib.Path]:
  """Gives (name, seed=0) -> the `.npz` file of the layout called `name`."""
  directory = tmp_path_factory.mktemp('checkpoints')

  @functools.cache
  def write(name: str, seed: int = 0) -> pathlib.Path:
    path = directory / f'{name}-seed{seed}.npz'
    np.savez(path, **parity.make_checkpoint(parity.layout(name), seed))
    return path

  return write


@pytest.fixture(scope='session')
def mini(checkpoint_file) -> Callable[[str], Mini]:
  """Gives the name of a mini ViT, hybrid or Mixer -> its `Mini`."""

  @functools.cache
  def make(name: str) -> Mini:
    fields = parity.configs()[name]
    size, num_classes = fields['image_size'], fields['num_classes']
    model = vit_jax.create_model(fields['config'], num_classes)
    path = checkpoint_file(name)
    return Mini(
      name=name,
      num_classes=num_classes,
      image_size=size,
      model=model,
      path=path,
      params=checkpoints.load_params(path),
      images=parity.make_images(2, size, size, 0),
      apply=_compiled(model),
    )

  return make


def _compiled(model: Any) -> Callable:
  @jax.jit
  def apply(params, images):
    logits, state = model.apply(
      {'params': params}, images, train=False, mutable=['intermediates']
    )
    if 'intermediates' not in state:
      return logits, None
    blocks = state['intermediates']['Transformer']
    weights = [
      blocks[f'encoderblock_{i}']['MultiHeadDotProductAttention_0'][
        'attention_weights'
      ][0]
      for i in range(model.num_layers)
    ]
    return logits, jax.numpy.stack(weights)

  return apply
