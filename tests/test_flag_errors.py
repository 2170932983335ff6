"""Mistakes on a command line: all of them are told at once."""

import pathlib

import pytest

from vit_jax import flag_errors, main

# Of ml_collections, which loads config files by it.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module')
CONFIG = f'{pathlib.Path(__file__).parents[1]}/configs/vit.py:tiny,digits'
NAMES = main._FLAGS


def text_of(*args, error='what absl says', argument=CONFIG):
  argv = ['main', f'--config={argument}', *args]
  return flag_errors.flag_error_text(ValueError(error), argument, argv, NAMES)


@pytest.mark.parametrize(
  ('args', 'expected'),
  [
    (['--config.bse_lr=1'], "Did you mean 'base_lr'?"),
    (['--config.pp.crp', '3'], "Unknown field of config.pp 'crp'"),
    (['--config.base_lr.x=1'], "has no field 'x'"),
    (['--config.base_lr=abc'], '=abc: expected a value of type float, such'),
    (['--config.pp=3'], 'Set single fields of config.pp: affine, '),
    (['--config.batch=0.5'], 'expected a value of type int'),
    (['--wrkdir=x'], "Unknown flag '--wrkdir'. Did you mean '--workdir'?"),
    (['--mode=x'], 'flag --mode=x: value should be one of <train|evaluate|'),
    (['--grace', '-1'], 'flag --grace=-1: -1.0 is not a non-negative number'),
    (['--plan=maybe'], 'flag --plan=maybe: Non-boolean argument'),
    (['--plan', '--workdir'], 'Missing value for flag --workdir.'),
    (['--', '--mode=x'], 'what absl says'),
    (['--verbosity=x'], 'what absl says'),
  ],
)
def test_one_mistake_is_one_line(args, expected):
  text = text_of(*args)
  assert expected in text
  assert len(text.splitlines()) == 1


def test_all_mistakes_are_told_at_once():
  text = text_of(
    '--config.bse_lr=1',
    '--config.batch=many',
    '--config.batch_eval=8',
    '--wrkdir=x',
    '--config.total_steps=-3',
    '--config.model.transformer.num_heads=5',
    '--config.optimizer',
    'adam',
  )
  first, *problems = text.splitlines()
  assert first == '6 mistakes:'
  for problem, expected in zip(
    problems,
    [
      "'--wrkdir'",
      "'bse_lr'",
      '--config.batch=many',
      'config.total_steps=-3',
      "'adamw'",
      'num_heads 5',
    ],
    strict=True,
  ):
    assert expected in problem


def test_values_are_taken_as_absl_takes_them():
  text = text_of(
    '--config.pp.area_range=(0.5, 0.9)',
    '--config.tfds_data_dir=/x',
    '--config.model.representation_size=7',
    '--config.offline=true',
    '--config.base_lr=1',
  )
  assert text == 'what absl says'


def test_broken_file_is_what_is_told():
  text = text_of('--config.bse_lr=1', argument=CONFIG.replace('tiny', 'tny'))
  assert "Did you mean 'tiny'?" in text


def lines_of(*args, **kwargs) -> list[str]:
  first, *problems = text_of(*args, **kwargs).splitlines()
  assert first == f'{len(problems)} mistakes:'
  return problems


def assert_told(problems, expected):
  for problem, text in zip(problems, expected, strict=True):
    assert text in problem


def test_value_of_another_flag_hides_no_field():
  problems = lines_of('--grace=-1', '--config.batch=-1', '--verbosity=3')
  assert_told(problems, ['--grace=-1', 'config.batch=-1 should be at least 1'])
  problems = lines_of('--verbosity=x', '--config.batch=-1')
  assert_told(problems, ['what absl says', 'config.batch=-1'])


@pytest.mark.parametrize(
  ('argument', 'expected'),
  [
    ('vit.py:tny,digitss', ["Did you mean 'tiny'?", "mean 'digits'?"]),
    ('mixer.py:b61,digitss', ["Did you mean 'b16'?", "mean 'digits'?"]),
  ],
)
def test_argument_hides_no_field(argument, expected):
  fields = [
    '--config.batchh=3',
    '--config.eval_every=many',
    '--config.model.transformer.num_hedas=3',
    '--config.model.transformer.num_heads=3',
    '--config.model.tokens_mlp_dim=3',
    '--config.batch=-1',
    '--config.accum_steps=7',
    '--config.pp.train=train[:9',
    '--config.pp.repeats=2',
    '--config.optimizer=adam',
  ]
  argument = CONFIG.replace('vit.py:tiny,digits', argument)
  assert_told(
    lines_of('--grace=-1', *fields, argument=argument),
    [
      '--grace=-1',
      *expected,
      "'batchh'. Did you mean 'batch'?",
      '--config.eval_every=many: expected a value of type int',
      "'num_hedas'. Did you mean 'num_heads'?",
      'config.batch=-1 should be at least 1',
      "Unknown config.optimizer 'adam'",
      "config.pp.train: split 'train[:9' is malformed",
    ],
  )


def test_file_that_fails_hides_no_field(tmp_path):
  (tmp_path / 'mine.py').write_text('raise KeyError("two\\nlines")')
  problems = lines_of('--config.batch=-1', argument=f'{tmp_path}/mine.py')
  assert_told(problems, ['The config file raised KeyError', 'config.batch=-1'])


def test_mistakes_of_one_model_and_mesh_are_told_without_devices():
  problems = lines_of(
    '--config.mesh.data=0',
    '--config.mesh.tensor=3',
    '--config.accum_steps=7',
    '--config.model.transformer.dropout_rate=2',
  )
  assert_told(
    problems,
    [
      'what absl says',
      'mesh.tensor=3 does not divide config.model.transformer.mlp_dim=128',
      'mesh.tensor=3 does not divide config.model.transformer.num_heads=4',
      'config.batch=64 is not a multiple of 7',
      'config.mesh.data=0 should be at least 1, or -1',
      'dropout_rate 2.0 is not in [0, 1)',
    ],
  )
