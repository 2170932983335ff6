"""What is evaluated and trained on as well, as the summary tells it."""

import pytest
from image_folder import add_classes
from ml_collections import ConfigDict

from vit_jax import evaluate
from vit_jax.data import eval_sets, sources


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return str(tmp_path_factory.mktemp('tfds'))


def make_config(dataset, data_dir, train, test, sets):
  return ConfigDict(
    {
      'dataset': str(dataset),
      'label': '',
      'tfds_data_dir': data_dir,
      'tfds_manual_dir': None,
      'pp': {'train': train, 'test': test},
      'eval_sets': sets,
      'best_metric': '',
    }
  )


def line_of(config):
  """Returns the warning of the summary, '' for none."""
  train = sources.load_source(config, config.pp.train)
  found = eval_sets.load(config, train)
  lines = evaluate.set_lines(found)
  assert lines.get('overlap', '') == found.overlap
  assert ('evaluated' in lines) == (len(found) > 1)
  return found.overlap


@pytest.mark.parametrize(
  ('train', 'test', 'sets'),
  [
    ('train[:98%]', 'test', 'holdout=train[98%:]'),
    ('train[50:100]', 'test', 'a=train[:50],b=train[100:]'),
    ('train[:-100]', 'test[:50%]', 'a=train[-100:],b=test[50%:]'),
    # Neighbours by number and by percent: of some 1,400.
    ('train[:14]', 'test', 'a=train[1%:]'),
    ('train', 'test', ''),
  ],
)
def test_nothing_is_said_of_examples_that_are_apart(
  data_dir, train, test, sets
):
  config = make_config('digits', data_dir, train, test, sets)
  assert line_of(config) == ''


@pytest.mark.parametrize(
  ('train', 'test', 'sets', 'shared', 'rest'),
  [
    (
      'train',
      'test',
      'holdout=train[98%:]',
      'holdout has train[98%:]',
      'train[:98%]',
    ),
    (
      'train[:800]+train[900:1_000]',
      'test',
      'a=train[700:950]',
      'a has train[700:800]+train[900:950]',
      'train[:700]+train[950:1_000]',
    ),
    (
      'train+test',
      'test[50%:]',
      'a=train[:-7],b=train[2%:3%]',
      'test has test[50%:], a has train[:-7], b has train[2%:3%]',
      'train[-7:]+test[:50%]',
    ),
    ('all', 'test', '', 'test has test', 'train'),
    # Another way to write the name, and one more example than is apart.
    (
      'train[:16]',
      'test',
      'a=digits:1.0.0:train[1%:]',
      'a has train[1%:16]',
      'train[:1%]',
    ),
    ('train[:9]', 'test', 'a=train', 'a has train[:9]', ''),
  ],
)
def test_shared_examples_are_told_with_the_remedy(
  data_dir, train, test, sets, shared, rest
):
  config = make_config('digits', data_dir, train, test, sets)
  line = line_of(config)
  assert line.startswith(f'{shared} in common with what is trained on. ')
  if not rest:
    assert 'change config.pp.train or the sets' in line
    return
  assert f"--config.pp.train='{rest}' holds" in line
  config.pp.train = rest
  assert line_of(config) == ''


def test_other_data_sets_are_not_compared(data_dir, tmp_path):
  names = {str(digit): 1 for digit in range(10)}
  add_classes(tmp_path / 'train', **names)
  config = make_config(
    'digits', data_dir, 'train', 'test', f'a={tmp_path}:train'
  )
  assert line_of(config) == ''
  config = make_config(
    tmp_path, data_dir, 'train', 'train', 'b=digits:train[98%:]'
  )
  assert line_of(config).startswith('test has train in common')


def test_without_training_nothing_is_shared(data_dir):
  config = make_config('digits', data_dir, 'train', 'train', 'a=train')
  assert eval_sets.load(config).overlap == ''


@pytest.fixture
def folder(tmp_path):
  add_classes(tmp_path / 'pets' / 'ant', **{'in': 30})
  add_classes(tmp_path / 'pets' / 'bee', **{'in': 30})
  return tmp_path / 'pets'


@pytest.mark.parametrize(
  ('train', 'test', 'sets', 'expected'),
  [
    ('train', 'test', '', ''),  # Nine tenths and the last.
    ('train[:80%]', 'train[90%:]', 'a=train[80%:90%]', ''),
    (
      'train',
      'test',
      'a=train[60%:]',
      'a has train[60%:90%] in common with what is trained on. '
      "--config.pp.train='train[:60%]' holds it out",
    ),
    (
      'train[:50%]+train[70%:]',
      'train[40%:75%]',
      '',
      'test has train[40%:50%]+train[70%:75%] in common with what is trained '
      "on. --config.pp.train='train[:40%]+train[75%:]' holds it out",
    ),
  ],
)
@pytest.mark.parametrize('is_named_otherwise', [False, True])
def test_shares_of_a_folder_are_compared(
  folder, train, test, sets, expected, is_named_otherwise
):
  if is_named_otherwise:
    sets = sets.replace('=', f'={folder}/../pets/:')
  config = make_config(folder, None, train, test, sets)
  assert line_of(config) == expected


def test_splits_of_a_folder_are_compared(tmp_path):
  for split in ('train', 'val'):
    add_classes(tmp_path / split, ant=23, bee=29)
  config = make_config(tmp_path, None, 'train', 'test', 'a=val')
  assert line_of(config) == ''
  config.update(eval_sets='a=train[50%:],b=val')
  config.pp.update(train='train+val[:50%]', test='val[50%:]')
  line = line_of(config)
  assert 'a has train[50%:], b has validation[:50%] in' in line
  assert "--config.pp.train='train[:50%]' holds them out" in line
