"""Tests of `sweep.make`: options are read, and mistakes told before any run."""

import os
import pathlib
import subprocess
import sys

import pytest
import sweeps

from vit_jax import errors, flag_errors
from vit_jax.sweep import space, table

ROOT = pathlib.Path(__file__).parents[1]
# ml_collections reads config files so.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module')


@pytest.fixture(autouse=True)
def _checkout(monkeypatch):
  monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
  ('grid', 'values'),
  [
    ('base_lr=1,0.01', (1.0, 0.01)),
    ('batch=31, 62', (31, 62)),
    ('optimizer=sgd,adamw', ('sgd', 'adamw')),
    ('scan_layers=True,false', (True, False)),
    ('pp.area_range=(0.1,1.0),(0.5,1)', ('(0.1,1.0)', '(0.5,1)')),
    ('model.transformer.dropout_rate=0,0.1', (0.0, 0.1)),
  ],
)
def test_values_have_the_type_of_their_field(grid, values):
  base = flag_errors.built_config(sweeps.CONFIG)
  (parameter,) = space.parse([grid], [], base)
  assert parameter.values == values
  assert [type(x) for x in parameter.values] == [type(x) for x in values]


def test_ranges_know_whole_numbers_and_ratios():
  base = flag_errors.built_config(sweeps.CONFIG)
  texts = ['base_lr=1e-4..1e-1:log', 'batch=31..62', 'weight_decay=0..1']
  rate, batch, decay = space.parse([], texts, base)
  assert (rate.low, rate.high, rate.is_log, rate.is_int) == (1e-4, 0.1, True, 0)
  assert (batch.examples(), batch.is_int) == ([31, 62], True)
  assert str(batch) == 'batch=31..62'
  assert (decay.examples(), decay.is_log) == ([0.0, 1.0], False)


@pytest.mark.parametrize(
  ('options', 'text'),
  [
    ({'grids': ('bas_lr=1,2',)}, "Did you mean 'base_lr'"),
    ({'grids': ('batch=32,1.5',)}, '--config.batch=1.5: expected a value of'),
    ({'grids': ('batch=32,-1',)}, 'config.batch=-1 should be'),
    ({'grids': ('pp.augment=crop,affin',)}, "Did you mean 'affine'"),
    (
      {'grids': ('batch=31,62', 'accum_steps=1,2')},
      r'config.batch=31 is not a multiple of 2.*batch=31, accum_steps=2',
    ),
    ({'grids': ('base_lr',)}, 'expected FIELD=VALUE,VALUE'),
    ({'grids': ('base_lr=0.1,,0.2',)}, 'expected FIELD=VALUE,VALUE'),
    ({'grids': ('base_lr=0.1,0.10',)}, 'a value stands there twice'),
    ({'grids': ('base_lr=0.1', 'base_lr=0.2')}, 'varied twice'),
    ({}, 'Nothing is varied'),
    ({'ranges': ('base_lr=1..2:ln',), 'trials': 3}, 'type float'),
    ({'ranges': ('base_lr=2..1',), 'trials': 3}, 'smaller one first'),
    ({'ranges': ('base_lr=0..1:log',), 'trials': 3}, 'above 0'),
    ({'ranges': ('optimizer=a..b',), 'trials': 3}, 'is no number'),
    ({'ranges': ('base_lr=0.1..1',)}, '--trials 20'),
    (
      {'ranges': ('base_lr=0.1..1',), 'sampler': 'grid', 'trials': 3},
      'A grid has no ranges',
    ),
    ({'grids': ('base_lr=0.1',), 'metric': 'tst/accuracy'}, 'test/accuracy'),
    ({'grids': ('base_lr=0.1',), 'metric': 'val/loss'}, 'Unknown --metric'),
    ({'grids': ('base_lr=0.1',), 'metric': ''}, '--metric is empty'),
    ({'grids': ('batch=31,62',), 'fixed': ('batch=3',)}, 'fixed by --set'),
    ({'grids': ('base_lr=0.1',), 'fixed': ('btch=3',)}, "mean 'batch'"),
    ({'grids': ('base_lr=0.1',), 'fixed': ('batch',)}, 'FIELD=VALUE'),
    ({'grids': ('seed=1,2',), 'seeds': (0, 1)}, 'by --seeds'),
    ({'grids': ('base_lr=0.1',), 'seeds': (1, 1)}, 'there twice'),
    (
      {
        'grids': ('base_lr=0.1',),
        'pruner': 'median',
        'fixed': ('eval_every=7000',),
      },
      'evaluations on the way',
    ),
  ],
)
def test_mistakes_are_told(options, text):
  with pytest.raises(errors.ConfigError, match=text):
    sweeps.sweep.make(sweeps.CONFIG, **options)


def test_all_mistakes_are_told_at_once():
  with pytest.raises(errors.ConfigError) as raised:
    sweeps.sweep.make(sweeps.CONFIG, grids=('bas_lr=1', 'batch=x', 'y'))
  assert len(str(raised.value).splitlines()) == 3


@pytest.mark.parametrize(
  ('config', 'text'),
  [('configs/vti.py:tiny,digits', 'No config file'),
   ('configs/vit.py:tiny,digit', "Did you mean 'digits'")],
)  # fmt: skip
def test_config_that_is_none_is_told(config, text):
  with pytest.raises(errors.ConfigError, match=text):
    sweeps.sweep.make(config, grids=('base_lr=0.1',))


def test_names_are_short_unless_they_would_be_the_same():
  assert space.short_names(['pp.train', 'model.train', 'mesh.data']) == {
    'pp.train': 'pp.train',
    'model.train': 'model.train',
    'mesh.data': 'data',
  }


def test_errors_in_tables_are_one_short_line():
  assert table.first_sentence('Loss is\n NaN. Lower it.') == 'Loss is NaN'
  assert len(table.first_sentence('x' * 500)) == 120


def script(*options, **kwargs):
  return subprocess.run(
    [sys.executable, 'scripts/sweep.py', *options],
    capture_output=True,
    text=True,
    check=False,
    **kwargs,
  )


def test_script_tells_a_mistake_and_starts_no_device(tmp_path):
  done = script(
    f'--config={sweeps.CONFIG}', '--grid=bas_lr=1', f'--out={tmp_path / "x"}',
    # Whoever asked for a device would fail.
    env={**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'none'},
  )  # fmt: skip
  assert done.returncode == 2
  assert done.stderr.startswith("error: Unknown field of config 'bas_lr'.")
  assert not (tmp_path / 'x').exists()
