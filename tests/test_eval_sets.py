"""Several sets evaluated in one run."""

import json
import math
import re

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

import vit_jax
from configs import vit
from vit_jax import config_checks, errors, evaluate, train
from vit_jax.data import crops, decode, eval_sets, sources

pytestmark = pytest.mark.usefixtures('compile_once')


@pytest.fixture
def config(real_dir):
  return small_config(real_dir)


def small_config(real_dir):
  config = vit.get_config('tiny,digits')
  config.tfds_data_dir = real_dir
  config.model.hidden_size = 10
  config.model.transformer.update(mlp_dim=14, num_heads=2, num_layers=1)
  config.pp.update(train='train[:101]', test='test[:47]', crop=8)
  config.update(
    total_steps=5,
    warmup_steps=2,
    batch=6,
    batch_eval=23,
    progress_every=3,
    eval_every=3,
    checkpoint_every=0,
    num_threads=1,
    eval_sets='holdout=train[90%:],real=real_small:validation',
    best_metric='holdout/loss',
  )
  return config


# What the field may say.


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('', []),
    (' ', []),
    (None, []),
    ('holdout=train[98%:]', [('holdout', '', 'train[98%:]')]),
    ('a=train,', [('a', '', 'train')]),
    ('a=x:train , b=all ,\n', [('a', 'x', 'train'), ('b', '', 'all')]),
    (',', []),
    ('a=train[:9]+test', [('a', '', 'train[:9]+test')]),
    (
      'b-2 = x/y:3.0.0:test , a=all',
      [('b-2', 'x/y:3.0.0', 'test'), ('a', '', 'all')],
    ),
    ('a=/p/q,r:s:test[1%:2%]', [('a', '/p/q,r:s', 'test[1%:2%]')]),
    (
      'a=x:test[:5]+train[7:],b=y:v',
      [('a', 'x', 'test[:5]+train[7:]'), ('b', 'y', 'v')],
    ),
  ],
)
def test_sets_are_read(text, expected):
  found = eval_sets.parse(text)
  assert [(name, *value) for name, value in found.items()] == expected


@pytest.mark.parametrize(
  ('text', 'said'),
  [
    ('train[98%:]', "found 'train[98%:]', expected NAME=SPLIT"),
    ('a=', "found 'a=', expected"),
    ('a=train[:98', "found 'a=train[:98', expected"),
    ('a=x:', "found 'a=x:', expected"),
    ('2=test', "found '2=test', expected"),
    ('a/b=test', "found 'a/b=test', expected"),
    ('a=test,,', "found 'a=test,', expected"),
    ('a=test,,b=test', "found 'a=test,', expected"),
    ('a=test,train', "found 'a=test,train', expected"),
    ('a=x[:test', "found 'a=x[:test', expected"),
    ('test=train', "'test' is reserved for the metrics of config.pp.test"),
    ('train=test', "'train' is reserved for the metrics of training"),
    ('a=test,a=train', "'a' is there twice"),
  ],
)
def test_wrong_sets_are_a_problem_of_the_config(config, text, said):
  config.update(eval_sets=text, best_metric='test/loss', export='first')
  with pytest.raises(errors.ConfigError) as caught:
    config_checks.check_config(config, 1)
  _, first, second = str(caught.value).splitlines()
  assert said in first
  assert 'config.export' in second


def test_best_metric_is_of_a_set_that_is_evaluated(config):
  config_checks.check_config(config, 1)
  config.best_metric = 'holdout/top5'
  config_checks.check_config(config, 1)
  config.eval_sets = 'v2=test[:9]'
  said = "Unknown config.best_metric 'holdout/top5'"
  with pytest.raises(errors.ConfigError, match=said) as caught:
    config_checks.check_config(config, 1)
  assert 'v2/accuracy, v2/loss, v2/top5' in str(caught.value)


def test_several_labels_have_an_accuracy_alone(config):
  config.best_metric = 'real/accuracy'
  eval_sets.load(config)
  config.best_metric = 'real/loss'
  with pytest.raises(errors.ConfigError, match="has but 'real/accuracy'"):
    eval_sets.load(config)


@pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')
def test_sets_are_given_on_the_command_line(monkeypatch):
  text = 'holdout=train[98%:],v2=imagenet_v2:test'
  argv = ['main', f'--config={vit.__file__}:tiny,digits']
  argv += [f'--config.eval_sets={text}', '--config.best_metric=v2/top5']
  monkeypatch.setattr('sys.argv', argv)
  values = flags.FlagValues()
  holder = config_flags.DEFINE_config_file('config', flag_values=values)
  values(argv)
  assert holder.value.eval_sets == text
  config_checks.check_config(holder.value, 1)


# What they have to be.


@pytest.mark.parametrize(
  ('text', 'kind', 'said'),
  [
    ('a=trian', errors.ConfigError, "a: Data set 'digits': Unknown split 'tri"),
    ('a=digit:test', errors.ConfigError, "a: Unknown data set 'digit'"),
    ('a=oxford_iiit_pet:test', errors.DataNotFoundError, 'is not prepared in'),
    (
      'ok=test,a=digits/0_to_4:test',
      errors.ConfigError,
      "a: the classes of 'digits/0_to_4' are not those of 'digits', in the "
      'same order: it has 5 classes, expected 10',
    ),
  ],
)
def test_wrong_set_is_named(config, text, kind, said):
  config.update(eval_sets=text, best_metric='')
  with pytest.raises(kind, match=re.escape('config.eval_sets, a: ')) as caught:
    train.train_and_evaluate(config, '/nowhere')
  assert said in str(caught.value)


@pytest.mark.parametrize('name', ['imagenet_v2/topimages:3.0.0', 'emus'])
def test_classes_are_the_same_in_order_or_known_to_be(
  config, monkeypatch, name
):
  classes = {'imagenet2012': ('cat', 'dog', 'emu'), name: ('cat', 'emu', 'dog')}
  monkeypatch.setattr(
    sources,
    'load_source',
    lambda config, split: sources.Source(
      config.dataset, split, classes[config.dataset]
    ),
  )
  config.update(dataset='imagenet2012', eval_sets=f'a={name}:test')
  if name != 'emus':
    assert eval_sets.load(config)['a'].name == name
    classes[name] = ('cat', 'emu')
    with pytest.raises(errors.ConfigError, match='2 classes, expected 3'):
      eval_sets.load(config)
    return
  with pytest.raises(errors.ConfigError, match="1 is 'emu', expected 'dog'"):
    eval_sets.load(config)


# Whole runs.


@pytest.fixture(scope='module')
def whole_run(real_dir, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('whole')
  train.train_and_evaluate(small_config(real_dir), workdir)
  return workdir


def logits_of(config, workdir, source):
  model = vit_jax.create_model(config.model, 10)
  params = vit_jax.load_pretrained(workdir, model, 8)
  if source.images is not None:
    images = source.images
  else:
    encoded = [source.read(index)[0] for index in range(len(source))]
    images = np.stack(
      [crops.resize_squash(decode.decode(each), 8) for each in encoded]
    )
  return np.asarray(
    model.apply({'params': params}, (images.astype('f4') - 127.5) / 127.5), 'f8'
  )


def expected_metrics(logits, labels):
  rows = np.arange(len(labels))
  right = logits[rows, labels]
  ranks = (logits > right[:, None]).sum(axis=1)
  return {
    'loss': (np.log(np.exp(logits).sum(axis=1)) - right).mean(),
    'accuracy': (ranks == 0).mean(),
    'top5': (ranks < 5).mean(),
  }


def real_accuracy(logits, labels):
  """Returns the share of the images with labels whose guess is one of them."""
  right = [
    guess in found
    for guess, found in zip(logits.argmax(axis=1), labels.tolist(), strict=True)
    if max(found) >= 0
  ]
  assert 0 < len(right) < len(labels)
  return sum(right) / len(right)


def test_log_has_all_sets_at_each_evaluation(whole_run):
  text = (whole_run / 'metrics.jsonl').read_text()
  lines = [json.loads(line) for line in text.splitlines()]
  lines = [line for line in lines if 'train/loss' not in line]
  assert [line['step'] for line in lines] == [3, 5]
  names = ['accuracy', 'loss', 'top5']
  for line in lines:
    assert [*line] == [
      'step',
      *(f'test/{name}' for name in names),
      *(f'holdout/{name}' for name in names),
      'real/accuracy',
    ]


def test_log_of_the_last_step_is_what_numpy_says(config, whole_run):
  last = json.loads((whole_run / 'metrics.jsonl').read_text().splitlines()[-1])
  found = eval_sets.load(config)
  assert [*found] == ['test', 'holdout', 'real']
  holdout = sources.load_source(config, 'train[90%:]')
  np.testing.assert_array_equal(found['holdout'].images, holdout.images)
  for name in ('test', 'holdout'):
    logits = logits_of(config, whole_run, found[name])
    expected = expected_metrics(logits, found[name].labels)
    assert {key: last[f'{name}/{key}'] for key in expected} == pytest.approx(
      expected, rel=1e-5
    )
  logits = logits_of(config, whole_run, found['real'])
  expected = real_accuracy(logits, found['real'].labels)
  assert last['real/accuracy'] == pytest.approx(expected, rel=1e-6)


def test_best_metric_of_another_set_decides(config, tmp_path, monkeypatch):
  losses = iter([0.5, 0.9])
  monkeypatch.setattr(
    evaluate,
    'evaluate_sets',
    lambda *_: {'holdout/loss': (x := next(losses)), 'test/loss': 1 - x},
  )
  config.keep_checkpoints = 1
  train.train_and_evaluate(config, tmp_path / 'run')
  names = {path.name for path in (tmp_path / 'run' / 'checkpoints').iterdir()}
  assert names == {'3', '5'}  # The best and the last.


@pytest.mark.parametrize('name', ['real_small', 'real_large'])
def test_finished_run_is_evaluated_on_all_sets(config, whole_run, capsys, name):
  config.eval_sets = f'real={name}:validation,few=test[:7]'
  config.best_metric = ''
  metrics = evaluate.evaluate_run(config, whole_run)
  source = eval_sets.load(config)['real']
  labels = np.stack([source.read(index)[1] for index in range(29)])
  expected = real_accuracy(logits_of(config, whole_run, source), labels)
  assert metrics['real/accuracy'] == pytest.approx(expected, rel=1e-6)
  assert {*metrics} >= {'test/loss', 'few/loss', 'few/accuracy', 'few/top5'}
  printed = capsys.readouterr().out
  assert f'real: 29 of {name} (validation); few: 7 of digits' in printed
  assert f'real/accuracy {expected:.2%}' in printed


def test_set_with_several_labels_is_evaluated_by_itself(config, whole_run):
  config.update(dataset='real_small', eval_sets='', best_metric='')
  config.pp.test = 'validation'
  metrics = evaluate.evaluate_run(config, whole_run)
  assert [*metrics] == ['test/accuracy']
  labels = sources.load_source(config, 'validation').labels
  empty = int((labels < 0).all(axis=1).argmax())
  config.pp.test = f'validation[{empty}:{empty + 1}]'
  assert math.isnan(evaluate.evaluate_run(config, whole_run)['test/accuracy'])
