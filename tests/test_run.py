"""Whole runs: what they leave, how they end, continue and refuse to."""

import json
import pathlib

import jax
import numpy as np
import pytest

import vit_jax
from configs import vit
from vit_jax import errors, evaluate, step_window, train
from vit_jax.checkpoints import adapt
from vit_jax.checkpoints import state as state_lib

pytestmark = pytest.mark.usefixtures('compile_once')


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return str(tmp_path_factory.mktemp('tfds'))


@pytest.fixture
def config(data_dir):
  return _small_config(data_dir)


def _small_config(data_dir):
  """Returns a config whose run takes a second once it is compiled."""
  config = vit.get_config('tiny,digits')
  config.tfds_data_dir = data_dir
  config.model.hidden_size = 10
  config.model.transformer.update(
    mlp_dim=14, num_heads=2, num_layers=1, dropout_rate=0.1
  )
  config.pp.update(train='train[:101]', test='test[:47]', crop=8)
  config.update(
    total_steps=11,
    warmup_steps=2,
    batch=6,
    batch_eval=23,
    accum_steps=2,
    mixup_alpha=0.5,
    progress_every=3,
    eval_every=5,
    checkpoint_every=4,
    num_threads=1,
  )
  return config


class KilledError(Exception):
  """Stands for whatever ends a process."""


def _run_until(config, workdir, monkeypatch, last_step):
  """Trains and is stopped when the step after `last_step` asks for data."""
  next_batch = step_window.StepWindow.next_batch
  num_left = last_step - _latest_step(workdir)

  def next_or_die(self, batches):
    nonlocal num_left
    num_left -= 1
    if num_left < 0:
      raise KilledError
    return next_batch(self, batches)

  with monkeypatch.context() as patch:
    patch.setattr(step_window.StepWindow, 'next_batch', next_or_die)
    with pytest.raises(KilledError):
      train.train_and_evaluate(config, workdir)


def _latest_step(workdir: pathlib.Path) -> int:
  steps = (workdir / 'checkpoints').glob('[0-9]*')
  return max((int(path.name) for path in steps), default=0)


def _metrics(workdir: pathlib.Path):
  """Returns the lines of the log, without times."""
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  times = {'train/images_per_sec', 'train/data_wait'}
  return [{k: v for k, v in x.items() if k not in times} for x in lines]


def _assert_same_bits(params, others):
  for a, b in zip(*map(jax.tree.leaves, (params, others)), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.fixture(scope='module')
def whole_run(data_dir, tmp_path_factory):
  """A finished run, which no test changes."""
  workdir = tmp_path_factory.mktemp('whole')
  train.train_and_evaluate(_small_config(data_dir), workdir)
  return workdir


def test_run_leaves_what_it_promises(config, whole_run):
  assert {p.name.split('.')[0] for p in whole_run.iterdir()} == {
    'checkpoints',
    'config',
    'curves',
    'events',
    'labels',
    'metrics',
    'model',
  }
  assert json.loads((whole_run / 'labels.json').read_text()) == [
    str(digit) for digit in range(10)
  ]
  saved = json.loads((whole_run / 'config.json').read_text())
  assert saved['base_lr'] == config.base_lr
  assert (whole_run / 'curves.png').read_bytes().startswith(b'\x89PNG')


def test_log_has_the_promised_names_at_the_promised_steps(whole_run):
  text = (whole_run / 'metrics.jsonl').read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  training = [x for x in lines if 'train/loss' in x]
  testing = [x for x in lines if 'test/loss' in x]
  assert [x['step'] for x in training] == [3, 6, 9, 11]
  assert [x['step'] for x in testing] == [5, 10, 11]
  assert {*training[0]} >= {
    'train/loss',
    'train/accuracy',
    'train/learning_rate',
    'train/images_per_sec',
    'train/data_wait',
  }
  assert {*testing[0]} == {'step', 'test/loss', 'test/accuracy', 'test/top5'}


def test_exported_model_is_the_last_state(config, whole_run):
  model = vit_jax.create_model(config.model, 10)
  params = vit_jax.load_pretrained(whole_run, model, 8)
  with state_lib.StateCheckpoints(
    whole_run / 'checkpoints', 2, 'test/accuracy'
  ) as saved:
    assert saved.latest_step() == 11
    state = train.train_and_evaluate(config, whole_run)  # Restores it.
  _assert_same_bits(params, state.params)


@pytest.mark.parametrize('last_steps', [(4,), (7,), (2, 9, 10)])
def test_resumed_run_equals_the_uninterrupted(
  last_steps, config, whole_run, tmp_path, monkeypatch
):
  workdir = tmp_path / 'broken'
  # Only what checkpoint_every saves can be continued from.
  config.best_metric = ''
  for last_step in last_steps:
    _run_until(config, workdir, monkeypatch, last_step)
    assert _latest_step(workdir) == last_step // 4 * 4
  train.train_and_evaluate(config, workdir)
  model = (workdir / 'model.npz').read_bytes()
  _assert_same_bits(
    vit_jax.load_params(workdir / 'model.npz'),
    vit_jax.load_params(whole_run / 'model.npz'),
  )
  assert model
  # Windows that a stop cut short average over fewer steps; evaluations and the
  # steps that are logged are the same.
  evaluations = [
    [line for line in _metrics(path) if 'test/loss' in line]
    for path in (workdir, whole_run)
  ]
  assert evaluations[0] == evaluations[1]
  steps = [[line['step'] for line in _metrics(p)] for p in (workdir, whole_run)]
  assert steps[0] == steps[1]


def test_other_number_of_threads_and_checkpoints_changes_nothing(
  config, whole_run, tmp_path
):
  config.num_threads = 0
  config.checkpoint_every = 0
  config.keep_checkpoints = 1
  train.train_and_evaluate(config, tmp_path / 'other')
  _assert_same_bits(
    vit_jax.load_params(tmp_path / 'other' / 'model.npz'),
    vit_jax.load_params(whole_run / 'model.npz'),
  )


def test_checkpoints_are_saved_by_checkpoint_every(config, tmp_path):
  config.update(best_metric='', keep_checkpoints=5, eval_every=2)
  train.train_and_evaluate(config, tmp_path / 'run')
  names = (p.name for p in (tmp_path / 'run' / 'checkpoints').iterdir())
  assert sorted(map(int, names)) == [4, 8, 11]


def test_hidden_transfers_are_refused(config, tmp_path, monkeypatch):
  monkeypatch.setattr(train.sharding, 'put_batch', lambda batch, mesh: batch)
  with pytest.raises(Exception, match='Disallowed host-to-device transfer'):
    train.train_and_evaluate(config, tmp_path / 'run')


def test_finished_run_stays_finished(config, whole_run, capsys):
  before = (whole_run / 'metrics.jsonl').read_text()
  files = {path.name for path in whole_run.iterdir()}
  train.train_and_evaluate(config, whole_run)
  printed = capsys.readouterr().out
  for text in (
    '101 to train on',
    '47 to test on',
    '10 classes',
    '11 (0.7 epochs)',
    str(whole_run),
    'Finished already: 11 steps are done.',
  ):
    assert text in printed
  assert (whole_run / 'metrics.jsonl').read_text() == before
  # No TensorBoard events of nothing either.
  assert {path.name for path in whole_run.iterdir()} == files


def test_warmup_that_never_ends_is_pointed_out(config, tmp_path, capsys):
  config.update(total_steps=2, warmup_steps=2)
  train.train_and_evaluate(config, tmp_path / 'run')
  assert 'never reaches 0.002' in capsys.readouterr().out


def test_seed_decides(config, whole_run, tmp_path):
  config.seed = 1
  train.train_and_evaluate(config, tmp_path / 'other')
  one, other = (
    vit_jax.load_params(path / 'model.npz')
    for path in (whole_run, tmp_path / 'other')
  )
  assert (one['embedding']['kernel'] != other['embedding']['kernel']).any()


def test_patience_ends_the_run_and_the_best_is_kept(
  config, tmp_path, monkeypatch, capsys
):
  values = iter([0.2, 0.5, 0.4, 0.3])
  monkeypatch.setattr(
    evaluate,
    'evaluate',
    lambda *_, **__: {'test/accuracy': next(values), 'test/loss': 1.0},
  )
  config.update(
    eval_every=2,
    patience=2,
    export='best',
    keep_checkpoints=1,
    checkpoint_every=1,
  )
  workdir = tmp_path / 'run'
  train.train_and_evaluate(config, workdir)
  steps = sorted(int(p.name) for p in (workdir / 'checkpoints').iterdir())
  assert steps == [4, 8]  # The best and the last.
  train.train_and_evaluate(config, workdir)
  assert 'stopped early at step 8, best at step 4' in capsys.readouterr().out
  # The exported parameters are those of step 4, not of step 8.
  exported = vit_jax.load_params(workdir / 'model.npz')
  config.update(export='last')
  values = iter([0.2, 0.5, 0.4, 0.3])
  train.train_and_evaluate(config, tmp_path / 'last')
  last = vit_jax.load_params(tmp_path / 'last' / 'model.npz')
  assert (exported['head']['kernel'] != last['head']['kernel']).any()


def test_non_finite_loss_stops_and_is_not_saved(config, tmp_path):
  config.update(
    base_lr=1e30,
    decay_type='constant',
    optimizer='sgd',
    grad_norm_clip=0.0,
    checkpoint_every=1,
    best_metric='',
  )
  with pytest.raises(errors.NonFiniteError, match=r'at step [2-9]') as info:
    train.train_and_evaluate(config, tmp_path / 'run')
  step = int(str(info.value).split('at step ')[1].split('.')[0])
  assert _latest_step(tmp_path / 'run') < step
  assert not (tmp_path / 'run' / 'model.npz').exists()


def test_other_config_is_refused_with_the_differences(config, whole_run):
  config.base_lr = 0.5
  config.model.transformer.num_layers = 2
  with pytest.raises(errors.ConfigError) as info:
    train.train_and_evaluate(config, whole_run)
  assert 'config.base_lr: 0.002 there, 0.5 now' in str(info.value)
  assert 'config.model.transformer.num_layers: 1 there, 2 now' in str(
    info.value
  )


def test_start_without_weights_leaves_nothing_in_the_way(config, tmp_path):
  config.pretrained_dir = str(tmp_path / 'nowhere')
  with pytest.raises(errors.CheckpointNotFoundError, match='tiny'):
    train.train_and_evaluate(config, tmp_path / 'run')
  config.pretrained_dir = ''
  config.base_lr = 0.003
  train.train_and_evaluate(config, tmp_path / 'run')


def test_fine_tuning_starts_from_the_file_at_a_larger_crop(
  config, whole_run, tmp_path
):
  config.pretrained_dir = str(whole_run)
  config.pp.crop = 12
  config.warmup_steps = 10
  config.base_lr = 1e-9  # Next to nothing is learned, so the start shows.
  train.train_and_evaluate(config, tmp_path / 'tuned')
  before, after = (
    vit_jax.load_params(path / 'model.npz')
    for path in (whole_run, tmp_path / 'tuned')
  )
  np.testing.assert_allclose(
    after['embedding']['kernel'], before['embedding']['kernel'], atol=1e-6
  )
  positions = adapt.resize_position_embedding(
    before['Transformer']['posembed_input']['pos_embedding'], (3, 3), False
  )
  np.testing.assert_allclose(
    after['Transformer']['posembed_input']['pos_embedding'],
    positions,
    atol=1e-6,
  )
