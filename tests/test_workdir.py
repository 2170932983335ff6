"""A run's directory: what is written there, and whose it is."""

import json
import pathlib

import pytest

from configs import common
from vit_jax import errors
from vit_jax.workdir import Workdir

CONFIG = {
  'base_lr': 0.03,
  'pp': {'crop': 384, 'area_range': (0.05, 1.0)},
  'tfds_data_dir': None,
  'num_threads': 16,
}


@pytest.fixture
def run(tmp_path):
  """The directory of a run that has saved a checkpoint."""
  run = Workdir(tmp_path / 'runs' / 'vit' / 'b16,cifar10')
  run.claim(CONFIG)
  (run.checkpoints / '100').mkdir(parents=True)
  return run


def edited(**fields):
  return {**CONFIG, **fields}


def error_of(run, config) -> str:
  before = run.config.read_bytes()
  with pytest.raises(errors.ConfigError) as caught:
    run.claim(config)
  assert run.config.read_bytes() == before
  return str(caught.value)


def test_paths_are_the_promised_ones(monkeypatch):
  monkeypatch.setenv('HOME', '/home/ada')
  run = Workdir('~/run')
  assert run.path == pathlib.Path('/home/ada/run')
  files = (run.config, run.labels, run.metrics, run.curves, run.model)
  assert [path.relative_to(run.path).as_posix() for path in files] == [
    'config.json',
    'labels.json',
    'metrics.jsonl',
    'curves.png',
    'model.npz',
  ]


def test_claim_writes_the_config_and_nothing_else(tmp_path):
  run = Workdir(tmp_path / 'a' / 'b')
  run.claim(CONFIG)
  assert json.loads(run.config.read_text()) == {
    **CONFIG,
    'pp': {'crop': 384, 'area_range': [0.05, 1.0]},
  }
  assert [*run.path.iterdir()] == [run.config]


def test_same_config_may_continue(run):
  before = run.config.read_bytes()
  run.claim(CONFIG)
  assert run.config.read_bytes() == before


def test_all_differing_fields_are_listed(run):
  text = error_of(
    run,
    edited(base_lr=0.01, pp={'crop': 384, 'area_range': (0.5, 1.0)}, seed=3),
  )
  assert f'{run.path} holds a run with another config' in text
  assert '\n  config.base_lr: 0.03 there, 0.01 now\n' in text
  assert 'config.pp.area_range: [0.05, 1.0] there, [0.5, 1.0] now' in text
  assert '\n  config.seed: None there, 3 now\n' in text
  assert text.count(' there, ') == 3
  assert '--workdir=DIR' in text


@pytest.mark.parametrize(
  'field',
  [
    'attention',
    'checkpoint_every',
    'keep_checkpoints',
    'max_skipped',
    'num_threads',
    'pretrained_dir',
    'profile',
    'progress_every',
    'remat',
    'tfds_data_dir',
    'tfds_manual_dir',
  ],
)
def test_fields_that_change_no_result_may_differ(field, run):
  run.claim(edited(**{field: 'other'}))
  assert json.loads(run.config.read_text())[field] == 'other'


def test_field_below_another_is_not_free(run):
  pp = {**CONFIG['pp'], 'num_threads': 3}
  assert 'config.pp.num_threads' in error_of(run, edited(pp=pp))


def with_images(fingerprint, **fields):
  return edited(data_fingerprint={'train': fingerprint}, **fields)


def test_other_images_are_one_clear_error(run):
  run.config.write_text(json.dumps(with_images('1797-00ff', dataset='/pets')))
  text = error_of(run, with_images('1799-00fe', dataset='/pets'))
  assert "config.dataset='/pets' has 1799 training examples now and" in text
  assert 'had 1797 then' in text
  assert 'Put the data back as they were' in text
  assert '--workdir=DIR' in text
  text = error_of(run, with_images('1797-00fe', dataset='/pets'))
  assert '1797 training examples as then, but other names or labels' in text
  run.claim(with_images('1797-00ff', dataset='/pets'))


def test_another_data_set_is_another_config_alone(run):
  run.config.write_text(json.dumps(with_images('1797-00ff', dataset='/pets')))
  text = error_of(run, with_images('5-00fe', dataset='/cars'))
  assert "config.dataset: '/pets' there, '/cars' now" in text
  assert '00fe' not in text


@pytest.mark.parametrize(
  'before', [CONFIG, {**CONFIG, 'data_fingerprint': {'train': ''}}]
)
def test_run_that_did_not_note_its_images_may_continue(before, run):
  run.claim(before)
  run.claim(with_images('1797-00ff'))
  text = error_of(run, with_images('1797-00fe'))
  assert 'other names or labels' in text


def test_fields_that_older_runs_lack_are_what_these_did(run):
  added = {'scan_layers': False, 'on_nonfinite': 'stop'}
  defaults = common.get_config()
  assert added == {name: defaults[name] for name in added}
  run.claim(edited(**added))
  assert json.loads(run.config.read_text())['on_nonfinite'] == 'stop'


@pytest.mark.parametrize(
  'field', [{'scan_layers': True}, {'on_nonfinite': 'skip'}], ids=str
)
def test_fields_that_older_runs_lack_are_refused_with_other_values(field, run):
  ((name, value),) = field.items()
  old = {'scan_layers': False, 'on_nonfinite': 'stop'}[name]
  text = error_of(run, edited(**field))
  assert f'config.{name}: {old!r} there, {value!r} now' in text
  assert text.count(' there, ') == 1


def test_model_alone_is_something_to_keep(tmp_path):
  run = Workdir(tmp_path)
  run.claim(CONFIG)
  run.model.touch()
  text = error_of(run, edited(base_lr=0.01))
  assert 'config.base_lr: 0.03 there, 0.01 now' in text
  run.claim(CONFIG)


@pytest.mark.parametrize('results', ['checkpoints', 'model.npz'])
def test_results_without_config_are_refused(results, tmp_path):
  run = Workdir(tmp_path)
  path = run.checkpoints / '3' if results == 'checkpoints' else run.model
  path.mkdir(parents=True)
  with pytest.raises(errors.ConfigError) as caught:
    run.claim(CONFIG)
  text = str(caught.value)
  assert f'{tmp_path} holds {results}, but config.json is missing' in text
  assert '--workdir=DIR' in text
  assert not run.config.exists()


@pytest.mark.parametrize('leftover', [None, '100.orbax-checkpoint-tmp'])
def test_start_that_saved_nothing_is_nothing_to_keep(leftover, tmp_path):
  run = Workdir(tmp_path)
  run.claim(CONFIG)
  if leftover:
    (run.checkpoints / leftover).mkdir(parents=True)
  run.claim(edited(base_lr=0.01))
  assert json.loads(run.config.read_text())['base_lr'] == 0.01


@pytest.mark.parametrize(
  'garbage', [b'', b'{"base_lr": 0.', b'\xff\xfe{}', b'[1, 2]', b'null']
)
def test_damaged_config_is_an_error_that_names_it(garbage, run):
  run.config.write_bytes(garbage)
  text = error_of(run, CONFIG)
  assert f'{run.config} is damaged' in text
  assert '--workdir=DIR' in text


@pytest.mark.parametrize('below', ['', 'run'])
def test_directory_that_cannot_be_made(below, tmp_path):
  (tmp_path / 'file').write_text('No directory.')
  path = tmp_path / 'file' / below
  with pytest.raises(errors.ConfigError) as caught:
    Workdir(path).claim(CONFIG)
  assert f'can not be kept in {path}' in str(caught.value)
  assert '--workdir=DIR' in str(caught.value)


def test_labels_keep_their_order_and_letters(run):
  run.save_labels(iter(['zebra', 'Ötzi', 'カタカナ']))
  text = run.labels.read_text(encoding='utf-8')
  assert json.loads(text) == ['zebra', 'Ötzi', 'カタカナ']
  assert 'Ötzi' in text


def test_file_that_can_not_be_written_is_an_error_that_names_it(run):
  run.labels.mkdir()
  with pytest.raises(errors.ConfigError) as caught:
    run.save_labels(['ant', 'bee'])
  assert f'{run.labels}: the file can not be written' in str(caught.value)
  assert not [*run.path.glob('*.partial')]


def test_checkpoint_of_another_run_is_refused(run):
  saved = edited(base_lr=0.5)
  run.check_saved(7, None, CONFIG)
  run.check_saved(7, CONFIG, CONFIG | {'num_threads': 9})
  with pytest.raises(errors.ConfigError) as caught:
    run.check_saved(7, saved, CONFIG)
  assert f'{run.checkpoints / "7"} is of a run with' in str(caught.value)
  assert 'config.base_lr: 0.5 there' in str(caught.value)
