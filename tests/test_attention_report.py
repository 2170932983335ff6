"""What `scripts/attention_figures.py` writes, and what it says of mistakes."""

import dataclasses
import shutil
from typing import Any

import jax.numpy as jnp
import numpy as np
import pages
import parity
import pytest

import vit_jax
from vit_jax import attention, attention_report, figures, trained
from vit_jax.attention_report import drawing, looking
from vit_jax.attention_report.looking import Run, Seen
from vit_jax.data import augment, images

# --- What is written ---------------------------------------------------------


def test_all_is_written(draw, photos, mini, tmp_path):
  case = mini('mini-vit')
  folder = photos[0].parent
  assert draw(case.path, [folder], '--batch=2', '--note=random weights')[0] == 0
  out = tmp_path / 'out'
  entries = pages.summary_of(tmp_path)['images']
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
  draw, photos, mini, tmp_path, method
):
  case = mini('mini-vit')
  options = (f'--method={method}', '--class=-3', '--heads=1', '--layers=0')
  status, err = draw(
    case.path, photos[:1], *options, '--fit=pad', '--no-faithfulness'
  )
  assert (status, err) == (0, '')
  (entry,) = pages.summary_of(tmp_path)['images']
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
  draw, photos, mini, tmp_path, monkeypatch
):
  drawn = {}
  for kind in ('overlay', 'layers', 'heads', 'six_steps'):
    monkeypatch.setattr(
      figures,
      f'plot_{kind}',
      lambda *args, kind=kind: drawn.update({kind: args}),
    )
  options = ('--layers=1,0', '--heads=2,0', '--method=raw', '--alpha=0.25')
  draw(mini('mini-vit').path, photos[:1], *options, '--no-faithfulness')
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


def run_with_classes(names: list[str] | None) -> Any:
  nothing: Any = None
  opened = trained.Trained(*[nothing] * 4, names, None)
  return Run(opened, nothing, nothing, None, attention_report.Settings())


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
  run = run_with_classes(names)
  values = np.zeros((2, 2), np.float32)
  seen = Seen('a', np.zeros((4, 4, 3), np.uint8), values, values[None, None])
  assert drawing.title_of(run, seen) == ''
  shares = np.array([0.125, 0.625, 0.25], np.float32)
  seen = dataclasses.replace(seen, probabilities=shares, class_index=1)
  assert drawing.title_of(run, seen) == top
  seen = dataclasses.replace(seen, class_index=0)
  assert drawing.title_of(run, seen).splitlines() == [top, asked]


def test_names_that_the_font_lacks_are_numbers_in_figures():
  run = run_with_classes(['\u56f3', ' '])
  seen = Seen('a', None, None, None, np.array([0.75, 0.25]), 1)  # pyright: ignore[reportArgumentType]
  top, asked = drawing.title_of(run, seen).splitlines()
  assert (top, asked) == ('class 0, 75.0%', 'asked about class 1, 25.0%')
  assert drawing.prediction_of(run, seen) == '\u56f3, 75.0%'


def test_raw_overlay_says_of_what_it_is(draw, photos, mini, saved):
  options = ('--method=raw', '--layers=1,0', '--heads=2,0')
  draw(mini('mini-vit').path, photos[:2], *options, '--no-faithfulness')
  titles = [figure.get_suptitle() for figure in saved]
  wanted = 'attention of layer 0, mean of heads 2, 0'
  assert titles[0].endswith(f'\n{wanted}') and titles[-1] == wanted


def test_areas_are_of_the_class_asked_about(draw, photos, mini, tmp_path):
  case = mini('mini-vit')
  draw(case.path, photos[:1], '--class=1')
  (entry,) = pages.summary_of(tmp_path)['images']
  assert entry['prediction']['class'] != 1
  with np.load(tmp_path / 'out' / 'photo0' / 'maps.npz') as stored:
    batch = augment.normalize(jnp.asarray(stored['image'][None]))
    curves = attention.faithfulness_curves(
      case.model, case.params, batch, stored['map'][None], 1
    )
  found = entry['faithfulness']['deletion_area']
  assert found == pytest.approx(float(curves.deletion_area[0]), rel=1e-4)


def test_last_sheet_may_have_a_single_image(
  draw, photos, mini, tmp_path, monkeypatch
):
  monkeypatch.setattr(drawing, '_PER_SHEET', 2)
  draw(mini('mini-vit').path, photos, '--no-faithfulness')
  sheets = sorted(path.name for path in (tmp_path / 'out').glob('contact*'))
  assert sheets == ['contact_sheet.png', 'contact_sheet_2.png']


def test_maps_stand_where_their_patches_are(draw, photos, mini, monkeypatch):
  case = mini('mini-vit')
  styles = []
  monkeypatch.setattr(
    figures, 'plot_overlay', lambda *args: styles.append(args[-1])
  )
  draw(case.path, photos[:1], '--no-faithfulness')
  assert styles[0].token_size == tuple(case.model.patch_size)


def test_size_that_is_no_square(draw, photos, mini, tmp_path):
  case = mini('mini-vit')
  height, width = case.image_size, 2 * case.image_size
  option = f'--image_size={height}x{width}'
  assert draw(case.path, photos[:1], option, '--no-faithfulness')[0] == 0
  found = pages.summary_of(tmp_path)
  assert found['image_size'] == [height, width]
  assert found['grid'] == list(case.model.grid((height, width)))
  with np.load(tmp_path / 'out' / 'photo0' / 'maps.npz') as stored:
    assert stored['image'].shape == (height, width, 3)


def test_gelu_of_transformers_is_the_exact_one(tmp_path, mini):
  case = mini('mini-vit')
  path = tmp_path / 'model.safetensors'
  vit_jax.save_params(case.params, path, names='transformers')
  settings = attention_report.Settings(num_heads=case.model.num_heads)
  for found, gelu in ((path, 'exact'), (case.path, 'tanh')):
    assert looking.load(str(found), settings).model.gelu == gelu


def test_file_in_the_way_of_a_directory_stays(draw, photos, mini, tmp_path):
  (tmp_path / 'out').mkdir()
  (tmp_path / 'out' / 'photo0').write_text('mine')
  assert draw(mini('mini-vit').path, photos[:1], '--no-faithfulness')[0] == 0
  (entry,) = pages.summary_of(tmp_path)['images']
  assert entry['directory'] == 'photo0-2'
  assert (tmp_path / 'out' / 'photo0').read_text() == 'mine'


def test_images_of_one_name_do_not_meet(draw, photos, mini, tmp_path):
  other = tmp_path / 'photo0.jpg'
  other.write_bytes(photos[1].read_bytes())
  draw(mini('mini-vit').path, [photos[0], other], '--no-faithfulness')
  entries = pages.summary_of(tmp_path)['images']
  assert [each['directory'] for each in entries] == ['photo0', 'photo0-2']


def test_weights_without_a_head_have_maps_but_no_prediction(
  draw, photos, tmp_path
):
  arrays = parity.make_checkpoint(parity.layout('mini-vit'), 0)
  path = tmp_path / 'headless.npz'
  body: Any = {k: v for k, v in arrays.items() if k[:5] != 'head/'}
  np.savez(path, **body)
  assert draw(path, photos[:1]) == (0, '')
  (entry,) = pages.summary_of(tmp_path)['images']
  assert entry['prediction'] is entry['class'] is entry['faithfulness'] is None
  status, err = draw(path, photos[:1], '--method=relevance')
  assert status == 2 and 'num_classes=None' in err


def test_what_is_done_stays_when_the_user_stops_it(
  draw, photos, mini, tmp_path, monkeypatch
):
  draw_image = drawing.draw_image

  def stop_at_the_second(run, seen, folder):
    if 'photo1' in seen.name:
      raise KeyboardInterrupt
    draw_image(run, seen, folder)

  monkeypatch.setattr(drawing, 'draw_image', stop_at_the_second)
  status, err = draw(mini('mini-vit').path, photos, '--no-faithfulness')
  assert status == 130 and 'stopped' in err
  assert [x['directory'] for x in pages.summary_of(tmp_path)['images']] == [
    'photo0'
  ]


# --- Mistakes ----------------------------------------------------------------


def test_bad_image_is_told_at_the_end_and_the_rest_goes_on(
  draw, photos, mini, tmp_path
):
  photos[1].write_bytes(photos[1].read_bytes()[:99])
  names = [*photos, tmp_path / 'none.png']
  path = mini('mini-vit').path
  status, err = draw(path, names, '--batch=2', '--no-faithfulness')
  assert status == 1
  assert err.count('error: ') == 2 and len(err.splitlines()) == 2
  found = pages.summary_of(tmp_path)
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
    ('mini-vit', '--image_size=0x8', "size '0x8' is neither a side"),
    ('mini-vit', '--head_fusion=max', "nothing of method 'relevance'"),
    ('mini-vit', '--discard_ratio=0.5', "nothing of method 'relevance'"),
  ],
)
def test_mistake_is_one_message(
  draw, photos, checkpoint_file, tmp_path, name, option, text
):
  method = () if 'method' in option else ('--method=relevance',)
  status, err = draw(checkpoint_file(name), photos, option, *method)
  assert status == 2
  assert err.startswith('error: ') and text in err
  assert len(err.splitlines()) == 1
  assert not (tmp_path / 'out').exists()


def test_values_that_are_not_finite_are_told_of_each_image(
  draw, photos, tmp_path
):
  arrays = parity.make_checkpoint(parity.layout('mini-vit'), 0)
  for key in arrays:
    if 'encoderblock_0' in key and key.endswith('scale'):
      arrays[key] = np.full_like(arrays[key], 3e38)
  path = tmp_path / 'huge.npz'
  np.savez(path, allow_pickle=False, **arrays)
  page = tmp_path / 'page.html'
  status, err = draw(path, photos[:2], f'--html={page}')
  assert status == 1
  assert err.count('the model makes NaN or infinite values of this image') == 2
  assert list(pages.summary_of(tmp_path)['failed']) == [
    str(p) for p in photos[:2]
  ]
  assert not page.exists()


def test_path_that_is_no_text(draw, photos, mini, tmp_path):
  path = tmp_path / 'b\udcff.npz'
  shutil.copy(mini('mini-vit').path, path)
  page = tmp_path / 'page.html'
  status = draw(path, photos[:1], f'--html={page}', out=False)
  assert status == (0, '')
  assert 'b?.npz' in page.read_text(encoding='utf-8')


def test_out_that_is_a_file_is_told(draw, photos, checkpoint_file, tmp_path):
  (tmp_path / 'out').touch()
  status, err = draw(checkpoint_file('mini-vit'), photos)
  assert status == 2 and 'can not be written' in err
