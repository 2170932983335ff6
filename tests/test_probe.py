"""Frozen features, and what a probe of them reads, prints and refuses."""

import json
import sys

import jax
import numpy as np
import pytest
from sklearn import neighbors

from configs import vit
from scripts import probe as script
from vit_jax import (
  checkpoints,
  command_line,
  errors,
  models,
  outputs,
  probe,
  progress,
  sharding,
)
from vit_jax.data import cifar, sources
from vit_jax.probe import features

# Runs of one model share the compilation.
pytestmark = pytest.mark.usefixtures('compile_once')

TINY = {
  'patches': {'size': (3, 5)},
  'hidden_size': 12,
  'transformer': {'mlp_dim': 7, 'num_heads': 2, 'num_layers': 3},
  'classifier': 'token',
  'representation_size': 17,
}
MIXER = {
  'patches': {'size': (5, 5)},
  'hidden_dim': 11,
  'num_blocks': 2,
  'tokens_mlp_dim': 7,
  'channels_mlp_dim': 13,
}
CONVNET = {'conv_features': (3, 5), 'conv_kernel_size': 3, 'dense_size': 19}


def weights_of(config, size, num_classes: int | None = 4):
  """Returns a model and parameters none of which is zero."""
  model = models.create_model(config, num_classes)
  images = jax.ShapeDtypeStruct((1, size, size, 3), 'float32')
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  rng = np.random.default_rng(0)
  return model, jax.tree.map(
    lambda leaf: rng.normal(0, 0.3, leaf.shape).astype('f4'), shapes
  )


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(3).uniform(-1, 1, (3, 15, 15, 3)).astype('f4')


def features_of(model, layer, params, images):
  apply = jax.jit(features.make_apply(model, layer, False))
  return np.asarray(apply(params, images)['features'])


@pytest.mark.parametrize(
  ('config', 'width'), [(TINY, 17), (MIXER, 11), (CONVNET, 19)]
)
def test_head_is_all_that_is_left_out(config, width, images):
  model, params = weights_of(config, 15)
  found = jax.jit(features.make_apply(model, '', True))(params, images)
  assert found['features'].shape == (3, width)
  logits = found['features'] @ params['head']['kernel'] + params['head']['bias']
  expected = jax.jit(model.apply)({'params': params}, images)
  np.testing.assert_allclose(logits, expected, atol=1e-5)
  np.testing.assert_array_equal(found['pixels'], images.reshape(3, -1))


def test_layer_encoder_is_what_pre_logits_reads(images):
  model, params = weights_of(TINY, 15)
  before = features_of(model, 'encoder', params, images)
  after = features_of(model, '', params, images)
  layer = params['pre_logits']
  expected = np.tanh(before @ layer['kernel'] + layer['bias'])
  np.testing.assert_allclose(after, expected, atol=1e-5)


@pytest.mark.parametrize('config', [TINY, MIXER])
def test_last_block_and_its_norm_are_what_is_pooled(config, images):
  model, params = weights_of(config, 15)
  last = '2' if config is TINY else '1'
  found = features_of(model, last, params, images)
  other = features_of(model, '0', params, images)
  assert not np.allclose(found, other)
  expected = features_of(model, 'encoder', params, images)
  if config is TINY:  # Of the class token alone the norm can be done after.
    norm = params['Transformer']['encoder_norm']
    found = found - found.mean(axis=1, keepdims=True)
    found = found / np.sqrt((found**2).mean(axis=1, keepdims=True) + 1e-6)
    found = found * norm['scale'] + norm['bias']
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize(
  ('config', 'layer', 'text'),
  [
    (TINY, '3', '3 blocks, 0 to 2'),
    (CONVNET, '0', 'has no blocks'),
    (TINY, 'last', 'neither a number'),
  ],
)
def test_layer_that_is_not_there(config, layer, text):
  model = models.create_model(config, 3)
  with pytest.raises(errors.ConfigError, match=text):
    features.make_apply(model, layer, False)


def test_large_images_are_reduced_as_pixels():
  images = np.random.default_rng(0).uniform(size=(2, 64, 48, 3)).astype('f4')
  assert features._pixels(jax.numpy.asarray(images)).shape == (2, 32 * 32 * 3)


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> str:
  """A file without a head, for images of 16 pixels."""
  _, params = weights_of(vit.get_config('tiny,digits').model, 16, None)
  path = tmp_path_factory.mktemp('probe') / 'tiny.npz'
  checkpoints.save_params(params, path)
  return str(path)


def run_probe(weights, **edits):
  settings = {'shots': (2, 0), 'num_seeds': 2, 'neighbours': (1, 3)} | edits
  return probe.probe(
    weights,
    'digits',
    'train[:200]',
    'test[:101]',
    settings=probe.Settings(with_pixels=True, **settings),
    image_size=16,
    batch=41,
  )


@pytest.fixture(scope='module')
def found(weights):
  return run_probe(weights)


class Counted(list):
  """Examples that tell which of them are read."""

  def __init__(self, source, reads):
    super().__init__(zip(source.images, source.labels, strict=True))
    self.split, self.reads = source.split, reads

  def __getitem__(self, index):
    self.reads.append((self.split, index))
    return super().__getitem__(index)


def test_every_example_is_read_once(weights, found, monkeypatch):
  reads = []
  load = sources.load_source

  def load_counted(config, split):
    source = load(config, split)
    records = Counted(source, reads)
    return sources.Source('digits', split, source.class_names, records=records)

  monkeypatch.setattr(sources, 'load_source', load_counted)
  again = run_probe(weights)
  expected = [('test[:101]', i) for i in range(101)]
  assert sorted(reads) == expected + [('train[:200]', i) for i in range(200)]
  assert again.num_examples == (200, 101)
  assert [*again.scores] == ['features', 'pixels']


def test_scores_of_pixels_are_those_of_scikit_learn(found):
  # As the model sees them, so not those of the files.
  config = found_config()
  x, y = pixels_of(config, 'train[:200]')
  test, answers = pixels_of(config, 'test[:101]')
  classifier = neighbors.KNeighborsClassifier(3, metric='cosine').fit(x, y)
  by_name = {
    (score.method, score.number, score.variant): score
    for score in found.scores['pixels']
  }
  expected = (classifier.predict(test) == answers).mean()
  score = by_name['neighbours', 3, 'majority']
  assert score.accuracies == (pytest.approx(expected),)
  fit = probe.Ridge(x, y, 10)
  expected = (fit.predict(test, 2.0**10) == answers).mean()
  score = by_name['ridge', 0, 'fixed']
  assert score.accuracies == (pytest.approx(expected),)
  drawn = [probe.draw_shots(y, 10, 2, seed) for seed in range(2)]
  expected = [
    (probe.Ridge(x[i], y[i], 10).predict(test, 2.0**10) == answers).mean()
    for i in drawn
  ]
  score = by_name['ridge', 2, 'fixed']
  assert score.accuracies == pytest.approx(expected)
  assert score.deviation == pytest.approx(np.std(expected, ddof=1))


def found_config():
  config = vit.get_config('tiny,digits')
  config.pp.crop, config.batch_eval = 16, 41
  return config


def pixels_of(config, split):
  batch = outputs.whole_split(
    lambda _, images: {'pixels': images.reshape(len(images), -1)},
    (),
    config,
    sources.load_source(config, split),
    sharding.make_mesh(),
  )
  return batch.values['pixels'], batch.labels


def test_same_seeds_give_the_same_scores(weights, found):
  assert run_probe(weights).scores == found.scores


def test_json_and_table_have_every_score(found):
  text = json.loads(json.dumps(probe.as_json(found)))
  assert text['settings']['shots'] == [2, 0]
  assert (text['num_train'], text['num_test']) == (200, 101)
  assert text['num_features'] == {'features': 64, 'pixels': 768}
  scores = text['scores']['features']
  assert [len(score['accuracies']) for score in scores[:4]] == [2, 2, 1, 1]
  assert all(score['l2s'] == [1024.0, 1024.0] for score in scores[:1])
  lines = probe.as_table(found).splitlines()
  assert len(lines) == 2 + len(scores) == 10
  assert len({*map(len, lines)}) == 1
  for line, score in zip(lines[2:], scores, strict=True):
    assert f'{score["mean"]:.2%}' in line


def test_class_with_fewer_examples_than_shots_is_named(weights):
  found = run_probe(weights, shots=(25,), neighbours=())
  remarks = ' '.join(found.remarks)
  assert "Fewer training examples than shots: '0' has 23" in remarks
  assert 'and so on' in remarks


@pytest.mark.parametrize(
  ('options', 'text'),
  [
    (['--dataset='], 'has to be named'),
    (['--neighbours=201'], '201 neighbours: digits'),
    (['--shots=', '--neighbours='], 'nothing to compute'),
    (['--layer=9'], '4 blocks, 0 to 3'),
    (['--dataset=imagenet_v2'], 'nothing to fit'),
  ],
)
def test_mistake_is_one_line(options, text, weights, monkeypatch, capsys):
  assert run_script(monkeypatch, weights, *options) == 2
  error = capsys.readouterr().err
  assert error.startswith('error: ')
  assert text in error
  assert error.count('\n') == 1


@pytest.mark.parametrize(
  'option', ['--shots=5,x', '--l2=0', '--seeds=0', '--out=nowhere/probe.json']
)
def test_option_that_can_not_be(option, weights, monkeypatch, capsys):
  with pytest.raises(SystemExit, match='2'):
    run_script(monkeypatch, weights, option)
  assert option[2:].partition('=')[0] in capsys.readouterr().err


def test_several_labels_are_refused(weights, real_dir, monkeypatch, capsys):
  status = run_script(
    monkeypatch,
    weights,
    '--dataset=real_small',
    f'--tfds_data_dir={real_dir}',
    '--train_split=validation',
    '--test_split=validation',
  )
  assert status == 2
  assert 'several labels' in capsys.readouterr().err


def test_script_prints_a_table_and_writes(
  weights, found, monkeypatch, capsys, tmp_path
):
  out = tmp_path / 'probe.json'
  options = ['--shots=2,all', '--seeds=2', '--neighbours=1,3', '--pixels']
  status = run_script(monkeypatch, weights, *options, f'--out={out}')
  assert status == 0
  text = capsys.readouterr().out
  assert text.endswith(f'\n\n{probe.as_table(found)}\n')
  assert json.loads(out.read_text('utf-8')) == json.loads(
    json.dumps(probe.as_json(found))
  )
  assert [path.name for path in tmp_path.iterdir()] == ['probe.json']


def test_data_that_is_not_there_names_options_of_the_script(
  weights, monkeypatch, capsys, tmp_path
):
  monkeypatch.setattr(cifar, '_probe', lambda url: 'no network')
  archive, data = tmp_path / 'archive', tmp_path / 'data'
  status = run_script(
    monkeypatch,
    weights,
    '--dataset=cifar10',
    f'--tfds_data_dir={data}',
    f'--tfds_manual_dir={archive}',
  )
  assert status == 2
  error = capsys.readouterr().err
  assert str(archive) in error
  assert 'config.' not in error


@pytest.mark.parametrize(
  ('failure', 'status', 'text'),
  [
    (BrokenPipeError(32, 'Broken pipe'), 141, ''),
    (OSError(28, 'No room'), 2, 'error: standard output: No room'),
  ],
)
def test_what_is_asked_for_is_written_though_none_reads_the_table(
  failure, status, text, weights, monkeypatch, capsys, tmp_path
):
  def fail(_):
    raise command_line.OutputError(failure)

  out = tmp_path / 'probe.json'
  monkeypatch.setattr(progress, 'print_summary', fail)
  options = ['--shots=', '--neighbours=1', f'--out={out}']
  assert run_script(monkeypatch, weights, *options) == status
  assert capsys.readouterr().err.strip() == text
  assert json.loads(out.read_text('utf-8'))['num_test'] == 101


def test_what_is_fitted_must_not_be_tested_on(weights, monkeypatch, capsys):
  options = ['--test_split=train[100:300]', '--shots=', '--neighbours=1']
  assert run_script(monkeypatch, weights, *options) == 0
  warning = capsys.readouterr().err
  assert 'the test split has train[100:200] in common' in warning
  assert '--train_split' in warning
  assert 'config.' not in warning


def run_script(monkeypatch, weights, *options):
  monkeypatch.setattr(
    sys,
    'argv',
    [
      'probe.py',
      f'--checkpoint={weights}',
      '--dataset=digits',
      '--train_split=train[:200]',
      '--test_split=test[:101]',
      '--image_size=16',
      '--batch=41',
      *options,
    ],
  )
  return script.main()
