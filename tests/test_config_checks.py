"""Configs that can't work: all that is wrong is said at once."""

import functools
import itertools
import math
import operator
import re

import pytest
from flax import traverse_util

from configs import common, vit
from vit_jax import config_checks, errors


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setattr('os.cpu_count', lambda: 3)
  return vit.get_config('tiny,digits')


def problems_of(config, num_devices=1) -> list[str]:
  """Returns the lines below the first one of the error."""
  with pytest.raises(errors.ConfigError) as caught:
    config_checks.check_config(config, num_devices)
  first, *problems = str(caught.value).splitlines()
  assert first == 'The config can not work:'
  return [problem.removeprefix('  ') for problem in problems]


def set_fields(config, **fields):
  with config.unlocked(), config.ignore_type():
    config.update_from_flattened_dict(fields)


def flat_fields(config) -> dict:
  """Returns {dotted name: value}, the model's fields as one."""
  fields = config.to_dict()
  model = fields.pop('model')
  return {
    **traverse_util.flatten_dict(fields, sep='.', is_leaf=lambda _, x: not x),
    'model': model,
  }


@pytest.mark.parametrize('name', flat_fields(common.get_config()))
def test_missing_field_is_named(config, name):
  *parents, leaf = name.split('.')
  del functools.reduce(operator.getitem, parents, config)[leaf]
  (problem,) = problems_of(config)
  assert problem.startswith(f'It has no config.{name}. configs/common.py has ')


def test_all_missing_fields_are_named_at_once(config):
  for name in ('seed', 'pp', 'label_smoothing', 'best_metric'):
    del config[name]
  (problem,) = problems_of(config)
  assert problem.startswith(
    'It has no config.best_metric, config.label_smoothing, '
    'config.pp.affine.rotate, '
  )
  assert 'config.pp.train, config.seed. configs/common.py' in problem


def test_default_works(config):
  config_checks.check_config(config, num_devices=1)
  config_checks.check_config(config, num_devices=8)


def test_all_problems_are_listed_at_once(config):
  config.update(
    batch=130,
    batch_eval=361,
    accum_steps=4,
    total_steps=0,
    base_lr=-1.0,
    export='bst',
    label_smoothing=1.0,
  )
  config.pp.crop = 0
  problems = problems_of(config, num_devices=3)
  assert [re.split('[ =]', problem)[0] for problem in problems] == [
    'config.batch',
    'config.batch_eval',
    'config.total_steps',
    'config.base_lr',
    'config.label_smoothing',
    'config.pp.crop',
    'Unknown',
  ]
  assert problems[0] == (
    'config.batch=130 is not a multiple of 12 (3 devices x 4 '
    'config.accum_steps). Sizes that work: 120, 132.'
  )
  assert problems[1] == (
    'config.batch_eval=361 is not a multiple of 3 (3 devices). Sizes that '
    'work: 360, 363.'
  )
  assert "Did you mean 'best'?" in problems[-1]


@pytest.mark.parametrize('num_devices', [1, 2, 3, 8])
@pytest.mark.parametrize('accum_steps', [1, 3, 4])
def test_sizes_that_are_said_to_work_do(config, num_devices, accum_steps):
  config.accum_steps = accum_steps
  multiple = num_devices * accum_steps
  for batch in (*range(1, 30), 509):
    config.update(batch=batch, batch_eval=batch * num_devices)
    if batch % multiple == 0:
      config_checks.check_config(config, num_devices)
      continue
    (problem,) = problems_of(config, num_devices)
    sizes = [int(size) for size in re.findall(r'\d+', problem.split(':')[-1])]
    assert sizes == [
      size
      for size in (
        batch - batch % multiple,
        batch - batch % multiple + multiple,
      )
      if size
    ]
    for size in sizes:
      config.batch = size
      config_checks.check_config(config, num_devices)


@pytest.mark.parametrize(
  ('field', 'value', 'expected'),
  [
    *itertools.product(
      (
        'accum_steps',
        'batch',
        'batch_eval',
        'eval_every',
        'keep_checkpoints',
        'progress_every',
        'total_steps',
        'pp.crop',
      ),
      (0, -3),
      ('should be at least 1',),
    ),
    *itertools.product(
      (
        'base_lr',
        'checkpoint_every',
        'grad_norm_clip',
        'num_threads',
        'patience',
        'warmup_steps',
        'weight_decay',
      ),
      (-1,),
      ('should not be negative',),
    ),
    ('label_smoothing', 1.0, 'should be in [0, 1)'),
    ('label_smoothing', -0.1, 'should be in [0, 1)'),
    *itertools.product(
      (
        'base_lr',
        'grad_norm_clip',
        'label_smoothing',
        'mixup_alpha',
        'model.head_bias_init',
        'model.transformer.dropout_rate',
        'pp.affine.rotate',
        'pp.affine.scale',
        'pp.affine.shear',
        'pp.affine.shift',
        'weight_decay',
      ),
      (math.nan, math.inf, -math.inf),
      ('is not finite',),
    ),
    ('pp.area_range', (0.5, math.nan), 'is not finite'),
    ('pp.ratio_range', (0.5, math.inf), 'is not finite'),
    ('seed', 2**63, 'a number of 64 bits'),
    ('seed', -(2**63), 'a number of 64 bits'),
    ('num_threads', 1025, 'should be at most 1024'),
    ('num_workers', 100_000, 'should be at most 12, 4 for each of the 3 cores'),
    ('model.classifier', 'unpooled', "should be 'token', 'gap' or 'map'"),
    ('model.classifier', 'token_unpooled', "should be 'token', 'gap' or 'map'"),
    ('pp.area_range', (0.0, 1.0), 'two numbers above 0, the larger last'),
    ('pp.area_range', (0.5, 1.1), 'at most 1'),
    ('pp.area_range', (0.5,), 'two numbers'),
    ('pp.ratio_range', (2.0, 0.5), 'two numbers'),
    ('pp.affine.scale', 1.0, 'should be in [0, 1)'),
    ('dtype', 'float16', 'Valid: bfloat16, float32.'),
    ('dtype', 'bfloat', "Did you mean 'bfloat16'?"),
    ('export', 'first', 'Valid: best, last.'),
    ('pp.augment', 'crops', "Did you mean 'crop'? Valid: affine, crop, cr"),
    ('best_metric', 'test/acc', "Did you mean 'test/accuracy'? Valid: test/a"),
    ('best_metric', 'val', "test/loss, test/top5. '' is for none."),
    ('best_metric', None, "Unknown config.best_metric 'None'"),
    ('seed', None, 'config.seed is not set.'),
    ('pp.area_range', None, 'config.pp.area_range is not set.'),
    ('batch', None, 'config.batch is not set.'),
    ('model', None, 'config.model is not set.'),
    ('dataset', '', 'config.dataset is not set.'),
  ],
)
def test_field_that_can_not_work_is_named(config, field, value, expected):
  set_fields(config, **{field: value})
  (problem,) = problems_of(config)
  assert f'config.{field}' in problem
  assert expected in problem


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('grad_norm_clip', None),
    ('grad_norm_clip', 0.0),
    ('checkpoint_every', 0),
    ('num_threads', 0),
    ('num_threads', 1024),
    ('num_workers', 12),
    ('patience', 0),
    ('pp.augment', 'crop'),
    ('warmup_steps', 0),
    ('warmup_steps', 7_001),
    ('seed', 2**63 - 1),
    ('seed', 1 - 2**63),
    ('model.classifier', 'token'),
    ('weight_decay', 0.0),
    ('base_lr', 0.0),
    ('label_smoothing', 0.0),
    ('best_metric', ''),
    ('dtype', 'bfloat16'),
    ('pp.area_range', (1.0, 1.0)),
    ('pp.area_range', [0.5, 1.0]),
    ('pp.affine.scale', 0.0),
  ],
)
def test_value_at_the_edge_works(config, field, value):
  set_fields(config, **{field: value})
  config_checks.check_config(config, 1)


@pytest.mark.parametrize(
  ('fields', 'name'),
  [({'patience': 3}, 'patience'), ({'export': 'best'}, "export='best'")],
)
def test_what_needs_a_best_metric_says_so(config, fields, name):
  config.best_metric = ''
  config.update(fields)
  assert problems_of(config) == [f'config.{name} needs config.best_metric.']


def test_top5_needs_more_than_five_classes(config):
  config.best_metric = 'test/top5'
  config_checks.check_classes(config, 6)
  with pytest.raises(errors.ConfigError, match='digits has 5'):
    config_checks.check_classes(config, 5)
  config.best_metric = 'test/accuracy'
  config_checks.check_classes(config, 2)
