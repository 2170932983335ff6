"""Runs on folders of images: their configs, what they print and leave."""

import json

import pytest
from image_folder import add_classes

from configs import augreg, mixer, vit
from vit_jax import config_checks, errors, train
from vit_jax.data import sources


@pytest.fixture
def root(tmp_path):
  add_classes(tmp_path / 'pets', cat=21, dog=33)
  return tmp_path / 'pets'


@pytest.mark.parametrize(
  ('get_config', 'model', 'steps'),
  [
    (vit.get_config, 'b16', (500, 100)),
    (mixer.get_config, 'b16', (500, 100)),
    (augreg.get_config, 'R_Ti_16', (500, 100)),
  ],
)
def test_argument_may_be_a_path(get_config, model, steps, root):
  path = f'{root}, other'  # The first comma parts, others are of the path.
  config = get_config(f'{model},{path}')
  assert config.dataset == path
  assert (config.pp.train, config.pp.test) == ('train', 'test')
  assert (config.total_steps, config.warmup_steps) == steps
  assert config.pretrained_dir
  config_checks.check_config(config, 1)


def test_augreg_file_may_go_with_a_path():
  config = augreg.get_config('R_Ti_16-i21k-300ep-lr_0.001,./pets')
  assert config.model_or_filename == 'R_Ti_16-i21k-300ep-lr_0.001'
  assert config.dataset == './pets'


def test_path_that_is_not_there_is_no_preset(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(errors.ConfigError, match='Nor is there a folder'):
    vit.get_config('b16,pets/cats')


@pytest.fixture
def config(root):
  config = vit.get_config(f'tiny,{root}')
  config.model.hidden_size = 6
  config.model.transformer.update(mlp_dim=7, num_heads=2, num_layers=1)
  config.pp.crop = 8
  config.update(
    pretrained_dir='',
    total_steps=3,
    warmup_steps=1,
    batch=5,
    batch_eval=5,
    accum_steps=1,
    num_threads=1,
  )
  return config


def test_run_on_a_folder(config, root, tmp_path, capsys):
  run = tmp_path / 'run'
  train.train_and_evaluate(config, run)
  lines = dict(
    line.split(':', 1) for line in capsys.readouterr().out.splitlines()[:4]
  )
  sizes = [len(sources.load_source(config, s)) for s in ('train', 'test')]
  assert sum(sizes) == 54
  assert lines['data'].strip() == (
    f'{root}: {sizes[0]} to train on (train[:90%]), {sizes[1]} to test on '
    '(train[90%:]), 2 classes'
  )
  assert lines['classes'].strip().startswith('cat ')
  assert 'dog with' in lines['balance']
  assert json.loads((run / 'labels.json').read_text()) == ['cat', 'dog']
  pp = json.loads((run / 'config.json').read_text())['pp']
  assert (pp['train'], pp['test']) == ('train[:90%]', 'train[90%:]')

  # The same command finds its run, and so does what the run wrote down.
  train.train_and_evaluate(config, run)
  config.pp.update(train=pp['train'], test=pp['test'])
  train.train_and_evaluate(config, run)
  assert capsys.readouterr().out.count('Finished already: 3 steps') == 2
