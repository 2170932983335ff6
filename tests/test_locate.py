"""Where weights are looked for, and what is said when they aren't there."""

import pathlib
import shlex

import numpy as np
import pytest

import vit_jax
from vit_jax import checkpoints, errors
from vit_jax.checkpoints.locate import cache_dir, locate, locate_file

BUCKET = 'https://storage.googleapis.com/vit_models'


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  """An empty cache and an empty working directory."""
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'cache'))
  (tmp_path / 'work').mkdir()
  monkeypatch.chdir(tmp_path / 'work')
  return tmp_path / 'cache'


def touch(path: pathlib.Path) -> str:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.touch()
  return str(path)


def error_of(*args) -> str:
  with pytest.raises(errors.CheckpointNotFoundError) as caught:
    locate(*args)
  return str(caught.value)


def fetch_of(text: str) -> tuple[str, str]:
  """Returns the file and the address of the command in an error."""
  (line,) = (line for line in text.splitlines() if 'curl' in line)
  *options, target, address = shlex.split(line)
  assert options == ['curl', '-fL', '--create-dirs', '-o']
  return target, address


@pytest.mark.parametrize('kind', [str, pathlib.Path])
def test_path(tmp_path, kind):
  path = touch(tmp_path / 'weights' / 'ViT-B_16.npz')
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
  path = touch(tmp_path / 'runs' / 'vit' / 'tiny,digits' / 'model.npz')
  assert locate(tmp_path / 'runs' / 'vit' / 'tiny,digits') == path


def test_directory_is_a_run(tmp_path):
  path = touch(tmp_path / 'runs' / 'model.npz')
  assert locate('ViT-B_16', tmp_path / 'runs') == path


def test_directory_is_the_file(tmp_path):
  path = touch(tmp_path / 'mine.npz')
  assert locate('ViT-B_16', tmp_path / 'mine.npz') == path


def test_weights_that_lie_around_are_not_taken_for_named_ones(cache):
  touch(pathlib.Path('model.npz'))
  path = touch(cache / 'ViT-B_16.npz')
  assert locate('ViT-B_16') == path


@pytest.mark.parametrize('name', ['ViT-B_16', 'ViT-B_16.npz'])
def test_name_in_the_directory(tmp_path, name):
  path = touch(tmp_path / 'pretrained' / 'ViT-B_16.npz')
  assert locate(name, str(tmp_path / 'pretrained')) == path


@pytest.mark.parametrize('directory', ['.', 'gs://vit_models/imagenet21k'])
@pytest.mark.parametrize('name', ['R_Ti_16-lr_0.001', 'augreg/S_16.npz'])
def test_name_in_the_cache(cache, name, directory):
  path = touch(cache / f'{name.removesuffix(".npz")}.npz')
  assert locate(name, directory) == path


def test_order_of_the_places(cache, tmp_path):
  directory = tmp_path / 'pretrained'
  cached = touch(cache / 'b16.npz')
  assert locate('b16', str(directory)) == cached
  named = touch(directory / 'b16.npz')
  assert locate('b16', str(directory)) == named
  touch(tmp_path / 'work' / 'b16')
  assert locate('b16', str(directory)) == 'b16'


def test_directory_without_weights_is_passed_over(cache):
  pathlib.Path('ViT-B_16').mkdir()
  text = error_of('ViT-B_16')
  assert '\n  ViT-B_16/model.npz\n' in text
  path = touch(cache / 'ViT-B_16.npz')
  assert locate('ViT-B_16') == path


def test_error_lists_all_places(cache, tmp_path):
  text = error_of('ViT-B_16', str(tmp_path / 'pretrained'))
  assert text.splitlines()[:6] == [
    "No weights for 'ViT-B_16'. Looked at:",
    '  ViT-B_16',
    '  ViT-B_16/model.npz',
    f'  {tmp_path}/pretrained/ViT-B_16.npz',
    f'  {tmp_path}/pretrained/model.npz',
    f'  {cache}/ViT-B_16.npz',
  ]
  assert '--config.pretrained_dir=' in text


@pytest.mark.parametrize(('name', 'directory', 'address'), [
  ('ViT-B_16', '.', f'{BUCKET}/imagenet21k/ViT-B_16.npz'),
  ('R50+ViT-B_16', '/pre', f'{BUCKET}/imagenet21k/R50+ViT-B_16.npz'),
  ('weights/ViT-B_16', '.', f'{BUCKET}/imagenet21k/ViT-B_16.npz'),
  ('S_16-i21k-300ep', '/pre', f'{BUCKET}/augreg/S_16-i21k-300ep.npz'),
  ('ViT-B_16', 'gs://vit_models/sam', f'{BUCKET}/sam/ViT-B_16.npz'),
  ('Ti_16-s_0', 'gs://vit_models/augreg/', f'{BUCKET}/augreg/Ti_16-s_0.npz'),
  ('augreg/S_16', 'gs://vit_models', f'{BUCKET}/augreg/S_16.npz'),
  ('gs://vit_models/sam/ViT-L_16.npz', '.', f'{BUCKET}/sam/ViT-L_16.npz'),
  ('b16', 'https://example.org/w', 'https://example.org/w/b16.npz'),
])  # fmt: skip
def test_what_the_command_fetches_is_then_found(name, directory, address):
  target, found = fetch_of(error_of(name, directory))
  assert found == address
  path = touch(pathlib.Path(target))
  assert locate(name, directory) == path


@pytest.mark.parametrize('name', ["it's-i21k-mine", '$HOME-i1k-; ls'])
def test_command_is_safe_to_paste(name, cache):
  target, address = fetch_of(error_of(name))
  assert target == f'{cache}/{name}.npz'
  assert address == f'{BUCKET}/augreg/{name}.npz'


@pytest.mark.parametrize('directory', ['.', 'gs://vit_models/imagenet21k'])
@pytest.mark.parametrize('name', ['tiny', 'ViT-Ti_16', 'x'])
def test_no_command_for_what_was_never_published(name, directory, tmp_path):
  text = error_of(name, directory)
  assert 'curl' not in text
  assert 'configs/augreg.py:Ti_16' in text
  assert '--config.pretrained_dir=)' in text


def test_absolute_path_is_fetched_to_where_it_was_looked_for(tmp_path):
  path = tmp_path / 'weights' / 'ViT-B_16.npz'
  text = error_of(path)
  assert fetch_of(text)[0] == str(path)
  assert text.count(f'\n  {path}\n') == 1


def test_file_beside_the_weights(cache, tmp_path):
  directory = tmp_path / 'augreg'
  for place in (directory, 'gs://vit_models/augreg'):
    with pytest.raises(errors.CheckpointNotFoundError) as caught:
      locate_file('index.csv', place)
    target, address = fetch_of(str(caught.value))
    assert target == str(cache / 'index.csv')
    assert address == f'{BUCKET}/augreg/index.csv'
  assert f'\n  {directory}/index.csv\n' not in str(caught.value)
  cached = touch(cache / 'index.csv')
  assert locate_file('index.csv', directory) == cached
  beside = touch(directory / 'index.csv')
  assert locate_file('index.csv', directory) == beside
  assert locate_file('index.csv', 'gs://vit_models/augreg') == cached


@pytest.mark.parametrize('value', [None, ''])
def test_cache_is_below_home_by_default(value, monkeypatch):
  monkeypatch.setenv('HOME', '/home/ada')
  if value is None:
    monkeypatch.delenv('VIT_JAX_CACHE')
  else:
    monkeypatch.setenv('VIT_JAX_CACHE', value)
  assert cache_dir() == pathlib.Path('/home/ada/.cache/vit_jax')


def test_pretrained_name_is_located(cache):
  model = vit_jax.create_model('tiny', 7)
  with pytest.raises(errors.CheckpointNotFoundError, match='Looked at'):
    checkpoints.load_pretrained('tiny', model, 8)
  cache.mkdir()
  checkpoints.save_params({'x': np.zeros((1, 1, 64))}, cache / 'tiny.npz')
  with pytest.raises(errors.CheckpointError, match='missing') as caught:
    checkpoints.load_pretrained('tiny', model, 8)
  assert str(cache / 'tiny.npz') in str(caught.value)
