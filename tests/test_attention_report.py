"""What `scripts/attention_figures.py` writes, and what it says of mistakes."""

import dataclasses
import functools
import json
import pathlib
import shutil
import sys
from typing import Any

import jax.numpy as jnp
import numpy as np
import pages
import parity
import PIL.Image
import pytest

from scripts import attention_figures
from vit_jax import attention, attention_report, figures
from vit_jax.attention_report import drawing, explorer
from vit_jax.attention_report.looking import Run, Seen
from vit_jax.data import augment, images


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
  """Gives (checkpoint, images, options) -> (exit status, standard error)."""

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
  rng = np.random.default_rng(0)
  paths = []
  for i in range(3):
    paths.append(tmp_path / 'photos' / f'photo{i}.png')
    paths[0].parent.mkdir(exist_ok=True)
    pixels = rng.integers(256, size=(37, 53, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(paths[-1])
  return paths


def summary_of(tmp_path):
  return json.loads((tmp_path / 'out' / 'summary.json').read_text())


# --- What is written ---------------------------------------------------------


def test_all_is_written(run, photos, mini, tmp_path):
  case = mini('mini-vit')
  folder = photos[0].parent
  assert run(case.path, [folder], '--batch=2', '--note=random weights')[0] == 0
  out = tmp_path / 'out'
  entries = summary_of(tmp_path)['images']
  assert [each['image'] for each in entries] == [str(path) for path in photos]
  names = {'contact_sheet.png', 'summary.json', 'photo0', 'photo1', 'photo2'}
  assert {path.name for path in out.iterdir()} == names
  kinds = ('overlay.png', 'layers.png', 'heads.png', 'six_steps.png')
  inside = {path.name for path in (out / 'photo1').iterdir()}
  assert inside == {*kinds, 'maps.npz'}

  pixels = [images.read_image(str(path)) for path in photos]
  size = (case.image_size, case.image_size)
  fitted = np.stack([images.fit_image(each, size, 'crop') for each in pixels])
  batch = augment.normalize(jnp.asarray(fitted))
  maps, logits = attention.rollout_maps(case.model, case.params, batch)
  curves = attention.faithfulness_curves(case.model, case.params, batch, maps)
  for i, entry in enumerate(entries):
    with np.load(out / entry['directory'] / 'maps.npz') as stored:
      assert stored['map'].dtype == stored['class_token'].dtype == np.float32
      np.testing.assert_allclose(stored['map'], maps[i], rtol=1e-4)
      np.testing.assert_array_equal(stored['image'], fitted[i])
    assert entry['prediction'] == entry['class']
    assert entry['prediction']['class'] == int(logits[i].argmax())
    areas = entry['faithfulness']
    for kind in ('deletion_area', 'insertion_area'):
      assert areas[kind] == pytest.approx(float(getattr(curves, kind)[i]), 1e-3)


@pytest.mark.parametrize('method', attention_report.METHODS)
def test_map_is_that_of_the_method_and_class(
  run, photos, mini, tmp_path, method
):
  case = mini('mini-vit')
  options = (f'--method={method}', '--class=-3', '--heads=1', '--layers=0')
  status, err = run(
    case.path, photos[:1], *options, '--fit=pad', '--no-faithfulness'
  )
  assert (status, err) == (0, '')
  (entry,) = summary_of(tmp_path)['images']
  assert entry['class']['class'] == case.num_classes - 3
  assert entry['faithfulness'] is None
  with np.load(tmp_path / 'out' / 'photo0' / 'maps.npz') as stored:
    found, class_token = stored['map'], stored['class_token']
    batch = augment.normalize(jnp.asarray(stored['image'][None]))
  args = case.model, case.params, batch
  wanted = {
    'rollout': lambda: attention.rollout_maps(*args).maps[0],
    'grad_rollout': lambda: attention.grad_rollout_maps(*args, -3).maps[0],
    'relevance': lambda: attention.relevance_maps(*args, -3).maps[0],
    'raw': lambda: class_token[0, 1],
  }[method]()
  np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_each_figure_shows_what_it_says(
  run, photos, mini, tmp_path, monkeypatch
):
  drawn = {}
  for kind in ('overlay', 'layers', 'heads', 'six_steps'):
    monkeypatch.setattr(
      figures,
      f'plot_{kind}',
      lambda *args, kind=kind: drawn.update({kind: args}),
    )
  options = ('--layers=1,0', '--heads=2,0', '--method=raw', '--alpha=0.25')
  run(mini('mini-vit').path, photos[:1], *options, '--no-faithfulness')
  with np.load(tmp_path / 'out' / 'photo0' / 'maps.npz') as stored:
    image, maps = stored['image'], stored['class_token']
  chosen = maps[[1, 0]][:, [2, 0]]
  wanted = {
    'overlay': (image, chosen[1].mean(0)),
    'layers': (image, chosen.mean(1), [1, 0]),
    'heads': (image, chosen, [1, 0], [2, 0]),
    'six_steps': (image, maps[-1]),
  }
  for kind, values in wanted.items():
    *found, path, _, style = drawn[kind]
    assert path == tmp_path / 'out' / 'photo0' / f'{kind}.png'
    assert style.alpha == 0.25
    for each, value in zip(found, values, strict=True):
      np.testing.assert_allclose(each, value, rtol=1e-5)


@pytest.mark.parametrize(
  ('names', 'top', 'asked'),
  [
    (None, 'class 1, 62.5%', 'asked about class 0, 12.5%'),
    (['cat', 'dog', '2'], 'dog, 62.5%', 'asked about cat, 12.5%'),
  ],
)
def test_titles_have_the_prediction_and_the_class_asked_about(
  names, top, asked
):
  run: Any = Run(*[None] * 6, names, None, attention_report.Settings())  # pyright: ignore[reportArgumentType]
  values = np.zeros((2, 2), np.float32)
  seen = Seen('a', np.zeros((4, 4, 3), np.uint8), values, values[None, None])
  assert drawing.title_of(run, seen) == ''
  shares = np.array([0.125, 0.625, 0.25], np.float32)
  seen = dataclasses.replace(seen, probabilities=shares, class_index=1)
  assert drawing.title_of(run, seen) == top
  seen = dataclasses.replace(seen, class_index=0)
  assert drawing.title_of(run, seen).splitlines() == [top, asked]


def test_images_of_one_name_do_not_meet(run, photos, mini, tmp_path):
  other = tmp_path / 'photo0.jpg'
  other.write_bytes(photos[1].read_bytes())
  run(mini('mini-vit').path, [photos[0], other], '--no-faithfulness')
  entries = summary_of(tmp_path)['images']
  assert [each['directory'] for each in entries] == ['photo0', 'photo0-2']


def test_weights_without_a_head_have_maps_but_no_prediction(
  run, photos, tmp_path
):
  arrays = parity.make_checkpoint(parity.layout('mini-vit'), 0)
  path = tmp_path / 'headless.npz'
  body: Any = {k: v for k, v in arrays.items() if k[:5] != 'head/'}
  np.savez(path, **body)
  assert run(path, photos[:1]) == (0, '')
  (entry,) = summary_of(tmp_path)['images']
  assert entry['prediction'] is entry['class'] is entry['faithfulness'] is None
  status, err = run(path, photos[:1], '--method=relevance')
  assert status == 2 and 'num_classes=None' in err


def test_what_is_done_stays_when_the_user_stops_it(
  run, photos, mini, tmp_path, monkeypatch
):
  draw = drawing.draw_image

  def stop_at_the_second(run, seen, folder):
    if 'photo1' in seen.name:
      raise KeyboardInterrupt
    draw(run, seen, folder)

  monkeypatch.setattr(drawing, 'draw_image', stop_at_the_second)
  status, err = run(mini('mini-vit').path, photos, '--no-faithfulness')
  assert status == 130 and 'stopped' in err
  assert [x['directory'] for x in summary_of(tmp_path)['images']] == ['photo0']


# --- The page ----------------------------------------------------------------


def test_page_alone(run, photos, mini, tmp_path):
  case = mini('mini-vit')
  path = tmp_path / 'new' / 'page.html'
  options = ('--head_fusion=max', '--colormap=gray', '--note=random weights')
  status = run(case.path, photos, f'--html={path}', *options, out=False)
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
  run, photos, mini, tmp_path, monkeypatch
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
  status, err = run(case.path, photos, f'--html={path}', '--no-faithfulness')
  assert status == 0
  assert f'no room for 1 of the images, from {photos[2]} on' in err
  settings = pages.settings_of(path)
  assert len(settings['images']) == 2 and settings['numLeftOut'] == 1
  assert len(summary_of(tmp_path)['images']) == 3


def test_nothing_to_write_and_nowhere_to(run, photos, mini, tmp_path):
  path = mini('mini-vit').path
  status, err = run(path, photos, out=False)
  assert status == 2 and 'nothing to write. Give --out DIR' in err
  status, err = run(path, photos, f'--html={tmp_path}', out=False)
  assert status == 2 and f'{tmp_path} is a directory' in err
  (tmp_path / 'file').touch()
  status, err = run(path, photos, f'--html={tmp_path}/file/a.html', out=False)
  assert status == 2 and 'can not be written' in err


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
  run, photos, run_directory, tmp_path
):
  run(run_directory, photos[:1], '--class=animal 2', '--no-faithfulness')
  (entry,) = summary_of(tmp_path)['images']
  assert entry['class']['class'] == 2
  assert entry['class']['name'] == 'animal 2'
  assert entry['prediction']['name'] == f'animal {entry["prediction"]["class"]}'
  status, err = run(run_directory, photos[:1], '--class=animul 2')
  assert status == 2 and "Did you mean 'animal 2'?" in err


@pytest.mark.parametrize('text', ['["one"]', '{"a": 1}', '[1, 2', None])
def test_labels_that_are_none_are_left_alone(
  run, photos, run_directory, tmp_path, text
):
  labels = run_directory / 'labels.json'
  if text is None:
    labels.unlink()
  else:
    labels.write_text(text)
  assert run(run_directory, photos[:1], '--no-faithfulness')[0] == 0
  (entry,) = summary_of(tmp_path)['images']
  assert entry['prediction']['name'] is None
  status, err = run(run_directory, photos[:1], '--class=cat')
  assert status == 2 and 'without class names, so give a number from 0' in err


# --- Mistakes ----------------------------------------------------------------


def test_bad_image_is_told_at_the_end_and_the_rest_goes_on(
  run, photos, mini, tmp_path
):
  photos[1].write_bytes(photos[1].read_bytes()[:99])
  names = [*photos, tmp_path / 'none.png']
  path = mini('mini-vit').path
  status, err = run(path, names, '--batch=2', '--no-faithfulness')
  assert status == 1
  assert err.count('error: ') == 2 and len(err.splitlines()) == 2
  found = summary_of(tmp_path)
  assert [each['directory'] for each in found['images']] == ['photo0', 'photo2']
  assert list(found['failed']) == [str(photos[1]), str(names[-1])]


@pytest.mark.parametrize(
  ('name', 'option', 'text'),
  [
    ('mini-mixer', '--method=raw', 'has no attention to look at: a Mixer'),
    ('mini-vit', '--layers=99', 'no layer 99: valid are 0 to'),
    ('mini-vit', '--heads=0,99', 'no head 99: valid are 0 to'),
    ('mini-vit', '--class=99', 'no class 99: valid are 0 to'),
    ('mini-vit', '--colormap=nonesuch', "Unknown colormap 'nonesuch'"),
    ('mini-vit', '--alpha=2', 'alpha 2.0 is not in'),
    ('mini-vit', '--batch=0', 'batch 0 is not positive'),
  ],
)
def test_mistake_is_one_message(
  run, photos, checkpoint_file, tmp_path, name, option, text
):
  status, err = run(checkpoint_file(name), photos, option)
  assert status == 2
  assert err.startswith('error: ') and text in err
  assert len(err.splitlines()) == 1
  assert not (tmp_path / 'out').exists()


def test_out_that_is_a_file_is_told(run, photos, checkpoint_file, tmp_path):
  (tmp_path / 'out').touch()
  status, err = run(checkpoint_file('mini-vit'), photos)
  assert status == 2 and 'can not be written' in err
