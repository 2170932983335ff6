"""Where weights are looked for, in which order, and what is taken for what."""

import hashlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from file_server import CONTENT, ON_HUB, Answer, give_on_hub, touch

import vit_jax
from vit_jax import checkpoints, errors
from vit_jax.checkpoints.locate import locate, locate_file
from vit_jax.checkpoints.places import published
from vit_jax.environment import cache_dir

BUCKET = 'https://storage.googleapis.com/vit_models'
SHA256 = hashlib.sha256(CONTENT).hexdigest()


# Nothing is contacted but the server.
pytestmark = pytest.mark.usefixtures('empty_cache')


def error_of(*args, **kwargs) -> str:
  with pytest.raises(errors.CheckpointNotFoundError) as caught:
    locate(*args, **kwargs)
  return str(caught.value)


@pytest.mark.parametrize('kind', [str, pathlib.Path])
@pytest.mark.parametrize('file', ['ViT-B_16.npz', 'model.safetensors'])
def test_path(tmp_path, kind, file):
  path = touch(tmp_path / 'weights' / file)
  assert locate(kind(path)) == path


def test_relative_path(tmp_path):
  touch(tmp_path / 'work' / 'weights.npz')
  assert locate('weights.npz') == 'weights.npz'


def test_home(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  path = touch(tmp_path / 'ViT-B_16.npz')
  assert locate('~/ViT-B_16.npz') == path
  assert locate('ViT-B_16', '~') == path


def test_run_directory(tmp_path):
  run = tmp_path / 'runs' / 'vit' / 'tiny,digits'
  path = touch(run / 'model.npz')
  assert locate(run) == path


def test_directory_is_a_run(tmp_path):
  path = touch(tmp_path / 'runs' / 'model.npz')
  assert locate('ViT-B_16', tmp_path / 'runs') == path


def test_run_that_is_not_finished(tmp_path):
  run = tmp_path / 'run'
  (run / 'checkpoints').mkdir(parents=True)
  assert str(run / 'checkpoints') in error_of(run)
  touch(run / 'checkpoints' / '200' / '_METADATA')
  assert locate(run) == locate('tiny', run) == str(run)
  path = touch(run / 'model.npz')
  assert locate(run) == path


@pytest.mark.parametrize('file', ['mine.npz', 'mine.safetensors'])
def test_directory_is_the_file(tmp_path, file):
  path = touch(tmp_path / file)
  assert locate('ViT-B_16', tmp_path / file) == path


def test_weights_that_lie_around_are_not_taken_for_named_ones(empty_cache):
  touch(pathlib.Path('model.npz'))
  touch(pathlib.Path('checkpoints/200/_METADATA'))
  path = touch(empty_cache / 'ViT-B_16.npz')
  assert locate('ViT-B_16') == path


@pytest.mark.parametrize('name', ['ViT-B_16', 'ViT-B_16.npz'])
def test_name_in_the_directory(tmp_path, name):
  path = touch(tmp_path / 'pretrained' / 'ViT-B_16.npz')
  assert locate(name, str(tmp_path / 'pretrained')) == path


@pytest.mark.parametrize('other', [
  'tiny', 'tiny.npz', 'tiny/model.npz', 'tiny/checkpoints/2/x', 'model.npz',
])  # fmt: skip
def test_name_is_no_path_where_a_directory_is_given(tmp_path, other):
  touch(tmp_path / 'work' / other)
  path = touch(tmp_path / 'work' / 'base' / 'tiny.npz')
  assert locate('tiny', tmp_path / 'work' / 'base') == path
  assert locate('tiny', 'base') == 'base/tiny.npz'
  assert locate(path, 'base') == path
  pathlib.Path(path).unlink()
  assert f'\n  {other}\n' not in error_of('tiny', 'base')


@pytest.mark.parametrize(('files', 'expected'), [
  (['model.safetensors', 'a.npz'], 'model.safetensors'),
  (['my.npz', 'config.json', '._my.npz'], 'my.npz'),
  (['my.safetensors'], 'my.safetensors'),
  (['model.npz', 'model.safetensors'], 'model.npz'),
  (['tiny.safetensors', 'model.npz'], 'tiny.safetensors'),
])  # fmt: skip
def test_directory_as_other_libraries_write_it(tmp_path, files, expected):
  for file in files:
    touch(tmp_path / 'clone' / file)
  path = str(tmp_path / 'clone' / expected)
  assert locate('tiny', tmp_path / 'clone') == path
  if expected != 'tiny.safetensors':
    assert locate('ViT-L_16', tmp_path / 'clone') == path
    assert locate(tmp_path / 'clone') == path


def test_only_file_is_not_taken_for_other_published_weights(
  server, tmp_path, caplog
):
  give_on_hub(server, ON_HUB)
  path = touch(tmp_path / 'weights' / 'ViT-L_16.npz')
  assert locate(tmp_path / 'weights') == path
  with caplog.at_level('WARNING', 'absl'):
    assert ON_HUB in locate('ViT-B_16', tmp_path / 'weights')
  assert 'weights has ViT-L_16.npz: name one' in caplog.text


def test_file_without_a_suffix(tmp_path):
  touch(tmp_path / 'work' / 'blob')
  assert locate('tiny', 'blob') == locate('blob') == 'blob'


@pytest.mark.parametrize('name', ['ViT-B_16', 'tiny', 'sam/ViT-L_16'])
@pytest.mark.parametrize(('directory', 'path'), [
  ('sam/ViT-B_16', 'sam/ViT-B_16'),
  ('ViT-L_16', 'imagenet21k/ViT-L_16'),
  ('S_16-i1k-300ep-x', 'augreg/S_16-i1k-300ep-x'),
  ('augreg/B_16', 'augreg/B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-'
   'sd_0.0'),
])  # fmt: skip
def test_directory_that_is_the_name_of_weights(
  server, tmp_path, name, directory, path
):
  server.give(f'/vit_models/{path}.npz', Answer(CONTENT))
  assert locate(name, directory).endswith(f'/vit_models/{path}.npz')
  local = touch(tmp_path / 'work' / directory / 'model.npz')
  assert locate(name, directory) == f'{directory}/model.npz'
  assert pathlib.Path(local).exists()


def test_other_format_in_the_directory(tmp_path):
  path = touch(tmp_path / 'pretrained' / 'ViT-B_16.safetensors')
  assert locate('ViT-B_16', tmp_path / 'pretrained') == path


@pytest.mark.parametrize('directory', ['.', 'gs://vit_models/imagenet21k'])
@pytest.mark.parametrize('name', ['R_Ti_16-lr_0.001', 'augreg/S_16.npz'])
def test_name_in_the_cache(empty_cache, name, directory):
  path = touch(empty_cache / f'{name.removesuffix(".npz")}.npz')
  assert locate(name, directory) == path


@pytest.mark.parametrize(
  'directory', ['gs://vit_models/sam', 'sam', 'https://example.org/w']
)
def test_file_of_unknown_origin_is_not_taken_for_another(
  empty_cache, directory
):
  touch(empty_cache / 'ViT-B_16.npz')
  assert 'offline' in error_of('ViT-B_16', directory)
  assert 'offline' in error_of('sam/ViT-B_16')


def test_upstreams_do_not_mix(empty_cache):
  touch(
    empty_cache / 'storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz'
  )
  assert 'offline' in error_of('ViT-B_16', 'sam')
  sam = touch(
    empty_cache / 'storage.googleapis.com/vit_models/sam/ViT-B_16.npz'
  )
  for name, directory in (
    ('ViT-B_16', 'sam'),
    ('ViT-B_16.npz', 'gs://vit_models/sam/'),
    ('sam/ViT-B_16', '.'),
    ('sam/ViT-B_16', 'gs://vit_models'),
    ('gs://vit_models/sam/ViT-B_16.npz', '.'),
    (f'{BUCKET}/sam/ViT-B_16.npz', '.'),
    ('ViT-L_16', 'gs://vit_models/sam/ViT-B_16.npz'),
  ):
    assert locate(name, directory) == sam
  assert locate('ViT-B_16').endswith('/imagenet21k/ViT-B_16.npz')


def test_order_of_the_places(server, empty_cache, tmp_path):
  give_on_hub(server, ON_HUB)
  (tmp_path / 'weights').mkdir()
  hub = locate('ViT-B_16', tmp_path / 'weights')
  assert hub == f'{empty_cache}/huggingface.co/{ON_HUB}/main/model.safetensors'
  server.give('/vit_models/imagenet21k/ViT-B_16.npz', Answer(CONTENT))
  pathlib.Path(hub).unlink()
  google = locate('ViT-B_16', tmp_path / 'weights')
  assert google == (
    f'{empty_cache}/storage.googleapis.com/vit_models/imagenet21k/ViT-B_16.npz'
  )
  server.requests.clear()
  flat = touch(empty_cache / 'ViT-B_16.npz')
  assert locate('ViT-B_16', tmp_path / 'weights') == flat
  named = touch(tmp_path / 'weights' / 'ViT-B_16.npz')
  assert locate('ViT-B_16', tmp_path / 'weights') == named
  assert not server.requests


def test_what_is_cached_from_the_hub_spares_the_bucket(server, empty_cache):
  path = touch(empty_cache / f'huggingface.co/{ON_HUB}/main/model.safetensors')
  assert locate('ViT-B_16', 'gs://vit_models/imagenet21k') == path
  assert not server.requests


@pytest.mark.parametrize('name', [
  'gs://vit_models/imagenet21k/ViT-B_16.npz',
  'imagenet21k/ViT-B_16',
])  # fmt: skip
def test_refused_by_the_bucket_and_had_from_the_hub(server, name, caplog):
  server.give('/vit_models/imagenet21k/ViT-B_16.npz', Answer(status=403))
  give_on_hub(server, ON_HUB)
  with caplog.at_level('INFO', 'absl'):
    path = locate(name)
  assert pathlib.Path(path).read_bytes() == CONTENT
  assert f'{path}, from hf://{ON_HUB}' in caplog.text


def test_stand_in_for_the_best_weights_is_told(server, caplog):
  give_on_hub(server, 'timm/vit_large_patch16_224.augreg_in21k')
  with caplog.at_level('WARNING', 'absl'):
    locate('augreg/L_16')
  assert (
    'aug_strong1-wd_0.1-do_0.0-sd_0.0.npz, are not to be had' in caplog.text
  )


def test_file_beside_the_weights(server, empty_cache, tmp_path):
  directory = tmp_path / 'augreg'
  directory.mkdir()
  with pytest.raises(errors.CheckpointNotFoundError) as caught:
    locate_file('index.csv', directory)
  assert f'\n  {directory}/index.csv\n' in str(caught.value)
  assert 'gs://vit_models/augreg/index.csv: HTTP 404' in str(caught.value)
  server.give('/vit_models/augreg/index.csv', Answer(CONTENT))
  for place in (directory, 'augreg', 'gs://vit_models/augreg'):
    fetched = locate_file('index.csv', place)
    assert fetched.endswith('googleapis.com/vit_models/augreg/index.csv')
  cached = touch(empty_cache / 'index.csv')
  assert locate_file('index.csv', directory) == cached
  beside = touch(directory / 'index.csv')
  assert locate_file('index.csv', directory) == beside
  assert locate_file('index.csv', 'gs://vit_models/augreg') == cached
  url = server.give('/w/index.csv', Answer(CONTENT)).removesuffix('/index.csv')
  assert locate_file('index.csv', url).endswith('/w/index.csv')


@pytest.mark.parametrize('value', [None, ''])
def test_cache_is_below_home_by_default(value, monkeypatch):
  monkeypatch.setenv('HOME', '/home/ada')
  if value is None:
    monkeypatch.delenv('VIT_JAX_CACHE')
  else:
    monkeypatch.setenv('VIT_JAX_CACHE', value)
  assert cache_dir() == pathlib.Path('/home/ada/.cache/vit_jax')


def test_pretrained_name_is_located(empty_cache):
  model = vit_jax.create_model('tiny', 7)
  with pytest.raises(errors.CheckpointNotFoundError, match='Looked at'):
    checkpoints.load_pretrained('tiny', model, 8)
  empty_cache.mkdir()
  checkpoints.save_params(
    {'cls': np.zeros((1, 1, 64))}, empty_cache / 'tiny.npz'
  )
  with pytest.raises(errors.CheckpointError) as caught:
    checkpoints.load_pretrained('tiny', model, 8)
  assert str(empty_cache / 'tiny.npz') in str(caught.value)


def test_import_is_light():
  code = (
    'import sys; from vit_jax.checkpoints import locate, augreg; '
    'print(*sorted(sys.modules))'
  )
  root = pathlib.Path(vit_jax.__file__).parents[1]
  loaded = subprocess.run(
    [sys.executable, '-c', code],
    cwd=root, capture_output=True, text=True, check=True,
  ).stdout.split()  # fmt: skip
  assert 'vit_jax.checkpoints.locate' in loaded
  heavy = {'requests', 'urllib3', 'huggingface_hub', 'filelock', 'rich', 'jax'}
  assert not heavy & {*loaded}


def test_default_upstreams_are_in_the_table():
  assert set(published.DEFAULT_UPSTREAMS) <= set(published.PUBLISHED)
