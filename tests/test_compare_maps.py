"""What `scripts/compare_maps.py` measures of runs, and says of mistakes."""

import json
import sys

import numpy as np
import pytest
import small_model

import vit_jax
from configs import vit
from scripts import compare_maps
from vit_jax import attention, checkpoints
from vit_jax.attention_report import comparison
from vit_jax.data import sources

NUM_IMAGES = 11
KINDS = ('deletion', 'insertion')


@pytest.fixture(scope='module')
def config(tmp_path_factory):
  config = vit.get_config('tiny,digits')
  config.tfds_data_dir = str(tmp_path_factory.mktemp('tfds'))
  config.model.hidden_size = 10
  config.model.patches.size = (2, 4)
  config.model.transformer.update(mlp_dim=14, num_heads=2, num_layers=3)
  config.pp.update(test=f'test[:{NUM_IMAGES}]', crop=8)
  config.num_threads = 1
  return config


@pytest.fixture(scope='module')
def model(config):
  return vit_jax.create_model(config.model, 10)


@pytest.fixture(scope='module')
def runs(config, model, tmp_path_factory):
  """Two runs whose predictions and maps are not the same."""
  found = {}
  for scale in (0.3, 0.5):
    params = small_model.random_params(model, (1, 8, 8, 3), scale)
    path = tmp_path_factory.mktemp('run')
    (path / 'config.json').write_text(json.dumps(config.to_dict()))
    checkpoints.save_params(params, path / 'model.npz')
    found[str(path)] = params
  return found


@pytest.fixture
def run(runs):
  return next(iter(runs))


@pytest.fixture
def compare(monkeypatch, capsys, tmp_path):
  """Gives the arguments -> (exit status, what `--json` wrote, out, err)."""

  def call(*args):
    file = tmp_path / 'maps.json'
    # All of one batch size and baseline, which are compiled once.
    fixed = ('--batch=5', '--baseline=blur', f'--json={file}')
    monkeypatch.setattr(
      sys, 'argv', ['compare_maps.py', *fixed, *map(str, args)]
    )
    status = compare_maps.main()
    written = json.loads(file.read_text()) if file.is_file() else None
    return status, written, *capsys.readouterr()

  return call


@pytest.fixture(scope='module')
def expected(config, model, runs):
  """By run and method, (deletion, insertion) areas of all images at once."""
  source = sources.load_source(config, config.pp.test)
  assert source.images is not None
  images = (source.images.astype('f4') - 127.5) / 127.5
  found = {}
  for run, params in runs.items():
    maps = {
      'random': np.random.default_rng(0).random((NUM_IMAGES, 4, 2)),
      'centre': np.stack([attention.centre_map((4, 2))] * NUM_IMAGES),
      'raw': attention.class_token_maps(model, params, images)[0][-1].mean(1),
      'rollout': attention.rollout_maps(model, params, images).maps,
      'grad_rollout': attention.grad_rollout_maps(model, params, images).maps,
      'relevance': attention.relevance_maps(model, params, images).maps,
    }
    found[run] = {}
    for method, each in maps.items():
      curves = attention.faithfulness_curves(
        model, params, images, np.asarray(each), baseline='blur'
      )
      found[run][method] = (curves.deletion_area, curves.insertion_area)
  return found


def check(methods, wanted):
  for method, areas in wanted.items():
    for kind, values, centre in zip(
      KINDS, areas, wanted['centre'], strict=True
    ):
      less = np.asarray(values) - np.asarray(centre)
      assert methods[method][kind] == pytest.approx(
        {
          'mean': float(np.mean(values)),
          'minus_centre': float(less.mean()),
          'standard_error': float(less.std(ddof=1)) / NUM_IMAGES**0.5,
        },
        abs=1e-6,
      )


def test_areas_are_those_of_all_images_and_the_predicted_class(
  compare, runs, expected
):
  status, found, out, err = compare(*runs)
  assert (status, err) == (0, '')
  assert list(found['runs']) == list(runs)
  assert (found['dataset'], found['split']) == ('digits', 'test[:11]')
  assert (found['num_images'], found['baseline']) == (NUM_IMAGES, 'blur')
  for run, wanted in expected.items():
    assert list(found['runs'][run]['methods']) == list(wanted)
    check(found['runs'][run]['methods'], wanted)
  first, second = expected.values()
  means = {m: np.add(first[m], second[m]) / 2 for m in first}
  check(found['average'], means)
  rollout = found['average']['rollout']['deletion']
  (line,) = [
    line
    for line in out.partition('average of 2 runs')[2].splitlines()
    if line.startswith('  rollout ')
  ]
  assert line.split()[1:5] == [
    f'{rollout["mean"]:.3f}',
    f'{rollout["minus_centre"]:+.3f}',
    '±',
    f'{rollout["standard_error"]:.3f}',
  ]


def test_accuracy_is_that_of_the_run(compare, config, model, runs):
  source = sources.load_source(config, config.pp.test)
  assert source.images is not None
  images = (source.images.astype('f4') - 127.5) / 127.5
  for run, params in runs.items():
    logits = np.asarray(model.apply({'params': params}, images))
    accuracy = float((logits.argmax(-1) == source.labels).mean())
    _, found, out, _ = compare(run, '--methods=centre')
    assert found['runs'][run]['accuracy'] == pytest.approx(accuracy)
    assert f'accuracy {accuracy:.1%}' in out
    assert 'average' not in found and 'average' not in out


def test_methods_stand_beside_the_centre(compare, run):
  _, found, out, _ = compare(run, '--methods', 'rollout, random')
  methods = found['runs'][run]['methods']
  assert list(methods) == ['random', 'centre', 'rollout']
  assert 'relevance' not in out


def test_first_images_are_those_of_the_split(compare, run):
  methods = '--methods=random,rollout'
  _, first, *_ = compare(run, methods, '--num_images=7')
  _, part, *_ = compare(run, methods, '--split=test[:7]')
  assert first['num_images'] == part['num_images'] == 7
  for method, kinds in part['runs'][run]['methods'].items():
    for kind, numbers in kinds.items():
      again = first['runs'][run]['methods'][method][kind]
      assert again == pytest.approx(numbers, abs=1e-6)


def test_one_image_has_no_error(compare, run):
  _, found, *_ = compare(run, '--num_images=1', '--methods=rollout')
  methods = found['runs'][run]['methods']
  assert methods['rollout']['deletion']['standard_error'] is None


def test_runs_that_are_done_stay_when_the_next_is_stopped(
  compare, runs, monkeypatch
):
  measure, (first, second) = comparison.measure, runs

  def measure_or_stop(run, *args):
    if run == second:
      raise KeyboardInterrupt
    return measure(run, *args)

  monkeypatch.setattr(comparison, 'measure', measure_or_stop)
  status, found, out, err = compare(first, second, '--methods=centre')
  assert (status, err) == (
    130,
    'stopped; the numbers of runs that were done stay\n',
  )
  assert list(found['runs']) == [first] and 'average' not in found
  assert first in out


# --- Mistakes ----------------------------------------------------------------


@pytest.fixture
def edited(config, tmp_path):
  """Gives (text or changed settings, with model.npz or not) -> a run."""

  def make(content, is_finished=True):
    path = tmp_path / 'edited'
    path.mkdir()
    if not isinstance(content, str):
      changed = config.copy_and_resolve_references()
      changed.update(content)
      content = json.dumps(changed.to_dict())
    (path / 'config.json').write_text(content)
    if is_finished:
      (path / 'model.npz').write_bytes(b'not looked at')
    return path

  return make


def expect_error(result, *texts):
  status, written, out, err = result
  assert (status, written, out) == (2, None, '')
  assert err.startswith('error: ') and err.count('error:') == 1
  for text in texts:
    assert text in err


@pytest.mark.parametrize(
  ('option', 'text'),
  [
    ('--methods=roll_out', "Did you mean 'rollout'?"),
    ('--split=tst', "Did you mean 'test'?"),
  ],
)
def test_options_that_can_not_be(compare, run, option, text):
  expect_error(compare(run, option), text)


def test_no_run(compare, tmp_path):
  expect_error(
    compare(tmp_path / 'none'), str(tmp_path / 'none'), 'config.json'
  )


def test_run_that_has_not_finished(compare, edited):
  expect_error(compare(edited({}, is_finished=False)), 'lacks model.npz')


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('{"dataset": ', 'not the config of a run'),
    ('[1, 2]', 'not the config of a run'),
    ('7', 'not the config of a run'),
    ('{"dataset": "digits"}', 'no dtype, model'),
    (json.dumps(dict.fromkeys(comparison.FIELDS, 3)), 'not the config'),
    (json.dumps({key: {} for key in comparison.FIELDS}), 'no crop, test'),
  ],
)
def test_config_that_is_none(compare, edited, text, expected):
  path = edited(text)
  expect_error(compare(path), expected, str(path / 'config.json'))


def test_weights_that_are_none(compare, edited):
  expect_error(compare(edited({})), 'model.npz')


def test_mixer_has_no_attention(compare, edited):
  sizes = ('hidden_dim', 'num_blocks', 'tokens_mlp_dim', 'channels_mlp_dim')
  model = {'patches': {'size': (4, 4)}} | dict.fromkeys(sizes, 8)
  path = edited({})
  settings = json.loads((path / 'config.json').read_text())
  (path / 'config.json').write_text(json.dumps(settings | {'model': model}))
  expect_error(compare(path), 'a Mixer mixes tokens')


def test_runs_of_different_data(compare, edited, run):
  result = compare(run, edited({'dataset': 'digits/0_to_4'}))
  expect_error(result, 'digits test[:11], digits/0_to_4 test[:11]')


def test_numbers_that_can_not_be_written(compare, run, tmp_path, capsys):
  (tmp_path / 'maps.json').mkdir()
  with pytest.raises(SystemExit, match='2'):
    compare(run, '--num_images=1', '--methods=centre')
  assert "maps.json' is a directory" in capsys.readouterr().err


@pytest.mark.parametrize('option', ['--num_images=0', '--batch=-3'])
def test_options_that_are_no_numbers(compare, run, option, capsys):
  with pytest.raises(SystemExit, match='2'):
    compare(run, option)
  assert option[2:].partition('=')[0] in capsys.readouterr().err
