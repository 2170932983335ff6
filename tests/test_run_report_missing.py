"""Reports of runs that lack something: what can be had, and what is said."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from finished_runs import DIGITS, Page, numbers_of, small_config, write_run

from vit_jax.checkpoints import load_params
from vit_jax.checkpoints.state import Standing, StateCheckpoints
from vit_jax.run_report import Settings, answers, runs, write_report

pytestmark = pytest.mark.usefixtures('compile_once')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  path = tmp_path_factory.mktemp('runs') / 'first'
  return write_run(path, small_config(), DIGITS)


@pytest.mark.slow
def test_run_under_way(tmp_path):
  config = small_config()
  config.pp.test = 'test[:37]'
  run = write_run(tmp_path / 'run', config, DIGITS)
  params = jax.tree.map(jnp.asarray, load_params(run / 'model.npz'))
  with StateCheckpoints(run / 'checkpoints', 1, None) as saved:
    saved.save(3, {'params': params, 'step': jnp.int32(3)}, Standing(), None)
  out = tmp_path / 'out'
  write_report([run], out, Settings(num_images=1))
  (whole,) = numbers_of(out)['runs']
  assert whole['weights'] == 'model.npz' and not whole['is_under_way']
  (run / 'model.npz').unlink()
  report = write_report([run], out, Settings(num_images=1))
  assert not report.missing
  (found,) = numbers_of(out)['runs']
  assert found['weights'] == 'checkpoints/3' and found['is_under_way']
  assert found['accuracy'] == whole['accuracy']
  assert 'has not finished' in Page(out / 'index.html').text
  shutil.rmtree(run / 'checkpoints')
  report = write_report([run], out)
  (text,) = report.missing['run']
  assert 'no weights yet' in text


def test_weights_saved_while_others_are_read(run, monkeypatch):
  found = runs.read(run, 'run')
  after = iter(
    ['checkpoints/3', 'checkpoints/4', 'checkpoints/4', 'checkpoints/4']
  )
  monkeypatch.setattr(answers, 'find_weights', lambda _: next(after))
  said = answers.ask(found, Settings(split='test[:7]'))
  assert len(said) == 7 and next(after, None) is None
  assert found.weights == 'checkpoints/4'
  assert any('those of checkpoints/4' in note for note in found.notes)


def setting(name, value):
  def change(run):
    path = run / 'config.json'
    settings = json.loads(path.read_text()) | {name: value}
    path.write_text(json.dumps(settings))

  return change


gone = setting('dataset', '/nothing/there')


@pytest.mark.parametrize(
  'spoil, said',
  [
    (gone, "'/nothing/there' is not there"),
    (lambda run: (run / 'config.json').unlink(), 'config.json can not be read'),
    (lambda run: (run / 'config.json').write_text('[1'), 'can not be read'),
    (lambda run: (run / 'config.json').write_text('{}'), 'does not say'),
    (setting('pp', 'x'), 'pp is of another type'),
    (setting('pp', {'crop': '8'}), 'pp.crop is of another type'),
    (setting('batch_eval', 'x'), 'batch_eval is of another type'),
    (setting('tfds_data_dir', 3), 'tfds_data_dir is of another type'),
    (lambda run: (run / 'model.npz').unlink(), 'no weights yet'),
    (lambda run: (run / 'model.npz').write_bytes(b'no'), 'model.npz'),
    (lambda run: (run / 'metrics.jsonl').unlink(), 'No curves'),
  ],
)
def test_what_is_missing_is_said(run, tmp_path, spoil, said):
  copy = shutil.copytree(run, tmp_path / 'copy')
  spoil(copy)
  report = write_report([copy], tmp_path / 'out', Settings(num_images=0))
  (text,) = report.missing['copy']
  assert said in text and '\n' not in text
  page = Page(report.page).text
  assert 'Missing: ' + text in page
  has_curves = 'No curves' not in text
  assert (tmp_path / 'out/curves.png').exists() == has_curves


@pytest.mark.slow
def test_run_that_lacks_something_takes_nothing_from_others(run, tmp_path):
  copy = shutil.copytree(run, tmp_path / 'copy')
  gone(copy)
  report = write_report([copy, run], tmp_path / 'out', Settings(num_images=0))
  assert [*report.missing] == ['copy']
  found = numbers_of(tmp_path / 'out')
  assert 'accuracy' not in found['runs'][0]
  assert found['runs'][1]['accuracy'] > 0
  assert 'fewer than two' in found['comparison']['why_not']


@pytest.mark.slow
def test_weights_of_the_best_evaluation(run, tmp_path):
  copy = shutil.copytree(run, tmp_path / 'copy')
  setting('export', 'best')(copy)
  for is_finished in (True, False):
    report = write_report([copy], tmp_path / 'out', Settings(num_images=0))
    text = Page(report.page).text
    assert ('of the best evaluation' in text) == is_finished
    (copy / 'model.npz').unlink(missing_ok=True)


def test_without_evaluations(run, tmp_path):
  copy = shutil.copytree(run, tmp_path / 'copy')
  (copy / 'metrics.jsonl').write_text('{"step": 1, "train/loss": 2.5}\n')
  report = write_report([copy], tmp_path / 'out', Settings(num_images=0))
  assert not report.missing
  assert 'not been evaluated yet' in Page(report.page).text


def test_values_that_are_not_finite(run, tmp_path):
  config = small_config()
  copy = write_run(tmp_path / 'copy', config, DIGITS, scale=1e30)
  report = write_report([copy], tmp_path / 'out')
  (text,) = report.missing['copy']
  assert 'NaN or infinite' in text
  (found,) = numbers_of(tmp_path / 'out')['runs']
  assert found['calibration'] is None and found['mistakes'] == []


def test_one_class(tmp_path):
  rng = np.random.default_rng(0)
  for name in ('one', 'other'):
    path = tmp_path / f'data/train/{name}/a.png'
    path.parent.mkdir(parents=True)
    pixels = rng.integers(256, size=(9, 9, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(path)
  config = small_config(dataset=str(tmp_path / 'data'))
  config.pp.test = 'train'
  run = write_run(tmp_path / 'run', config, ['one'])
  shutil.rmtree(tmp_path / 'data/train/other')
  report = write_report([run], tmp_path / 'out')
  (text,) = report.missing['run']
  assert 'nothing to learn from one' in text
