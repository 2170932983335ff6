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
from vit_jax.config_checks import fields
from vit_jax.models import variants


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
  for name, value in fields.items():
    *parents, leaf = name.split('.')
    node = functools.reduce(operator.getitem, parents, config)
    with node.unlocked(), node.ignore_type():
      node[leaf] = value


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
    'config.pp.crop',
    'config.total_steps',
    'config.base_lr',
    'config.label_smoothing',
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
    ('total_steps', 2**31, 'below 2'),
    ('warmup_steps', 10**11, 'below 2'),
    ('seed', 2**63, 'a number of 64 bits'),
    ('seed', -(2**63), 'a number of 64 bits'),
    ('num_threads', 1025, 'should be at most 1024'),
    ('num_workers', 100_000, 'should be at most 12, 4 for each of the 3 cores'),
    ('model.classifier', 'unpooled', "should be 'token', 'gap' or 'map'"),
    ('model.classifier', 'token_unpooled', "should be 'token', 'gap' or 'map'"),
    ('pp.area_range', (0.0, 1.0), 'two numbers above 0, the larger last'),
    ('pp.area_range', (0.5, 1.1), 'at most 1'),
    ('pp.test_resize', 15, '0 or at least config.pp.crop=16'),
    ('pp.test_resize', -1, '0 or at least config.pp.crop=16'),
    ('pp.area_range', (0.5,), 'two numbers'),
    ('pp.ratio_range', (2.0, 0.5), 'two numbers'),
    ('pp.affine.scale', 1.0, 'should be in [0, 1)'),
    ('dtype', 'float64', 'Valid: bfloat16, float16, float32.'),
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
  'name',
  [
    name
    for name, kind in fields.FIELDS.items()
    # Any number of 64 bits is a seed.
    if kind in (int, float, tuple) and name != 'seed'
  ],
)
def test_every_number_has_a_range(config, name):
  value = {int: -(10**6), float: -1e6, tuple: (-2.0, -1.0)}[fields.FIELDS[name]]
  set_fields(config, **{name: value})
  (problem,) = problems_of(config)
  assert problem.startswith(f'config.{name}=')
  assert ' should ' in problem


@pytest.mark.parametrize(
  ('model', 'name'),
  [
    (model, name)
    for model in ('b16', 'r50_b16', 'mixer_b16')
    for name, value in fields.leaves(variants.model_config(model))
    # A bias may be any number.
    if not isinstance(value, str) and name != 'head_bias_init'
  ],
)
def test_every_number_of_a_model_has_a_range(config, model, name):
  config.model = variants.model_config(model)
  config.pp.crop = 32
  old = functools.reduce(operator.getitem, name.split('.'), config.model)
  value = (-32, -32) if isinstance(old, tuple) else type(old or 0)(-32)
  set_fields(config, **{f'model.{name}': value})
  (problem,) = problems_of(config)
  assert problem.startswith('config.model: ')
  assert f'{name.split(".")[-1]} {value}' in problem


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
    ('pp.test_resize', 16),
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


def test_types_are_those_of_the_defaults():
  found = flat_fields(common.get_config())
  assert found.keys() == fields.FIELDS.keys()
  for name, value in found.items():
    if value is not None:
      assert fields._is_of(fields.FIELDS[name], value), name


@pytest.mark.parametrize(
  ('field', 'value', 'expected'),
  [
    ('batch', '512', "='512' is of type str, expected int."),
    ('batch', 64.0, '=64.0 is of type float, expected int.'),
    ('batch', True, 'type bool, expected int'),
    ('base_lr', '0.1', 'type str, expected float'),
    ('offline', 'no', 'type str, expected bool'),
    ('dataset', 3, 'type int, expected str'),
    ('pp.area_range', '0.5', 'expected a tuple of numbers'),
    ('pp.crop', '384', 'type str, expected int'),
    ('model', 'b16', 'expected a model config'),
    ('model.hidden_size', '768', 'type str, expected int'),
    ('model.patches.size', 16, 'expected a tuple of numbers'),
    ('model.transformer.dropout_rate', '0.1', 'type str, expected float'),
  ],
)
def test_wrong_type_is_named(config, field, value, expected):
  set_fields(config, **{field: value})
  (problem,) = problems_of(config)
  assert problem.startswith(f'config.{field}=')
  assert expected in problem


@pytest.mark.parametrize(
  ('field', 'value', 'expected'),
  [
    ('model.transformer.num_heads', 5, '64 is not a multiple of num_heads 5'),
    ('model.transformer.num_heads', 0, 'num_heads 0 is not positive'),
    ('model.transformer.dropout_rate', -0.1, '-0.1 is not in [0, 1)'),
    ('model.classifier', 'tokn', "Did you mean 'token'?"),
    ('model.patches.size', (17, 17), 'config.pp.crop=16 is too small for conf'),
    ('model.patches.size', (4,), 'is not a positive (height, width)'),
    ('model.hiden_size', 3, "Did you mean 'model.hidden_size'?"),
    ('bse_lr', 0.1, "'config.bse_lr'. Did you mean 'config.base_lr'?"),
    ('optimizer', 'adam', "Did you mean 'adamw'?"),
    ('decay_type', 'cosin', "Did you mean 'cosine'?"),
    ('pp.augment', 'crop_flop', "Did you mean 'crop_flip'?"),
    ('pp.preset', 'mediun1', "Did you mean 'medium1'?"),
    ('label', 'clevr_counts', "Did you mean 'clevr_count'?"),
    ('profile', '5:3', "should be 'FIRST:LAST'"),
    ('model.patches.size', (4.5, 4), '(4.5, 4) is not a positive (height, wid'),
    ('model.hidden_size', None, 'config.model.hidden_size is not set.'),
    ('model.transformer', 3, 'model.transformer is 3, expected one with the'),
    ('mesh.data', 0, 'config.mesh.data=0 should be at least 1, or -1 for all'),
    ('mesh.tensor', -2, 'config.mesh.tensor=-2 should be at least 1, or -1'),
    ('mesh.fsdp', -1, 'config.mesh.fsdp=-1 is that of config.mesh.data.'),
    ('mesh.data', '2', "config.mesh.data='2' is of type str, expected int."),
    ('accum_steps', 7, '64 is not a multiple of 7 (1 devices x 7 config.accum'),
    ('pp.train', 'trian', "pp.train: Data set 'digits': Unknown split 'trian'"),
    ('pp.test', 'train[:9', "config.pp.test: split 'train[:9' is malformed"),
    ('pp.test', 'train[a:9%]', "split 'train[a:9%]' is malformed"),
    ('pp.test', 'train+', "split 'train+' is malformed"),
    ('eval_sets', 'a=tset', 'config.eval_sets, a: Data set '),
    ('eval_sets', 'a=cifar10:tset', "Data set 'cifar10': Unknown split"),
    ('eval_sets', 'a=dtd:train[1:2:3]', "a: split 'train[1:2:3]' is malformed"),
  ],
)
def test_model_and_names_are_checked(config, field, value, expected):
  set_fields(config, **{field: value})
  (problem,) = problems_of(config)
  assert 'config.' in problem
  assert expected in problem
