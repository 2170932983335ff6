"""Mistakes in a config do not hide each other, nor make up others."""

import functools
import math
import operator

import pytest

from configs import vit
from vit_jax import config_checks, errors


@pytest.fixture
def config():
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


def test_mistakes_of_all_kinds_are_told_at_once(config):
  del config.remat
  set_fields(
    config,
    **{
      'batch': '512',
      'bse_lr': 0.1,
      'eval_every': 0,
      'optimizer': 'adam',
      'mesh.tensor': 3,
      'model.transformer.num_heads': 5,
    },
  )
  text = '\n'.join(problems_of(config, 8))
  for expected in (
    "config.batch='512'",
    'no config.remat',
    "'config.bse_lr'",
    'config.eval_every=0',
    "'adam'",
    'tensor=3 can not be made',
    'num_heads 5',
  ):
    assert expected in text
  assert len(text.splitlines()) == 7


def test_all_mistakes_of_a_model_are_told_at_once(config):
  set_fields(
    config,
    **{
      'model.fooo': 1,
      'model.transformer.dropout': 0.1,
      'model.transformer.num_heads': '4',
      'model.transformer.dropout_rate': 1.5,
      'model.transformer.drop_path_rate': math.nan,
      'model.hidden_size': -3,
      'model.gelu': 'exakt',
      'model.patches': 4,
      'model.position_embedding': 'x',
    },
  )
  problems = problems_of(config)
  for problem, expected in zip(
    problems,
    [
      'config.model.transformer.drop_path_rate=nan is not finite.',
      "config.model.transformer.num_heads='4' is of type str, expected int.",
      "'model.fooo'.",
      'Config field model.patches is 4, expected one with the fields size.',
      "'model.transformer.dropout'. Did you mean 'model.transformer.drop",
      'config.model: hidden_size -3 is not positive.',
      "Unknown gelu 'exakt'. Did you mean 'exact'?",
      "Unknown position_embedding 'x'. Valid: learned, sincos2d.",
      'dropout_rate 1.5 is not in [0, 1).',
    ],
    strict=True,
  ):
    assert expected in problem
    assert problem.endswith('.')
    assert not problem.endswith('..')


def test_fields_of_another_family_hide_no_others(config):
  set_fields(
    config,
    **{'model.num_blocks': 3, 'model.fooo': 1, 'model.hidden_size': 66},
  )
  foreign, unknown, size = problems_of(config)
  assert 'It has fields of a Mixer: num_blocks. Without ' in foreign
  assert "'model.fooo'" in unknown
  assert 'hidden_size 66 is not a multiple of num_heads 4' in size


@pytest.mark.parametrize(
  ('mesh', 'expected'),
  [
    ({'data': 3}, 'config.mesh with data=3, fsdp=1, tensor=1 can not be made'),
    ({'data': '2'}, "config.mesh.data='2' is of type str, expected int."),
    ({'data': 0}, 'config.mesh.data=0 should be at least 1, or -1'),
    ({'tensor': 0}, 'config.mesh.tensor=0 should be at least 1, or -1'),
    ({'tensor': 3}, 'config.mesh with data=-1, fsdp=1, tensor=3 can not be'),
  ],
)
def test_mesh_hides_no_batch(config, mesh, expected):
  config.accum_steps = 7
  set_fields(config, **{f'mesh.{axis}': size for axis, size in mesh.items()})
  of_mesh, of_batch = sorted(problems_of(config, 8), key=lambda p: 'batch' in p)
  assert expected in of_mesh
  assert of_batch == (
    'config.batch=64 is not a multiple of 7 (7 config.accum_steps). Sizes that '
    'work: 63, 70.'
  )


def test_mesh_hides_no_model(config):
  config.mesh.update(data=3, tensor=8)
  of_mesh, of_model = problems_of(config, 8)
  assert 'these are 24' in of_mesh
  assert 'tensor=8 does not divide config.model.transformer.num_he' in of_model


def test_unread_accum_steps_hide_no_batch(config):
  set_fields(config, accum_steps='2', batch=30)
  batch, accum_steps = sorted(problems_of(config, 4), key=len)
  assert 'of type str' in batch
  assert '30 is not a multiple of 4' in accum_steps


def test_split_is_read_as_the_data_set_reads_it(config):
  config.dataset = '/there/is/none'
  config.pp.update(train='train[:900]', test='tset')
  train, test = problems_of(config)
  assert train.startswith("config.pp.train: can't tell what split 'train[:90")
  assert test.startswith("config.pp.test: Unknown split 'tset'. Did you mean ")
  config.dataset = 'food101'  # Which only opening it tells the splits of.
  config.pp.update(train='train[:-900]+extra[7shard]', test='tset[1_0%:]')
  config_checks.check_config(config, 1)
  set_fields(config, dataset=3)
  (problem,) = problems_of(config)
  assert problem.startswith('config.dataset=3 ')


def test_sets_that_are_no_text_hide_no_metric(config):
  set_fields(config, eval_sets=3, best_metric='mine/loss')
  (problem,) = problems_of(config)
  assert problem.startswith('config.eval_sets=3 ')
