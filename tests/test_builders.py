"""What is said of sets that aren't prepared here, and which format is read."""

import json
import os
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from vit_jax import errors
from vit_jax.data import builders


class Emus(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict({'age': np.int64})
    )

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    yield 0, {'age': 7}


def _open(data_dir, dataset):
  fields = {'tfds_data_dir': str(data_dir), 'tfds_manual_dir': None}
  return builders.open_builder(ConfigDict({'dataset': dataset, **fields}))


@pytest.mark.parametrize(
  ('main', 'others', 'chosen'),
  [
    ('array_record', [], 'array_record'),
    ('tfrecord', [], 'tfrecord'),
    ('parquet', [], 'parquet'),
    ('parquet', ['tfrecord'], 'tfrecord'),
    ('riegeli', ['parquet', 'tfrecord'], 'tfrecord'),
    ('tfrecord', ['parquet', 'array_record'], 'array_record'),
  ],
)
def test_fastest_of_the_formats_is_chosen(tmp_path, main, others, chosen):
  Emus(data_dir=tmp_path).download_and_prepare(file_format='array_record')
  path = tmp_path / 'emus' / '1.0.0' / 'dataset_info.json'
  description = json.loads(path.read_text())
  description['fileFormat'] = main
  description['alternativeFileFormats'] = others
  path.write_text(json.dumps(description))
  info = _open(tmp_path, 'emus').info
  assert info.file_format.value == chosen
  (part,) = info.splits['train[:100%]'].file_instructions
  assert part.filename.endswith(f'emus-train.{chosen}-00000-of-00001')


def prepare_emus(directory, *variants):
  """Makes directories of versions that lack their features.json."""
  Emus(data_dir=directory / 'made').download_and_prepare(
    file_format='array_record'
  )
  for variant in variants:
    shutil.copytree(
      directory / 'made' / 'emus' / '1.0.0', directory / 'emus' / variant
    )
    (directory / 'emus' / variant / 'features.json').unlink()


@pytest.mark.parametrize(
  ('dataset', 'variants', 'said'),
  [
    ('emus', ['1.0.0'], '1.0.0'),
    ('emus:1.0.0', ['1.0.0'], '1.0.0'),
    ('emus:1.*.*', ['2.0.0', '1.0.0'], '1.0.0'),
    ('emus', ['wild/1.0.0'], 'wild/1.0.0'),
    ('emus/wild', ['tame/1.0.0', 'wild/1.0.0'], 'wild/1.0.0'),
    ('emus/wild:1.0.0', ['wild/2.0.0', 'wild/1.0.0'], 'wild/1.0.0'),
    ('dtd', ['../dtd/3.0.1'], '../dtd/3.0.1'),
  ],
)
def test_missing_features_are_named(tmp_path, dataset, variants, said):
  prepare_emus(tmp_path, *variants)
  with pytest.raises(errors.DataError) as raised:
    _open(tmp_path, dataset)
  text = str(raised.value)
  place = os.path.normpath(tmp_path / 'emus' / said)
  assert place in text
  assert 'has a dataset_info.json, but no features.json' in text
  assert 'not prepared' not in text
  command = os.path.relpath(os.path.dirname(place), tmp_path)
  assert f"tfds.builder('{command}').download_and_prepare()" in text


@pytest.mark.parametrize(
  ('dataset', 'variant'),
  [
    ('emus:1.0.0', '2.0.0'),
    ('emus/wild', '1.0.0'),
    ('emus/wild', 'tame/1.0.0'),
    ('emus', 'incomplete.AB_1.0.0'),
  ],
)
def test_missing_features_of_another_variant_are_not(
  tmp_path, dataset, variant
):
  prepare_emus(tmp_path, variant)
  with pytest.raises(errors.DataNotFoundError, match='is not prepared in'):
    _open(tmp_path, dataset)


def test_whole_version_is_read_beside_one_without_features(tmp_path):
  prepare_emus(tmp_path, '2.0.0')
  shutil.copytree(tmp_path / 'made' / 'emus', tmp_path / 'emus' / 'wild')
  with pytest.raises(errors.DataError, match='no features'):
    _open(tmp_path, 'emus:2.0.0')
  assert str(_open(tmp_path, 'emus/wild').version) == '1.0.0'


@pytest.mark.parametrize(
  ('dataset', 'command', 'by_hand'),
  [
    ('oxford_flowers102', "tfds.builder('oxford_flowers102').down", ''),
    ('imagenet_v2/topimages', "tfds.builder('imagenet_v2/topimages').", ''),
    ('imagenet_v2/topimages:3.0.0', "builder('imagenet_v2/topimages').", ''),
    (
      'imagenet2012:5.1.0',
      "tfds.builder('imagenet2012').",
      'put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar (from',
    ),
    (
      'imagenet2012_real',
      "tfds.builder('imagenet2012_real').",
      'put ILSVRC2012_img_val.tar (from https://image-net.org',
    ),
    ('resisc45', "tfds.builder('resisc45').", 'put NWPU-RESISC45/, unpacked'),
  ],
)
def test_set_is_to_be_prepared_elsewhere(tmp_path, dataset, command, by_hand):
  with pytest.raises(errors.DataNotFoundError) as raised:
    _open(tmp_path, dataset)
  text = str(raised.value)
  assert f'Data set {dataset!r} is not prepared in {tmp_path} ' in text
  assert 'prepared with TensorFlow, which is used nowhere' in text
  assert command in text
  assert 'download_and_prepare()"\n' in text  # Of any format.
  assert by_hand in text
  folder = '~/tensorflow_datasets/downloads/manual/'
  assert (folder in text) == bool(by_hand)
