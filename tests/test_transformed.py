"""What is shown of a spatial transformer, and what is said of its weights."""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import PIL.Image
import pytest
from ml_collections import ConfigDict
from test_inspection import loaded_as_told, parse

import vit_jax
from configs import spatial_transformer as configs
from vit_jax import attention_report, checkpoints, errors, figures, transformed
from vit_jax.attention_report import looking
from vit_jax.checkpoints.state import Standing, StateCheckpoints
from vit_jax.data import sources
from vit_jax.inspection import describe, report
from vit_jax.models import spatial_transformer

# ml_collections, while it reads a config.
pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)
SCRIPT = 'scripts/spatial_transformer_figure.py'


@pytest.fixture(scope='module')
def make_run(tmp_path_factory):
  """Gives an argument -> (directory of a run, its model, its parameters)."""
  data_dir = tmp_path_factory.mktemp('tfds')

  def make(argument, **fields):
    config = configs.get_config(argument)
    config.tfds_data_dir = str(data_dir)
    config.model.update(fields)
    model = vit_jax.create_model(config.model, 10)
    images = np.zeros((1, 32, 32, 3), np.float32)
    params = jax.jit(model.init)(jax.random.key(0), images)['params']
    rng = np.random.default_rng(0)
    params = jax.tree.map(
      lambda leaf: np.asarray(leaf + rng.normal(0, 0.03, leaf.shape), 'f4'),
      params,
    )
    run = tmp_path_factory.mktemp('run')
    checkpoints.save_params(params, run / 'model.npz')
    (run / 'config.json').write_text(json.dumps(config.to_dict()))
    (run / 'labels.json').write_text(json.dumps([*map(str, range(10))]))
    return run, model, params

  return make


@pytest.fixture(scope='module')
def run(make_run):
  return make_run('digits')


@pytest.fixture(scope='module')
def found(run):
  return transformed.look(str(run[0]), num_columns=4)


def test_columns_are_of_the_test_split(run, found):
  config = ConfigDict(json.loads((run[0] / 'config.json').read_text()))
  source = sources.load_source(config, 'test')
  assert found.dataset == 'digits/distorted (test)'
  assert found.names == ['0', '1', '2', '3']
  for label in range(4):
    images = source.images[source.labels == label]
    np.testing.assert_array_equal(found.images[label], images[0])
    np.testing.assert_allclose(found.means[label], images.mean(0), atol=0.51)


def test_made_are_the_models_own(run, found):
  _, model, params = run
  inputs = found.images / np.float32(127.5) - 1
  made, theta = spatial_transformer.transform(model, params, inputs)
  np.testing.assert_allclose(found.made / 127.5 - 1, made, atol=0.01)
  np.testing.assert_allclose(
    found.outlines, transformed.outlines(np.asarray(theta), (32, 32)), atol=0.01
  )


def test_outline_of_the_identity_is_the_images_border():
  theta = np.reshape(spatial_transformer.IDENTITY, (1, 2, 3))
  corners = transformed.outlines(theta, (5, 7))[0]
  assert corners.tolist() == [[0, 0], [7, 0], [7, 5], [0, 5]]
  half = theta * 0.5
  half[0, 0, 2] = 0.5  # To the right.
  corners = transformed.outlines(half, (5, 8))[0]
  assert corners.tolist() == [[4, 1.25], [8, 1.25], [8, 3.75], [4, 3.75]]


def test_turns_are_anticlockwise():
  image = np.random.default_rng(0).uniform(-1, 1, (6, 6, 3)).astype('f4')
  turned = transformed.turn(image, np.array([0.0, 90.0, 180.0]))
  for times in range(3):
    np.testing.assert_allclose(turned[times], np.rot90(image, times), atol=1e-5)
  # Of what is no square, no pixel is stretched.
  image = np.full((5, 9, 3), -1, np.float32)
  image[2, 3:6] = 1
  turned = transformed.turn(image, np.array([90.0]))[0]
  np.testing.assert_allclose(turned[1:4, 4], 1, atol=1e-5)
  assert turned.mean() == pytest.approx(image.mean(), abs=1e-5)


@pytest.mark.parametrize('suffix', ['png', 'svg'])
def test_figure_is_written(found, tmp_path, suffix):
  path = tmp_path / f'figure.{suffix}'
  # None would be seen that lies beyond the borders.
  square = np.tile([[8.0, 8.0], [24, 8], [24, 24], [8, 24]], (4, 1, 1))
  found = dataclasses.replace(found, outlines=square)
  figures.plot_transformed(found, path, found.dataset)
  if suffix == 'png':
    with PIL.Image.open(path) as image:
      assert image.width > 500 and image.height > 800
      red, _, blue = np.moveaxis(np.asarray(image, np.int32), -1, 0)
    assert (red - blue > 100).sum() > 4 * 100  # The outlines, over the images.
  else:
    text = path.read_text()
    assert text.startswith('<?xml') and text.count('<image') == 24


def call(*arguments):
  return subprocess.run(
    [sys.executable, SCRIPT, *map(str, arguments)],
    capture_output=True,
    text=True,
    check=False,
  )


def test_script(run, tmp_path):
  path = tmp_path / 'figure.png'
  done = call('--checkpoint', run[0], '--out', path, '--columns', '3')
  assert (done.returncode, done.stdout) == (0, f'{path}\n'), done.stderr
  assert path.is_file()


def test_script_says_what_is_wrong(make_run, tmp_path):
  plain, *_ = make_run('digits,plain')
  for arguments, text in (
    ((plain, tmp_path / 'figure.png'), 'cnn has no spatial transformer before'),
    ((plain, tmp_path / 'figure.jpg'), "Unknown format 'jpg'"),
    ((plain, tmp_path / 'no' / 'figure.png'), 'is in no directory there is'),
  ):
    done = call('--checkpoint', arguments[0], '--out', arguments[1])
    assert done.returncode == 2 and not done.stdout
    last = done.stderr.splitlines()[-1]
    assert 'error: ' in last and text in last
  assert not [*tmp_path.iterdir()]


@pytest.fixture(scope='module')
def steps_run(make_run):
  """A run with checkpoints of three steps: its directory and parameters."""
  run, model, params = make_run('digits')
  saved = {}
  with StateCheckpoints(run / 'checkpoints', 3, None) as manager:
    for step in (2, 5, 11):
      saved[step] = jax.tree.map(lambda leaf, by=step: leaf * by / 11, params)
      manager.save(step, {'params': saved[step]}, Standing(), None)
  return run, model, saved


def test_each_row_is_of_its_step(steps_run):
  run, model, saved = steps_run
  found = transformed.look_at_steps(str(run), [11, 2, 2], 3)
  assert found.steps == [2, 11] and found.names == ['0', '1', '2']
  inputs = found.images / np.float32(127.5) - 1
  for i, step in enumerate(found.steps):
    made, theta = spatial_transformer.transform(model, saved[step], inputs)
    np.testing.assert_allclose(found.made[i] / 127.5 - 1, made, atol=0.01)
    corners = transformed.outlines(np.asarray(theta), (32, 32))
    np.testing.assert_allclose(found.outlines[i], corners, atol=0.01)
  assert (found.made[0] != found.made[1]).any()


def test_steps_are_drawn(steps_run, tmp_path):
  path = tmp_path / 'figure.svg'
  found = transformed.look_at_steps(str(steps_run[0]), [5, 11, 2], 3)
  figures.plot_learned(found, path, found.dataset)
  assert path.read_text().count('<image') == 4 * 3


def test_steps_of_a_run_under_way(steps_run, tmp_path):
  run = pathlib.Path(shutil.copytree(steps_run[0], tmp_path / 'run'))
  (run / 'model.npz').unlink()
  found = transformed.look_at_steps(str(run), [2, 5], 1)
  before = transformed.look_at_steps(str(steps_run[0]), [2, 5], 1)
  np.testing.assert_allclose(found.made.astype(int), before.made, atol=1)


def test_step_of_another_name(steps_run, tmp_path):
  run = pathlib.Path(shutil.copytree(steps_run[0], tmp_path / 'run'))
  (run / 'checkpoints/5').rename(run / 'checkpoints/7')
  with pytest.raises(errors.CheckpointError, match='it is of step 5'):
    transformed.look_at_steps(str(run), [7])


def test_steps_that_are_not_there(steps_run, run):
  for where, text in (
    (steps_run, 'has no step 3, 7; there are: 2, 5, 11. A run keeps'),
    (run, 'has no step 3, 5, 7; there are: none. A run keeps'),
  ):
    with pytest.raises(errors.ConfigError, match=text):
      transformed.look_at_steps(str(where[0]), [7, 5, 3])


def test_damaged_step(steps_run, tmp_path):
  run = tmp_path / 'run'
  shutil.copytree(steps_run[0], run)
  (run / 'checkpoints' / '5' / 'standing' / 'metadata').write_text('{}')
  with pytest.raises(
    errors.CheckpointError, match=r'5: the checkpoint can not'
  ):
    transformed.look_at_steps(str(run), [2, 5])
  assert transformed.look_at_steps(str(run), [2], 1).steps == [2]


def test_weights_of_no_run(run, tmp_path):
  alone = tmp_path / 'weights.npz'
  alone.write_bytes((run[0] / 'model.npz').read_bytes())
  with pytest.raises(errors.ConfigError, match='is not of a run'):
    transformed.look(str(alone))


@pytest.mark.parametrize(('argument', 'fields'), [
  ('digits', {}),
  ('digits', {'conv_features': (3, 4, 5), 'conv_kernel_size': 5}),
  ('digits,plain', {'dense_size': 7}),
  ('digits,vit', {}),
  ('digits,vit', {'spatial_transformer': {'features': (6,), 'size': 14}}),
])  # fmt: skip
def test_file_is_fine_tuned_as_it_says(make_run, monkeypatch, argument, fields):
  run, _, params = make_run(argument, **fields)
  said = describe(run)
  assert f'configs/spatial_transformer.py:{argument} ' in said.command
  config = parse(said.command, monkeypatch)
  assert config.pp.crop == 32
  found = loaded_as_told(said.command, monkeypatch)
  kernel = 'spatial_transformer/hidden/kernel'
  assert (kernel in found) == ('plain' not in argument)
  for key in (kernel, 'hidden/kernel', 'conv_1/kernel'):
    if key in found:
      value = params
      for name in key.split('/'):
        value = value[name]
      np.testing.assert_array_equal(found[key], value)
  table = report.as_table(said)
  assert ('spatial transformer' in table) == ('plain' not in argument)


def test_attention_is_drawn_over_what_the_transformer_makes(make_run):
  run, model, params = make_run('digits,vit')
  settings = attention_report.Settings(image_size=(32, 32))
  opened = looking.load(str(run), settings)
  pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
  failed = {}
  seen = looking.look(opened, ['one', 'two'], pixels, failed)
  assert not failed
  inputs = pixels / np.float32(127.5) - 1
  made, _ = spatial_transformer.transform(model, params, inputs)
  for i, each in enumerate(seen):
    np.testing.assert_allclose(each.image / 127.5 - 1, made[i], atol=0.01)
  logits = model.apply({'params': params}, inputs)
  np.testing.assert_allclose(
    [each.probabilities for each in seen], jax.nn.softmax(logits), rtol=1e-3
  )
