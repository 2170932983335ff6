"""Exact metrics over a whole split, against numpy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_model

import vit_jax
from configs import vit
from vit_jax import checkpoints, errors, evaluate, sharding
from vit_jax.data import pipeline, sources

SIDE = 3


@dataclasses.dataclass(frozen=True)
class Linear:
  """Stands for a module: logits that are linear in the pixels."""

  def apply(self, variables, images):
    return images.reshape(len(images), -1) @ variables['params']


def transform(images):
  return images.astype(jnp.float32) / 255


def make_examples(num_examples, num_classes, seed=0):
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, (num_examples, SIDE, SIDE, 3), np.uint8)
  labels = rng.integers(0, num_classes, num_examples).astype(np.int32)
  params = rng.normal(size=(SIDE * SIDE * 3, num_classes)).astype(np.float32)
  return images, labels, params


def expected_metrics(images, labels, params):
  """Returns loss, top-1 and top-5 over all examples, in float64."""
  logits = images.reshape(len(images), -1).astype('f8') / 255 @ params
  shifted = logits - logits.max(axis=1, keepdims=True)
  log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
  rows = np.arange(len(labels))
  ranks = (logits > logits[rows, labels][:, None]).sum(axis=1)
  return {
    'loss': -log_probs[rows, labels].mean(),
    'accuracy': (ranks == 0).mean(),
    'top5': (ranks < 5).mean(),
  }


def run_evaluate(batches, params, num_classes, **kwargs):
  mesh = sharding.make_mesh()
  step = evaluate.make_eval_step(Linear(), transform, mesh)
  return evaluate.evaluate(step, params, batches, num_classes, mesh, **kwargs)


def make_batches(images, labels, batch_size, fill):
  """Cuts into batches, the last one filled up by `fill(shape)`."""
  for start in range(0, len(labels), batch_size):
    stop = min(start + batch_size, len(labels))
    missing = batch_size - (stop - start)
    yield {
      'image': np.concatenate(
        [images[start:stop], fill((missing, *images.shape[1:]), 'u1')]
      ),
      'label': np.concatenate([labels[start:stop], fill((missing,), 'i4')]),
      'mask': np.arange(batch_size) < stop - start,
    }


@pytest.mark.parametrize('num_classes', [2, 5, 6, 11])
@pytest.mark.parametrize('batch_size', [7, 23, 29])
def test_metrics_are_those_of_all_examples(num_classes, batch_size):
  images, labels, params = make_examples(23, num_classes)
  batches = make_batches(images, labels, batch_size, np.zeros)
  metrics = run_evaluate(batches, params, num_classes, prefix='test/')
  expected = expected_metrics(images, labels, params)
  if num_classes <= 5:  # There every answer is among the first five.
    del expected['top5']
  assert metrics == pytest.approx(
    {f'test/{name}': value for name, value in expected.items()}, rel=1e-6
  )
  assert all(type(value) is float for value in metrics.values())


def test_padding_counts_for_nothing_whatever_it_holds():
  images, labels, params = make_examples(23, 11)
  wild = make_batches(
    images, labels, 7, lambda shape, dtype: np.full(shape, 9, dtype)
  )
  assert run_evaluate(wild, params, 11) == run_evaluate(
    make_batches(images, labels, 7, np.zeros), params, 11
  )


def test_batch_of_padding_alone_counts_for_nothing():
  images, labels, params = make_examples(7, 11)
  batches = [*make_batches(images, labels, 7, np.zeros)]
  empty = {**batches[0], 'mask': np.zeros(7, bool)}
  assert run_evaluate([*batches, empty], params, 11) == run_evaluate(
    batches, params, 11
  )


def test_one_compilation_serves_all_batches_and_evaluations():
  images, labels, params = make_examples(23, 11)
  mesh = sharding.make_mesh()
  num_traces = 0

  def counted(images):
    nonlocal num_traces
    num_traces += 1
    return transform(images)

  step = evaluate.make_eval_step(Linear(), counted, mesh)
  params = jax.device_put(params, sharding.replicated(mesh))
  with jax.transfer_guard('disallow'):  # As in the training loop.
    for _ in range(2):
      batches = make_batches(images, labels, 7, np.zeros)
      evaluate.evaluate(step, params, batches, 11, mesh)
  assert num_traces == 1


def test_loss_of_many_examples_stays_exact():
  # As many as ImageNet has; sums in float32 must not eat the small ones.
  batch = {
    'image': np.zeros((500, SIDE, SIDE, 3), np.uint8),
    'label': np.arange(500, dtype=np.int32) % 10,
    'mask': np.ones(500, bool),
  }
  params = np.zeros((SIDE * SIDE * 3, 10), np.float32)
  metrics = run_evaluate([batch] * 100, params, 10)
  assert metrics['loss'] == pytest.approx(np.log(10), rel=2e-6)
  assert metrics['accuracy'] == pytest.approx(0.1)
  assert metrics['top5'] == 0.5


# Whole runs.


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return str(tmp_path_factory.mktemp('tfds'))


@pytest.fixture
def config(data_dir):
  config = vit.get_config('tiny,digits')
  config.tfds_data_dir = data_dir
  config.model.hidden_size = 10
  config.model.transformer.update(mlp_dim=14, num_heads=2, num_layers=1)
  config.pp.update(test='test[:47]', crop=8)
  config.update(batch_eval=23, num_threads=1)
  return config


@pytest.fixture
def save_weights(config):
  """Gives (path, seed) -> parameters, saved there, and their metrics."""

  def save(path, seed):
    model = vit_jax.create_model(config.model, 10)
    params = small_model.random_params(model, (1, 8, 8, 3), scale=0.3 + seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    checkpoints.save_params(params, path)
    source = sources.load_source(config, 'test[:47]')
    assert source.images is not None and source.labels is not None
    logits = model.apply(
      {'params': params}, (source.images.astype('f4') - 127.5) / 127.5
    )
    accuracy = (logits.argmax(axis=-1) == source.labels).mean()
    return float(accuracy)

  return save


def test_run_is_evaluated_by_its_model_and_nothing_is_written(
  config, save_weights, tmp_path, capsys
):
  run = tmp_path / 'run'
  accuracy = save_weights(run / 'model.npz', 0)
  other = save_weights(tmp_path / 'other' / 'tiny.npz', 3)
  assert accuracy != other
  config.pretrained_dir = str(tmp_path / 'other')
  metrics = evaluate.evaluate_run(config, run)
  assert metrics['test/accuracy'] == pytest.approx(accuracy)
  assert {*metrics} == {'test/loss', 'test/accuracy', 'test/top5'}
  assert [path.name for path in run.iterdir()] == ['model.npz']
  out = capsys.readouterr().out
  for text in (
    str(run / 'model.npz'),
    'digits (test[:47]), 47 examples',
    f'test/accuracy {accuracy:.2%}',
  ):
    assert text in out


def test_without_a_run_pretrained_weights_are_evaluated(
  config, save_weights, tmp_path, capsys
):
  accuracy = save_weights(tmp_path / 'weights' / 'tiny.npz', 0)
  config.pretrained_dir = str(tmp_path / 'weights')
  metrics = evaluate.evaluate_run(config, tmp_path / 'run')
  assert metrics['test/accuracy'] == pytest.approx(accuracy)
  assert not (tmp_path / 'run').exists()
  assert str(tmp_path / 'weights') in capsys.readouterr().out


def test_what_lies_in_the_working_directory_is_not_taken_for_the_run(
  config, save_weights, tmp_path, monkeypatch
):
  accuracy = save_weights(tmp_path / 'run' / 'model.npz', 0)
  save_weights(tmp_path / 'work' / 'tiny' / 'model.npz', 3)
  monkeypatch.chdir(tmp_path / 'work')
  metrics = evaluate.evaluate_run(config, '../run')
  assert metrics['test/accuracy'] == pytest.approx(accuracy)


def test_augreg_name_is_followed(config, save_weights, tmp_path):
  accuracy = save_weights(tmp_path / 'Ti_16-i21k-300ep.npz', 0)
  config.model_or_filename = 'Ti_16-i21k-300ep'
  config.pretrained_dir = str(tmp_path)
  metrics = evaluate.evaluate_run(config, tmp_path / 'run')
  assert metrics['test/accuracy'] == pytest.approx(accuracy)


def test_neither_a_run_nor_weights(config, tmp_path):
  with pytest.raises(errors.ConfigError) as caught:
    evaluate.evaluate_run(config, tmp_path / 'run')
  assert str(tmp_path / 'run' / 'model.npz') in str(caught.value)
  assert 'config.pretrained_dir' in str(caught.value)


def test_missing_weights_say_where_they_were_looked_for(config, tmp_path):
  (tmp_path / 'weights').mkdir()
  config.pretrained_dir = str(tmp_path / 'weights')
  with pytest.raises(errors.CheckpointNotFoundError) as caught:
    evaluate.evaluate_run(config, tmp_path / 'run')
  assert str(tmp_path / 'weights' / 'tiny.npz') in str(caught.value)


def test_weights_of_another_model(config, save_weights, tmp_path):
  save_weights(tmp_path / 'run' / 'model.npz', 0)
  config.model.hidden_size = 14
  with pytest.raises(errors.CheckpointError, match=r'model\.npz'):
    evaluate.evaluate_run(config, tmp_path / 'run')


def test_config_is_checked_first(config, tmp_path):
  config.batch_eval = 0
  config.pretrained_dir = str(tmp_path)
  with pytest.raises(errors.ConfigError, match=r'config\.batch_eval=0'):
    evaluate.evaluate_run(config, tmp_path / 'run')


def test_pipeline_and_metrics_agree_on_what_is_padding(config):
  source = sources.load_source(config, 'test[:47]')
  batches = [*pipeline.eval_batches(config, source)]
  assert sum(int(batch['mask'].sum()) for batch in batches) == 47
  params = np.random.default_rng(0).normal(size=(8 * 8 * 3, 10)).astype('f4')
  assert source.images is not None
  metrics = run_evaluate(batches, params, 10)
  expected = expected_metrics(source.images, source.labels, params)
  assert metrics == pytest.approx(expected, rel=1e-6)


def test_weights_for_other_classes_are_no_head_of_zeros(
  config, save_weights, tmp_path
):
  save_weights(tmp_path / 'weights' / 'tiny.npz', 0)
  config.pretrained_dir = str(tmp_path / 'weights')
  config.dataset = 'digits/0_to_4'
  with pytest.raises(errors.CheckpointError, match=r'head/bias: found \(10,\)'):
    evaluate.evaluate_run(config, tmp_path / 'run')
