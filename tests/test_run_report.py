"""Tests of the report of runs: its page, its numbers, what runs may lack."""

import shutil
import sys

import numpy as np
import PIL.Image
import pytest
from finished_runs import (
  DIGITS,
  Page,
  mixer_config,
  numbers_of,
  small_config,
  write_run,
)

from scripts import report as script
from vit_jax import errors, evaluate
from vit_jax.run_report import Settings, write_report

pytestmark = pytest.mark.usefixtures('compile_once')
HOSTILE = '<img src=x onerror=alert(1)> & "quotes" $0 @@title'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  path = tmp_path_factory.mktemp('runs') / 'first'
  return write_run(path, small_config(), DIGITS)


@pytest.fixture(scope='module')
def second(run):
  config = small_config()
  config.seed = 7
  return write_run(run.parent / 'second', config, DIGITS, seed=1)


@pytest.fixture(scope='module')
def single(run, tmp_path_factory):
  out = tmp_path_factory.mktemp('single')
  settings = Settings(num_images=5)
  return write_report([run], out, settings), out


@pytest.fixture(scope='module')
def several(run, second, tmp_path_factory):
  out = tmp_path_factory.mktemp('several')
  return write_report([run, second], out, Settings(num_images=2)), out


def test_files(single):
  report, out = single
  assert report.page == out / 'index.html' and not report.missing
  names = {path.name for path in out.iterdir()}
  assert names == {
    'calibration.png', 'classes.png', 'confusion.png', 'curves.png',
    'index.html', 'mistakes.png', 'report.json',
  }  # fmt: skip
  for path in out.glob('*.png'):
    with PIL.Image.open(path) as image:
      assert min(image.size) > 200


@pytest.mark.parametrize('fixture', ['single', 'several'])
def test_page_needs_nothing_else_and_all_can_use_it(request, fixture):
  _, out = request.getfixturevalue(fixture)
  page = Page(out / 'index.html')
  for image in page.all('img'):
    assert image['src'].startswith('data:image/png;base64,')
    assert image['alt'] and int(image['width']) and int(image['height'])
  assert not page.all('script')
  assert all(link['href'].startswith('data:') for link in page.all('link'))
  assert all(th['scope'] in ('row', 'col') for th in page.all('th'))
  assert len(page.all('table')) == len(page.all('caption'))
  identifiers = [attrs['id'] for _, attrs in page.elements if 'id' in attrs]
  assert len({*identifiers}) == len(identifiers)
  for anchor in page.all('a'):
    assert anchor['href'].removeprefix('#') in identifiers
  for attrs in page.all('div'):
    if attrs.get('class') == 'scroll':
      assert attrs['tabindex'] == '0' and attrs['aria-label']
  assert page.all('html') == [{'lang': 'en'}]


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_accuracy_is_that_of_evaluations(tmp_path, dtype):
  config = small_config()
  config.dtype = dtype
  run = write_run(tmp_path / 'run', config, DIGITS)
  expected = evaluate.evaluate_run(config, run)
  write_report([run], tmp_path / 'out', Settings(num_images=0))
  (found,) = numbers_of(tmp_path / 'out')['runs']
  assert found['accuracy'] == expected['test/accuracy']
  assert 0 < found['num_right'] < found['num_examples'] == 360
  assert found['loss'] == pytest.approx(expected['test/loss'], rel=1e-4)
  assert found['top5'] == pytest.approx(expected['test/top5'], rel=1e-6)


def test_mistakes(single):
  _, out = single
  (found,) = numbers_of(out)['runs']
  shown = found['mistakes']
  assert len(shown) == 5
  probabilities = [each['probability'] for each in shown]
  assert probabilities == sorted(probabilities, reverse=True)
  for each in shown:
    assert [each['predicted']] != each['labels']
    assert each['name'] == f'digits test record {each["index"]}'
    assert each['probability_of_labels'] < each['probability']
  page = Page(out / 'index.html')
  num_wrong = found['num_examples'] - found['num_right']
  assert f'5 of the {num_wrong} wrong predictions' in page.text
  # Each beside itself with what was looked at.
  alts = [image['alt'] for image in page.all('img')]
  assert sum('what was looked at' in alt for alt in alts) == 5


def test_evaluations(single):
  _, out = single
  (found,) = numbers_of(out)['runs']
  assert found['evaluations'] == [
    {'step': 2, 'test/accuracy': 0.125, 'test/loss': 2.25},
    {'step': 3, 'test/accuracy': 0.25, 'test/loss': 2.0},
  ]
  assert 'The last 2 evaluations' in Page(out / 'index.html').text


def test_numbers_fit_together(single):
  _, out = single
  (found,) = numbers_of(out)['runs']
  counts = np.array(found['confusion']['counts'])
  assert np.trace(counts) == found['num_right']
  assert sum(found['calibration']['counts']) == found['num_examples'] == 360
  by_index = sorted(found['classes'], key=lambda each: each['index'])
  assert [each['num_right'] for each in by_index] == [*np.diagonal(counts)]
  for pair in found['most_confused']:
    assert counts[pair['label'], pair['predicted']] == pair['num_images']


def test_several(several, run, second):
  report, out = several
  assert not report.missing
  found = numbers_of(out)
  assert [each['name'] for each in found['runs']] == ['first', 'second']
  comparison = found['comparison']
  assert comparison['differing_settings'] == {'seed': [0, 7]}
  (pair,) = comparison['pairs']
  assert pair['first'] == 'first' and pair['second'] == 'second'
  rights = [each['num_right'] for each in found['runs']]
  assert pair['both_right'] + pair['only_first_right'] == rights[0]
  assert pair['both_right'] + pair['only_second_right'] == rights[1]
  examples = pair['examples_only_first_right']
  assert len({*examples}) == len(examples) == pair['only_first_right']
  assert not {*examples} & {*pair['examples_only_second_right']}
  accuracies = np.array([*comparison['class_accuracies'].values()])
  assert accuracies.shape == (10, 2)
  text = Page(out / 'index.html').text
  assert 'first right, second wrong' in text
  assert {path.name for path in out.iterdir()} == {
    '1_first', '2_second', 'comparison_classes.png', 'comparison_curves.png',
    'index.html', 'report.json',
  }  # fmt: skip


@pytest.mark.slow
def test_runs_on_other_data_are_not_compared(run, tmp_path):
  config = small_config()
  config.pp.test = 'test[:97]'
  other = write_run(tmp_path / 'other', config, DIGITS)
  out = tmp_path / 'out'
  write_report([run, other], out, Settings(num_images=0))
  found = numbers_of(out)['comparison']
  assert 'splits' in found['why_not'] and 'pairs' not in found
  assert 'can not be compared example by example' in (
    Page(out / 'index.html').text
  )


@pytest.mark.slow
def test_by_default_into_the_run(tmp_path):
  config = small_config()
  config.pp.test = 'test[:11]'
  run = write_run(tmp_path / 'run', config, DIGITS)
  report = write_report([run], settings=Settings(num_images=0))
  assert report.page == run / 'report' / 'index.html'


@pytest.mark.slow
def test_class_names_are_text(tmp_path):
  names = [HOSTILE, *DIGITS[1:]]
  config = small_config()
  config.pp.test = 'test[:37]'
  run = write_run(tmp_path / 'run', config, names)
  out = tmp_path / 'out'
  report = write_report([run], out)
  assert not report.missing
  page = Page(out / 'index.html')
  assert HOSTILE in page.text
  assert 'x' not in [image['src'] for image in page.all('img')]
  (found,) = numbers_of(out)['runs']
  assert found['class_names'][0] == HOSTILE
  assert any('called otherwise' in note for note in found['notes'])


@pytest.mark.slow
def test_without_attention(tmp_path):
  run = write_run(tmp_path / 'run', mixer_config(), DIGITS)
  out = tmp_path / 'out'
  report = write_report([run], out, Settings(num_images=3))
  assert not report.missing
  page = Page(out / 'index.html')
  assert 'MlpMixer has no attention' in page.text
  assert not any('looked at' in image['alt'] for image in page.all('img'))
  assert (out / 'mistakes.png').exists()


@pytest.mark.slow
def test_folder_of_images_of_several_sizes(tmp_path):
  num_classes = 3
  rng = np.random.default_rng(0)
  for i in range(13):
    split = 'test' if i % 2 else 'train'
    path = tmp_path / f'data/{split}/name {i % num_classes}/{i}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(256, size=(5 + i, 29 - i, 3)).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(path)
  config = small_config(dataset=str(tmp_path / 'data'))
  names = [f'name {i}' for i in range(num_classes)]
  run = write_run(tmp_path / 'run', config, names)
  out = tmp_path / 'out'
  assert not write_report([run], out).missing
  (found,) = numbers_of(out)['runs']
  assert found['num_examples'] == 6
  assert found['mistakes'][0]['name'].startswith(str(tmp_path / 'data'))


@pytest.mark.slow
def test_several_labels(tmp_path, real_dir):
  config = small_config()
  config.tfds_data_dir = real_dir
  config.eval_sets = 'real=real_small:validation'
  run = write_run(tmp_path / 'run', config, DIGITS)
  expected = evaluate.evaluate_run(config, run)
  out = tmp_path / 'out'
  assert not write_report([run], out, Settings(split='real')).missing
  (found,) = numbers_of(out)['runs']
  assert found['accuracy'] == expected['real/accuracy']
  assert found['dataset'] == 'real_small' and found['split'] == 'validation'
  assert found['loss'] is None and found['brier'] is None
  assert any('without a label' in note for note in found['notes'])
  assert any(len(each['labels']) > 1 for each in found['mistakes'])
  assert 'counts for each of them' in Page(out / 'index.html').text


def test_other_data_can_be_asked_for(run, tmp_path):
  out = tmp_path / 'out'
  settings = Settings(split='train[:23]', num_images=0)
  assert not write_report([run], out, settings).missing
  (found,) = numbers_of(out)['runs']
  assert (found['split'], found['num_examples']) == ('train[:23]', 23)
  with pytest.raises(errors.ConfigError, match='nowhere'):
    write_report([run], out, Settings(split='nowhere'))
  with pytest.raises(errors.DataNotFoundError, match='not there'):
    write_report([run], out, Settings(dataset=str(tmp_path / 'nothing')))


def test_names_of_other_data_are_compared(run, tmp_path):
  for i, name in enumerate(['nine', 'one', *'bcdefghi']):
    path = tmp_path / f'data/{name}/{i}.png'
    path.parent.mkdir(parents=True)
    PIL.Image.new('RGB', (8, 8), (i, i, i)).save(path)
  settings = Settings(
    dataset=str(tmp_path / 'data'), split='train', num_images=0
  )
  write_report([run], tmp_path / 'out', settings)
  (found,) = numbers_of(tmp_path / 'out')['runs']
  (note,) = found['notes']
  assert "class 0 is 'b' there, '0' here" in note


def call(monkeypatch, capsys, *args):
  monkeypatch.setattr(sys, 'argv', ['report.py', *map(str, args)])
  return script.main(), capsys.readouterr()


def test_script(run, tmp_path, monkeypatch, capsys):
  out = tmp_path / 'out'
  args = run, '--out', out, '--num_images=1', '--split=test[:19]'
  status, printed = call(monkeypatch, capsys, *args, '--method=rollout')
  assert status == 0 and not printed.err
  assert printed.out.splitlines()[-1] == str(out / 'index.html')
  assert 'attention rollout' in Page(out / 'index.html').text


def test_script_tells_what_is_missing(run, tmp_path, monkeypatch, capsys):
  copy = shutil.copytree(run, tmp_path / 'copy')
  (copy / 'config.json').unlink()
  status, printed = call(monkeypatch, capsys, copy)
  assert status == 1
  assert printed.err.startswith('missing: copy: No accuracy')
  assert printed.err.count('\n') == 1


@pytest.mark.parametrize(
  'args, said',
  [
    (['nothing'], 'not the directory of a run'),
    (['{run}', '{run}'], 'twice'),
    (['{run}', '--num_images=-1'], 'num_images'),
    (['{run}', '--out', '{run}/config.json'], 'can not be written'),
  ],
)
def test_mistakes_of_users(run, monkeypatch, capsys, args, said):
  args = [arg.format(run=run) for arg in args]
  status, printed = call(monkeypatch, capsys, *args)
  assert status == 2
  assert printed.err.startswith('error: ') and said in printed.err
  assert printed.err.count('\n') == 1
