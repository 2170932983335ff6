"""The page beside or without figures, and the names of a run's classes."""

import functools
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pages
import pytest

from vit_jax import attention
from vit_jax.attention_report import explorer, writing
from vit_jax.data import augment, images

# --- The page ----------------------------------------------------------------


def test_page_alone(draw, photos, mini, tmp_path):
  case = mini('mini-vit')
  path = tmp_path / 'new' / 'page.html'
  options = ('--head_fusion=max', '--colormap=gray', '--note=random weights')
  status = draw(case.path, photos, f'--html={path}', *options, out=False)
  assert status == (0, '')
  assert not (tmp_path / 'out').exists()
  settings = pages.settings_of(path)
  assert str(case.path) in settings['title']
  assert settings['headFusion'] == 'max'
  assert settings['note'] == 'random weights'
  names = [each['name'] for each in settings['images']]
  assert names == [str(photo) for photo in photos]
  image = images.fit_image(
    images.read_image(names[1]), (case.image_size, case.image_size)
  )
  batch = augment.normalize(jnp.asarray(image[None]))
  wanted = attention.attention_weights(case.model, case.params, batch)[:, 0]
  rolled = attention.layer_rollouts(wanted, 'max')
  found, _ = pages.weights_of(path, 1)
  largest = found.max(-1, keepdims=True)
  assert (
    np.abs(found[:, :-1] - wanted[..., 1:]) / largest[:, :-1]
  ).max() < 5e-3
  assert (np.abs(found[:, -1] - rolled[..., 1:]) / largest[:, -1]).max() < 5e-3
  top = int(case.apply(case.params, batch)[0].argmax())
  assert settings['images'][1]['title'].startswith(f'class {top}, ')


def test_page_beside_figures_has_what_there_is_room_for(
  draw, photos, mini, tmp_path, monkeypatch
):
  case = mini('mini-vit')
  grid = case.model.grid((case.image_size, case.image_size))
  patches = grid[0] * grid[1]
  one = explorer.packing.packed_size(
    case.model.num_layers, case.model.num_heads, patches + 1, patches
  )
  small_page = functools.partial(explorer.Page, max_bytes=2 * one + 1)
  monkeypatch.setattr(explorer, 'Page', small_page)
  path = tmp_path / 'page.html'
  status, err = draw(case.path, photos, f'--html={path}', '--no-faithfulness')
  assert status == 0
  assert f'no room for 1 of the images, from {photos[2]} on' in err
  settings = pages.settings_of(path)
  assert len(settings['images']) == 2 and settings['numLeftOut'] == 1
  assert len(pages.summary_of(tmp_path)['images']) == 3


def test_nothing_to_write_and_nowhere_to(draw, photos, mini, tmp_path):
  path = mini('mini-vit').path
  status, err = draw(path, photos, out=False)
  assert status == 2 and 'nothing to write. Give --out DIR' in err
  status, err = draw(path, photos, f'--html={tmp_path}', out=False)
  assert status == 2 and f'{tmp_path} is a directory' in err
  (tmp_path / 'file').touch()
  status, err = draw(path, photos, f'--html={tmp_path}/file/a.html', out=False)
  assert status == 2 and 'can not be written' in err


def test_page_measures_nothing_and_has_the_prediction_alone(
  draw, photos, mini, tmp_path, monkeypatch
):
  monkeypatch.setattr(attention, 'faithfulness_curves', None)
  path = tmp_path / 'page.html'
  status = draw(
    mini('mini-vit').path, photos[:1], f'--html={path}', '--class=1', out=False
  )
  assert status == (0, '')
  (image,) = pages.settings_of(path)['images']
  assert 'asked' not in image['title'] and image['title'].endswith('%')


def test_page_that_can_not_be_written_is_told_at_once(
  draw, photos, mini, tmp_path, monkeypatch
):
  monkeypatch.setattr(writing, '_write_all', None)
  path = tmp_path / 'page.html'
  (tmp_path / 'page.html.partial').mkdir()  # As good as no permission.
  status, err = draw(mini('mini-vit').path, photos, f'--html={path}')
  assert status == 2 and err.startswith(f'error: {path}: can not be written')


# --- Class names -------------------------------------------------------------


@pytest.fixture
def run_directory(tmp_path, mini):
  """A run's directory with the weights of mini-vit and names of its classes."""
  case = mini('mini-vit')
  folder = tmp_path / 'run'
  folder.mkdir()
  shutil.copy(case.path, folder / 'model.npz')
  names = [f'animal {i}' for i in range(case.num_classes)]
  (folder / 'labels.json').write_text(json.dumps(names))
  return folder


def test_names_of_a_run_are_shown_and_can_be_asked_about(
  draw, photos, run_directory, tmp_path
):
  draw(run_directory, photos[:1], '--class=animal 2', '--no-faithfulness')
  (entry,) = pages.summary_of(tmp_path)['images']
  assert entry['class']['class'] == 2
  assert entry['class']['name'] == 'animal 2'
  assert entry['prediction']['name'] == f'animal {entry["prediction"]["class"]}'
  status, err = draw(run_directory, photos[:1], '--class=animul 2')
  assert status == 2 and "Did you mean 'animal 2'?" in err


@pytest.mark.parametrize('text', ['["one"]', '{"a": 1}', '[1, 2', None])
def test_labels_that_are_none_are_left_alone(
  draw, photos, run_directory, tmp_path, text
):
  labels = run_directory / 'labels.json'
  if text is None:
    labels.unlink()
  else:
    labels.write_text(text)
  assert draw(run_directory, photos[:1], '--no-faithfulness')[0] == 0
  (entry,) = pages.summary_of(tmp_path)['images']
  assert entry['prediction']['name'] is None
  status, err = draw(run_directory, photos[:1], '--class=cat')
  assert status == 2 and 'without class names, so give a number from 0' in err
