"""Any checkpoint on any data set: exact figures, and those published."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import parity
import pytest
import small_model
from ml_collections import ConfigDict

from configs import datasets, vit
from scripts import evaluate as script
from vit_jax import (
  checkpoint_evaluation,
  checkpoints,
  errors,
  evaluate,
  models,
)
from vit_jax.checkpoint_evaluation import evaluating, published
from vit_jax.checkpoints.places.published import PUBLISHED
from vit_jax.data import cifar

SPLIT = 'test[:47]'


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return str(tmp_path_factory.mktemp('tfds'))


@pytest.fixture
def config(data_dir):
  config = vit.get_config('tiny,digits')
  config.tfds_data_dir = data_dir
  config.pretrained_dir = ''
  config.model.hidden_size = 10
  config.model.transformer.update(mlp_dim=14, num_heads=2, num_layers=1)
  config.pp.update(test=SPLIT, crop=8)
  config.update(batch_eval=23, num_threads=1)
  return config


@pytest.fixture
def workdir(config, tmp_path):
  """A finished run with random weights."""
  path = tmp_path / 'run'
  save_run(path, config)
  return path


def save_run(path, config, num_classes=10):
  path.mkdir()
  model = models.create_model(config.model, num_classes)
  size = config.pp.crop
  params = small_model.random_params(model, (1, size, size, 3))
  checkpoints.save_params(params, path / 'model.npz')
  (path / 'config.json').write_text(config.to_json())
  names = json.dumps([str(i) for i in range(num_classes)])
  (path / 'labels.json').write_text(names)


@pytest.fixture
def run(monkeypatch, capsys):
  """Gives the arguments -> (exit status, standard output, standard error)."""

  def call(*args):
    monkeypatch.setattr(sys, 'argv', ['evaluate.py', *map(str, args)])
    status = script.main()
    return status, *capsys.readouterr()

  return call


# --- Figures -----------------------------------------------------------------


def test_figures_are_those_of_the_run(run, config, workdir):
  wanted = evaluate.evaluate_run(config, workdir)
  found = checkpoint_evaluation.evaluate(str(workdir))
  assert {f'test/{name}': x for name, x in found.metrics.items()} == wanted
  assert len(found.source) == 47 and found.remarks == ()
  assert found.num_right == round(47 * wanted['test/accuracy'])


def test_a_batch_that_does_not_divide_counts_every_example_once(workdir):
  wanted = checkpoint_evaluation.evaluate(str(workdir)).metrics
  for batch in (1, 46, 10**4):
    found = checkpoint_evaluation.evaluate(str(workdir), batch=batch).metrics
    assert found == pytest.approx(wanted, rel=1e-5)
    assert found['accuracy'] == wanted['accuracy']


def test_mixer(config, tmp_path):
  fields = parity.configs()['mini-mixer']
  config.model = ConfigDict(fields['config'])
  config.pp.crop = fields['image_size']
  save_run(tmp_path / 'mixer', config)
  wanted = evaluate.evaluate_run(config, tmp_path / 'mixer')
  found = checkpoint_evaluation.evaluate(str(tmp_path / 'mixer'))
  assert found.metrics['loss'] == wanted['test/loss']
  assert found.metrics['accuracy'] == wanted['test/accuracy']


def test_weights_without_a_run(run, workdir, data_dir, tmp_path):
  path = shutil.copy(workdir / 'model.npz', tmp_path / 'other.npz')
  args = ('--checkpoint', path, '--tfds_data_dir', data_dir, '--json')
  status, out, _ = run(*args, '--dataset', 'digits', '--split', SPLIT)
  wanted = checkpoint_evaluation.evaluate(str(workdir)).metrics
  found = json.loads(out)
  assert status == 0
  assert found['accuracy'] == wanted['accuracy']
  assert found['loss'] == pytest.approx(wanted['loss'], rel=1e-5)
  assert (found['num_examples'], found['image_size']) == (47, 8)
  assert found['published'] is None
  # The preset of the data set says on what is tested.
  _, out, _ = run(*args, '--dataset', 'digits')
  assert json.loads(out)['num_examples'] == 360


def test_summary(run, workdir):
  status, out, err = run('--checkpoint', workdir)
  found = checkpoint_evaluation.evaluate(str(workdir))
  assert (status, err) == (0, '')
  assert 'digits (test[:47]), 47 examples, 10 classes' in out
  accuracy = found.metrics['accuracy']
  assert f'{accuracy:.2%} ({found.num_right} of 47 right)' in out


def test_how_many_were_right_is_not_said_where_some_do_not_count(
  run, config, workdir
):
  config.on_bad_image = 'skip'
  (workdir / 'config.json').write_text(config.to_json())
  status, out, _ = run('--checkpoint', workdir)
  assert status == 0 and 'accuracy: ' in out and ' right)' not in out


def test_classes_that_are_called_otherwise(run, workdir):
  names = json.dumps([*'012345678', 'nine'])
  (workdir / 'labels.json').write_text(names)
  status, _, err = run('--checkpoint', workdir)
  assert status == 0
  assert "class 9 is 'nine' in the weights and '9' in digits" in err


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('', ('', ('train', 'test'), '')),
    ('imagenet2012', ('imagenet2012', ('train[:99%]', 'validation'), '')),
    ('imagenet_v2/topimages', ('imagenet_v2/topimages', ('', 'test'), '')),
    ('imagenet2012_real', ('imagenet2012_real', ('', 'validation'), '')),
    ('digits/0_to_4:1.0.0', ('digits/0_to_4:1.0.0', ('train', 'test'), '')),
    ('my/pets', ('my/pets', ('train', 'test'), '')),
  ],
)
def test_presets(name, expected):
  assert datasets.splits_of(name) == expected


def test_preset_of_vtab():
  name, (_, test), label = datasets.splits_of('vtab/clevr_count')
  assert (name, test, label) == ('clevr', 'validation', 'clevr_count')


def test_head_of_zeros_is_warned_of(workdir, caplog):
  params = dict(np.load(workdir / 'model.npz'))
  params['head/kernel'] = np.zeros_like(params['head/kernel'])
  np.savez(workdir / 'model.npz', **params)
  found = checkpoint_evaluation.evaluate(str(workdir))
  assert found.opened.found.zero_head
  assert "the head's kernel is all zeros" in caplog.text


def test_long_evaluations_tell_how_far_they_are(monkeypatch):
  now, told = [0.0], []
  monkeypatch.setattr(evaluating.time, 'monotonic', lambda: now[0])
  after_batch = evaluating._after_each_batch(told.append, 1100, 250)
  for now[0] in (9.0, 12.0, 21.0, 40.0, 60.0):
    assert not after_batch()
  assert told == [
    '500 of 1,100 images, 0:00:14 left',
    '1,000 of 1,100 images, 0:00:04 left',
  ]


@pytest.mark.slow
@pytest.mark.parametrize('args', [(), ('--json',)])
@pytest.mark.parametrize('sink', ['disk', 'pipe'])
def test_output_that_nobody_takes(workdir, sink, args):
  root = pathlib.Path(script.__file__).parents[1]
  if sink == 'disk':
    place = os.open('/dev/full', os.O_WRONLY)
  else:
    end, place = os.pipe()
    os.close(end)
  done = subprocess.run(
    [sys.executable, 'scripts/evaluate.py', '--checkpoint', workdir, *args],
    cwd=root,
    env={**os.environ, 'PYTHONPATH': str(root)},
    stdout=place,
    stderr=subprocess.PIPE,
    text=True,
  )
  os.close(place)
  if sink == 'disk':
    assert done.stderr == 'error: standard output: No space left on device\n'
    assert done.returncode == 2
  else:
    assert (done.returncode, done.stderr) == (141, '')


# --- What can't be evaluated -------------------------------------------------


@pytest.mark.parametrize(
  ('args', 'text'),
  [
    (('--dataset', 'digits/5_to_9'), 'head of 10 classes, and digits/5_to_9'),
    (('--dataset', 'digitz'), "Did you mean 'digits'"),
    (('--split', 'validation'), "Unknown split 'validation'"),
    (('--image_size', '3'), 'hold no whole patch'),
    (('--label', 'nope'), "Unknown --label 'nope'"),
  ],
)
def test_mistakes_are_one_message(run, workdir, args, text):
  status, out, err = run('--checkpoint', workdir, *args)
  assert (status, out) == (2, '') and err.startswith('error: ')
  assert text in err and 'Traceback' not in err


def test_archive_that_the_user_has_to_fetch(
  run, workdir, tmp_path, monkeypatch
):
  monkeypatch.setattr(cifar, '_probe', lambda url: 'no network')
  status, _, err = run(
    *('--checkpoint', workdir, '--dataset', 'cifar10'),
    *('--tfds_data_dir', tmp_path, '--tfds_manual_dir', tmp_path / 'mine'),
  )
  assert status == 2 and err.endswith('it is in: --tfds_manual_dir DIR\n')
  assert str(tmp_path / 'mine' / 'cifar-10-binary.tar.gz') in err


def test_head_of_imagenet_21k_is_said_to_be_one(workdir, config, tmp_path):
  save_run(tmp_path / 'large', config, 21_843)
  with pytest.raises(errors.ConfigError, match='those of ImageNet-21k'):
    checkpoint_evaluation.evaluate(str(tmp_path / 'large'))


def test_file_without_a_data_set(run, mini):
  status, _, err = run('--checkpoint', mini('mini-vit').path)
  assert status == 2 and '--dataset NAME' in err


def test_rectangles_are_not_evaluated(workdir):
  with pytest.raises(errors.ConfigError, match='8 x 16 pixels'):
    checkpoint_evaluation.evaluate(str(workdir), image_size=(8, 16))


def test_results_that_are_no_numbers(workdir, config):
  params = dict(np.load(workdir / 'model.npz'))
  params['head/kernel'] = np.full_like(params['head/kernel'], 3e38)
  np.savez(workdir / 'model.npz', **params)
  with pytest.raises(errors.NonFiniteError, match='training that failed'):
    checkpoint_evaluation.evaluate(str(workdir))


# --- What was published ------------------------------------------------------

README = (
  'B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0'
  '--imagenet2012-steps_20k-lr_0.03-res_384'
)
IN_1K = 'vit_models/imagenet21k+imagenet2012'


@pytest.mark.parametrize(
  ('checkpoint', 'path', 'accuracy', 'size'),
  [
    ('augreg+imagenet2012/S_16-224', '/cache/x.npz', 0.81384, 224),
    ('imagenet21k+imagenet2012/ViT-B_16', '/cache/x.npz', 0.842, 384),
    (f'gs://{IN_1K}/ViT-L_16-224.npz', '/cache/x.npz', 0.827, 224),
    (
      'x',
      f'/cache/storage.googleapis.com/{IN_1K}/ViT-B_16-224.npz',
      0.812,
      224,
    ),
    (f'weights/{README}.npz', f'weights/{README}.npz', 0.8549, 384),
    (README, f'/cache/{README}.npz', 0.8549, 384),
    ('hf://timm/vit_base_patch32_224.sam_in1k', '/x', 0.73694, 224),
    ('big_vision/vit_s16_i1k_90ep', '/x', 0.765, 224),
  ],
)
def test_published_figures(checkpoint, path, accuracy, size):
  found = published.find_figure(checkpoint, path)
  assert found is not None and found.where.startswith('https://')
  assert (found.accuracy, found.image_size) == (accuracy, size)
  assert (found.dataset, found.split) == ('imagenet2012', 'validation')


@pytest.mark.parametrize(
  'checkpoint',
  ['ViT-B_16.npz', 'ViT-B_16', 'sam/ViT-L_32', 'my/model.npz', 'runs/vit/b16'],
)
def test_nothing_is_known_of_others(checkpoint, tmp_path):
  assert published.find_figure(checkpoint, str(tmp_path / checkpoint)) is None


def test_every_figure_is_of_weights_that_were_published():
  table = published._table()
  weights = [
    each for row in PUBLISHED.values() for some in row.values() for each in some
  ]
  known = {each.file for each in weights} | {
    f'timm/{each.repo.rpartition("/")[2]}' for each in weights
  }
  names = [row['weights'] for row in table['figures']]
  assert len({*names}) == len(names)
  # The README's are fine-tuned with other settings than those that timm has.
  assert all(name in known or '--imagenet2012-' in name for name in names)
  assert {row['source'] for row in table['figures']} == {*table['sources']}
  assert all(0.7 < row['accuracy'] < 0.9 for row in table['figures'])


@pytest.mark.parametrize('accuracy', ['0.875', 'nan', '87.5', ''])
def test_index_of_augreg(tmp_path, accuracy):
  stem = 'Ti_16-i21k-300ep-x--cifar100-steps_2k-lr_0.01-res_224'
  (tmp_path / 'index.csv').write_text(
    'adapt_ds,adapt_resolution,adapt_final_test,adapt_filename\n'
    f'cifar100,384,0.5,other--x\ncifar100,224,{accuracy},{stem}\n'
  )
  found = published.find_figure('x', str(tmp_path / f'{stem}.npz'))
  if accuracy != '0.875':
    assert found is None
  else:
    assert found is not None and found.accuracy == 0.875
    assert (found.dataset, found.split, found.image_size) == (
      *('cifar100', 'test'),
      224,
    )


@pytest.mark.parametrize(
  ('dataset', 'split', 'size', 'reason'),
  [
    ('digits', SPLIT, 8, ''),
    ('cifar10', SPLIT, 8, 'cifar10'),
    ('digits', 'test', 8, "the split 'test'"),
    ('digits', SPLIT, 16, 'images of 16 pixels'),
  ],
)
def test_difference(run, workdir, monkeypatch, dataset, split, size, reason):
  figure = checkpoint_evaluation.Figure(
    0.25, dataset, split, size, 'a paper', 'its table 3', 'cropped'
  )
  monkeypatch.setattr(evaluating, 'find_figure', lambda *_: figure)
  status, out, err = run('--checkpoint', workdir)
  found = checkpoint_evaluation.evaluate(str(workdir))
  assert status == 0
  if reason:
    assert found.difference is None and 'published' not in out
    assert err.startswith(f'warning: a paper has 25.00% for {reason}, which')
    return
  difference = found.metrics['accuracy'] - 0.25
  assert found.difference == difference
  assert '25.00% (a paper), images cropped' in out
  assert f'{100 * difference:+.2f} percentage points' in out
