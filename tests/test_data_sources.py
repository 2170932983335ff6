"""Data sets by name: prepared ones of any kind, and every wrong name."""

import json
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
import tfrecords
from ml_collections import ConfigDict

from vit_jax import errors
from vit_jax.data import decode, sources


class Pets(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Images of many sizes, with features that aren't needed."""

  VERSION = tfds.core.Version('2.3.1')

  def _info(self):
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(),
          'label': tfds.features.ClassLabel(names=['cat', 'dog', 'emu']),
          'boxes': tfds.features.Sequence(tfds.features.BBoxFeature()),
          'mask': tfds.features.Image(shape=(None, None, 1)),
        }
      ),
    )

  def _split_generators(self, dl_manager):
    return {
      'train': self._generate_examples(0, 7),
      'validation': self._generate_examples(7, 10),
    }

  def _generate_examples(self, start, stop):
    for index in range(start, stop):
      image = np.full((70 + index, 90, 3), index, np.uint8)
      yield (
        index,
        {
          'image': PIL.Image.fromarray(image),
          'label': index % 3,
          'boxes': [tfds.features.BBox(0.1, 0.2, 0.3, 0.4)] * (index % 2),
          'mask': PIL.Image.fromarray(image[..., 0]),
        },
      )


class Words(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """No images at all."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    features = {'text': tfds.features.Text(), 'label': np.int64}
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    yield 0, {'text': 'emu', 'label': 0}


def _config(data_dir, dataset):
  return ConfigDict(
    {
      'dataset': dataset,
      'tfds_data_dir': str(data_dir),
      'tfds_manual_dir': None,
    }
  )


@pytest.fixture
def data_dir(tmp_path):
  for builder in (Pets(data_dir=tmp_path), Words(data_dir=tmp_path)):
    builder.download_and_prepare(file_format='array_record')
  return tmp_path


@pytest.fixture(scope='session', params=['array_record', 'tfrecord', 'parquet'])
def pets_dir(tmp_path_factory, request):
  directory = tmp_path_factory.mktemp(request.param)
  tfrecords.prepare(Pets, directory, request.param)
  assert len(list(directory.glob(f'pets/2.3.1/*.{request.param}-*'))) == 4
  return directory


@pytest.mark.parametrize('name', ['pets', 'pets:2.3.1', 'pets:2.*.*'])
def test_prepared_set_is_read_by_name_and_left_encoded(pets_dir, name):
  data_dir = pets_dir
  source = sources.load_source(_config(data_dir, name), 'train')
  assert (len(source), source.num_classes) == (7, 3)
  assert source.class_names == ('cat', 'dog', 'emu')
  assert source.images is None
  assert source.labels is None
  seen = set()
  for index in range(len(source)):
    encoded, label = source.read(index)
    image = decode.decode(encoded)
    seen.add((int(image[0, 0, 0]), image.shape, label))
  assert seen == {(i, (70 + i, 90, 3), i % 3) for i in range(7)}


def test_split_strings_are_tfdss(pets_dir):
  config = _config(pets_dir, 'pets')

  def read(split):
    source = sources.load_source(config, split)
    return [source.read(index) for index in range(len(source))]

  train, validation = read('train'), read('validation')
  assert (len(train), len(validation)) == (7, 3)
  assert read('train[:50%]') == train[:4]
  assert read('train[5:]') == train[5:]
  assert read('train[2:-1]') == train[2:-1]
  assert read('train[-1:]+validation') == [train[-1], *validation]
  second = read('train[1shard:]')
  assert read('validation+train[1shard:]') == validation + second
  assert 2 < len(second) < 5 and read('train[:1shard]') + second == train
  assert read('all') == train + validation


def test_ranges_and_copies_in_other_processes_are_the_same(pets_dir):
  source = sources.load_source(_config(pets_dir, 'pets'), 'train[1:]')
  expected = [source.read(index) for index in range(6)]
  assert source.records.read_range(2, 5) == expected[2:5]
  copied = pickle.loads(pickle.dumps(source))
  assert [copied.read(index) for index in range(6)] == expected
  with pytest.raises(IndexError):
    copied.read(6)


@pytest.mark.parametrize(
  ('split', 'said'),
  [
    ('trian', "Unknown split 'trian'. Did you mean 'train'?"),
    ('train+valid', "Did you mean 'validation'? Valid: train, validation."),
    ('train[:98', "'train[:98' is malformed"),
    ('train[:99]', 'incompatible with 7 examples'),
    ('train[:0]', "'train[:0]' has no examples"),
  ],
)
def test_wrong_split_is_answered(data_dir, split, said):
  with pytest.raises(errors.ConfigError, match=re.escape(said)):
    sources.load_source(_config(data_dir, 'pets'), split)


@pytest.mark.parametrize(
  ('test', 'said'),
  [
    ('tset', ["split 'trian'", "Unknown split 'tset'. Valid: train, valid"]),
    ('train[:0]', ["split 'trian'", "'train[:0]' has no examples"]),
    ('train', ["split 'trian'"]),
    ('trian', ["split 'trian'"]),
  ],
)
def test_wrong_splits_are_told_together(data_dir, test, said):
  config = _config(data_dir, 'pets')
  config.pp = {'train': 'trian', 'test': test}
  with pytest.raises(errors.ConfigError) as caught:
    sources.load_source(config, 'trian')
  lines = str(caught.value).splitlines()
  assert len(lines) == len(said)
  for line, expected in zip(lines, said, strict=True):
    assert line.startswith("Data set 'pets': ")
    assert expected in line


@pytest.mark.parametrize(
  ('name', 'said'),
  [
    ('', 'config.dataset is empty'),
    ('digit', "Did you mean 'digits'"),
    ('cifar-10', "is 'cifar-10', expected NAME"),
    ('cifra10', "Did you mean 'cifar10'"),
    ('oxford_iit_pet', "Did you mean 'oxford_iiit_pet'"),
    ('cifar10/all', "Did you mean 'cifar10'"),
    ('cifar10:1.0.0', 'cannot be loaded at version 1.0.0'),
    ('pets/small=True', "is 'pets/small=True', expected NAME"),
  ],
)
def test_wrong_name_is_answered(tmp_path, name, said):
  with pytest.raises(errors.ConfigError, match=said):
    sources.load_source(_config(tmp_path, name), 'train')


def test_known_but_unprepared_set_says_where_it_looked(tmp_path):
  with pytest.raises(errors.DataNotFoundError) as raised:
    sources.load_source(_config(tmp_path, 'oxford_iiit_pet'), 'train')
  text = str(raised.value)
  assert f'not prepared in {tmp_path} ' in text
  assert "tfds.builder('oxford_iiit_pet').download_and_prepare" in text
  assert '--config.tfds_data_dir=DIR' in text


def test_other_prepared_versions_are_listed(data_dir):
  with pytest.raises(errors.DataNotFoundError, match=r'there is: pets/2\.3\.1'):
    sources.load_source(_config(data_dir, 'pets:3.0.0'), 'train')


def test_unreadable_format_is_refused_by_name(data_dir):
  path = data_dir / 'pets' / '2.3.1' / 'dataset_info.json'
  description = json.loads(path.read_text())
  description['fileFormat'] = 'riegeli'
  path.write_text(json.dumps(description))
  with pytest.raises(errors.DataError, match='stored as riegeli; what can be'):
    sources.load_source(_config(data_dir, 'pets'), 'train')


def test_set_without_images_lists_its_features(data_dir):
  with pytest.raises(errors.DataError, match='text: Text') as raised:
    sources.load_source(_config(data_dir, 'words'), 'train')
  assert "no 8-bit feature 'image'" in str(raised.value)


@pytest.mark.parametrize('damage', ['cut', 'gone'])
def test_damaged_records_are_named_with_their_directory(data_dir, damage):
  (path,) = data_dir.glob('pets/2.3.1/*-train.array_record*')
  if damage == 'cut':
    path.write_bytes(path.read_bytes()[:-500])
  else:
    path.unlink()
  source = sources.load_source(_config(data_dir, 'pets'), 'train')
  with pytest.raises(
    errors.DataError, match=r'record 3 can.t be read'
  ) as raised:
    source.read(3)
  assert str(path.parent) in str(raised.value)


@pytest.mark.parametrize('damage', ['cut', 'gone'])
def test_damage_in_any_format_is_named(pets_dir, tmp_path, damage):
  shutil.copytree(pets_dir, tmp_path, dirs_exist_ok=True)
  _, path = sorted(tmp_path.glob('pets/2.3.1/*-train.*'))
  if damage == 'cut':
    path.write_bytes(path.read_bytes()[:-70])
  else:
    path.unlink()
  with pytest.raises(errors.DataError, match=str(path.parent)) as raised:
    source = sources.load_source(_config(tmp_path, 'pets'), 'train')
    [source.read(index) for index in range(7)]
  assert 'Copy or prepare the data set again.' in str(raised.value)


def test_damaged_records_of_a_set_in_memory_are_named(tmp_path):
  sources.load_source(_config(tmp_path, 'digits'), 'train')
  (path,) = tmp_path.glob('digits/all/1.0.0/*-train.array_record*')
  path.write_bytes(path.read_bytes()[:-5000])
  expected = r'one of records (0|1000) to \d+ can.t be read'
  with pytest.raises(errors.DataError, match=expected) as raised:
    sources.load_source(_config(tmp_path, 'digits'), 'train')
  assert str(path.parent) in str(raised.value)


@pytest.mark.parametrize('name', ['pets', 'digits'])
def test_damaged_description_is_named(data_dir, name):
  sources.load_source(_config(data_dir, name), 'train')
  for path in data_dir.glob(f'{name}/**/dataset_info.json'):
    path.write_text(path.read_text()[:99])
  with pytest.raises(
    errors.DataError, match=f"Data set '{name}': its dataset_"
  ):
    sources.load_source(_config(data_dir, name), 'train')


def test_small_images_of_tfrecord_are_kept_in_memory(tmp_path):
  config = _config(tmp_path, 'digits')
  before = sources.load_source(config, 'train[-100:]+test')
  tfrecords.convert(tmp_path / 'digits' / 'all' / '1.0.0', 'digits', 3)
  after = sources.load_source(config, 'train[-100:]+test')
  np.testing.assert_array_equal(after.images, before.images)
  np.testing.assert_array_equal(after.labels, before.labels)


def test_path_is_a_folder_of_images(tmp_path):
  for path in ('train/cat/0', 'train/emu/0', 'train/emu/1', 'test/cat/0'):
    file = (tmp_path / path).with_suffix('.png')
    file.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new('RGB', (13, 11)).save(file)
  config = _config(None, str(tmp_path))
  config.pp = {'train': 'train', 'test': 'test'}
  source = sources.load_source(config, 'train')
  assert source.class_names == ('cat', 'emu')
  assert source.labels.tolist() == [0, 1, 1]


def test_images_beyond_memory_stay_encoded(tmp_path, monkeypatch):
  config = _config(tmp_path, 'digits')
  whole = sources.load_source(config, 'test')
  assert whole.images.shape == (360, 8, 8, 3)
  monkeypatch.setattr(sources, '_MAX_BYTES', whole.images.nbytes - 1)
  encoded = sources.load_source(config, 'test')
  assert encoded.images is None
  assert len(encoded) == 360
  png, label = encoded.read(11)
  image, same_label = whole.read(11)
  np.testing.assert_array_equal(decode.decode(png), image)
  assert label == same_label


def test_neither_tensorflow_nor_torch_is_imported(tmp_path):
  program = (
    'import sys\n'
    'from ml_collections import ConfigDict\n'
    'import vit_jax.data\n'
    "heavy = {'tensorflow_datasets', 'grain', 'jax', 'cv2'}\n"
    'assert not heavy & set(sys.modules)\n'
    'from vit_jax.data import cifar, pipeline, sources\n'
    "config = ConfigDict({'dataset': 'digits', 'tfds_data_dir': sys.argv[1],\n"
    "  'tfds_manual_dir': None, 'batch': 5, 'seed': 0, 'num_threads': 1,\n"
    "  'pp': {'train': 'train'}})\n"
    'batches = pipeline.train_batches(config, 0)\n'
    "assert next(batches)['image'].shape == (5, 8, 8, 3)\n"
    'batches.close()\n'
    "config.dataset = 'oxford_iit_pet'\n"
    'try:\n'
    "  sources.load_source(config, 'train')\n"
    'except ValueError:\n'
    '  pass\n'
    "heavy = {'tensorflow', 'torch', 'torchvision'} & set(sys.modules)\n"
    'assert not heavy, heavy\n'
  )
  command = [sys.executable, '-c', program, str(tmp_path)]
  done = subprocess.run(command, check=False, capture_output=True, text=True)
  assert (done.returncode, done.stderr) == (0, '')
