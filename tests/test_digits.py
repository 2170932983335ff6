"""The digits builder: membership, scaling, variants, preparation."""

import os
import subprocess
import sys

import numpy as np
import pytest
from ml_collections import ConfigDict
from sklearn import datasets

from vit_jax import errors
from vit_jax.data import digits, sources


def _config(data_dir, dataset='digits'):
  return ConfigDict(
    {
      'dataset': dataset,
      'tfds_data_dir': str(data_dir),
      'tfds_manual_dir': None,
    }
  )


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('data')


def _rows(images, labels):
  """Every scan with its label as bytes, in an order of no meaning."""
  flat = images.reshape(len(images), -1).astype(np.uint8)
  return sorted(
    row.tobytes() + bytes([y]) for row, y in zip(flat, labels, strict=True)
  )


@pytest.mark.parametrize(
  ('dataset', 'kept'),
  [
    ('digits', range(10)),
    ('digits/0_to_4', range(5)),
    ('digits/5_to_9', range(5, 10)),
  ],
)
@pytest.mark.parametrize('split', ['train', 'test'])
def test_scans_and_labels_are_scikit_learns(data_dir, dataset, kept, split):
  source = sources.load_source(_config(data_dir, dataset), split)
  scans = datasets.load_digits()
  part = slice(1437) if split == 'train' else slice(1437, None)
  here = np.isin(scans.target[part], kept)
  images = np.rint(scans.images[part][here] * 255 / 16)
  np.testing.assert_array_equal(source.images[..., 0], source.images[..., 1])
  np.testing.assert_array_equal(source.images[..., 0], source.images[..., 2])
  assert _rows(source.images[..., 0], source.labels) == _rows(
    images, scans.target[part][here] - kept.start
  )
  assert source.class_names == tuple(str(digit) for digit in kept)
  assert source.num_classes == len(kept)
  assert source.labels.dtype == np.int32


def test_whole_splits_have_1437_and_360_scans(data_dir):
  sizes = [
    len(sources.load_source(_config(data_dir), split))
    for split in ('train', 'test', 'train[:98%]', 'train[1400:]+test')
  ]
  assert sizes == [1437, 360, 1408, 397]


def test_preparing_is_quiet_and_leaves_array_record(tmp_path, capfd):
  sources.load_source(_config(tmp_path), 'test')
  assert capfd.readouterr() == ('', '')
  names = os.listdir(tmp_path / 'digits' / 'all' / '1.0.0')
  assert 'digits-test.array_record-00000-of-00001' in names


def test_unknown_variant_names_the_closest(tmp_path):
  with pytest.raises(errors.ConfigError, match="mean 'digits/0_to_4'"):
    sources.load_source(_config(tmp_path, 'digits/0_to_3'), 'train')


def test_later_of_two_preparations_takes_the_earlier_ones(
  tmp_path, monkeypatch
):
  generate = digits.Digits._generate_examples

  def generate_twice(self, *args):
    monkeypatch.setattr(digits.Digits, '_generate_examples', generate)
    other = digits.Digits(data_dir=tmp_path)
    other.download_and_prepare(file_format='array_record')
    yield from self._generate_examples(*args)

  monkeypatch.setattr(digits.Digits, '_generate_examples', generate_twice)
  assert len(sources.load_source(_config(tmp_path), 'train')) == 1437
  assert os.listdir(tmp_path / 'digits' / 'all') == ['1.0.0']


def test_killed_preparation_is_not_taken_for_whole(tmp_path):
  program = (
    'import os, sys\n'
    'from vit_jax.data import digits\n'
    'def generate(self, *args):\n'
    '  for index, example in first(self, *args):\n'
    '    if index == 1500:\n'
    '      os._exit(9)\n'
    '    yield index, example\n'
    'first = digits.Digits._generate_examples\n'
    'digits.Digits._generate_examples = generate\n'
    'builder = digits.Digits(data_dir=sys.argv[1])\n'
    "builder.download_and_prepare(file_format='array_record')\n"
  )
  command = [sys.executable, '-c', program, str(tmp_path)]
  assert (
    subprocess.run(command, check=False, capture_output=True).returncode == 9
  )
  (left,) = os.listdir(tmp_path / 'digits' / 'all')
  assert left.startswith('incomplete')
  assert len(sources.load_source(_config(tmp_path), 'test')) == 360


def test_directory_without_description_is_refused(tmp_path):
  (tmp_path / 'digits' / 'all' / '1.0.0').mkdir(parents=True)
  with pytest.raises(errors.DataError, match='Remove the directory'):
    sources.load_source(_config(tmp_path), 'test')


def test_unwritable_directory_names_the_flag(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(errors.DataNotFoundError, match=r'config\.tfds_data_dir'):
    sources.load_source(_config(tmp_path / 'file'), 'test')
