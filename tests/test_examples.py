"""What of a tfds example is read: by which names, and what tfds says it is."""

import itertools
import types

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
import tfrecords
from ml_collections import ConfigDict
from tensorflow_datasets.core import example_parser, example_serializer
from tensorflow_datasets.proto import tf_example_pb2

from vit_jax import errors
from vit_jax.data import decode, examples, labels, sources

IMAGE = tfds.features.Image()
MASK = tfds.features.Image(shape=(None, None, 1))
CLASS = tfds.features.ClassLabel(names=['ant', 'bee', 'cat'])
SEVERAL = tfds.features.Sequence(CLASS)
OTHERS = tfds.features.Sequence({'kind': CLASS, 'size': np.float32})
FLOATS = tfds.features.Image(shape=(None, None, 1), dtype=np.float32)


def find(features, keys=None, label=''):
  info = types.SimpleNamespace(
    features=tfds.features.FeaturesDict(features), supervised_keys=keys
  )
  builder = types.SimpleNamespace(info=info, data_dir='/data/pets/1.0.0')
  return examples.find_fields('pets', builder, label)


@pytest.mark.parametrize(
  ('features', 'keys', 'image', 'label'),
  [
    ({'image': IMAGE, 'label': CLASS}, None, 'image', 'label'),
    # The usual names come first.
    (
      {'image': IMAGE, 'label': CLASS, 'mask': MASK, 'coarse': CLASS},
      ('mask', 'coarse'),
      'image',
      'label',
    ),
    (
      {'image': IMAGE, 'original_label': CLASS, 'real_label': SEVERAL},
      ('image', 'original_label'),
      'image',
      'real_label',
    ),
    (
      {'picture': IMAGE, 'mask': MASK, 'species': CLASS, 'genus': CLASS},
      ('picture', 'species'),
      'picture',
      'species',
    ),
    # With the weight of an example.
    (
      {'picture': IMAGE, 'species': CLASS, 'genus': CLASS, 'weight': np.int64},
      ('picture', 'genus', 'weight'),
      'picture',
      'genus',
    ),
    (
      {'image': IMAGE, 'fine': CLASS, 'coarse': CLASS},
      ('image', 'fine'),
      'image',
      'fine',
    ),
    ({'picture': MASK, 'label': CLASS}, None, 'picture', 'label'),
    (
      {'x': IMAGE, 'y': SEVERAL, 'age': np.int64, 'text': tfds.features.Text()},
      None,
      'x',
      'y',
    ),
    # A number that is called as classes are, and one that says it is a class.
    (
      {'image': IMAGE, 'label': np.int64, 'species': CLASS},
      ('image', 'species'),
      'image',
      'species',
    ),
  ],
)
def test_features_are_found(features, keys, image, label):
  found = find(features, keys)
  assert (found.image, found.label) == (image, label)
  assert found.class_names == ('ant', 'bee', 'cat')
  assert found.max_labels == (3 if features[label] is SEVERAL else None)
  assert not found.is_derived


@pytest.mark.parametrize(
  ('features', 'keys'),
  [
    ({'a': IMAGE, 'b': IMAGE, 'species': CLASS}, None),
    ({'image': IMAGE, 'species': CLASS, 'genus': CLASS}, None),
    ({'image': IMAGE, 'species': CLASS, 'objects': OTHERS}, None),
    ({'picture': FLOATS, 'species': CLASS}, None),
    # Names that say something else than the only guess there is.
    ({'image': IMAGE, 'label': np.int64, 'species': CLASS}, None),
    ({'image': IMAGE, 'age': np.int64, 'sex': CLASS}, ('image', 'age')),
    ({'picture': IMAGE, 'text': np.int64, 'sex': CLASS}, ('text', 'sex')),
    ({'picture': IMAGE, 'species': CLASS}, ('picture', 'picture')),
    ({'picture': IMAGE, 'species': CLASS}, ('picture', 'speceis')),
    ({'image': IMAGE, 'species': CLASS, 'genus': CLASS}, ('image',)),
    (
      {'picture': IMAGE, 'mask': MASK, 'species': CLASS},
      ({'a': 'picture', 'b': 'mask'}, 'species'),
    ),
    ({'species': CLASS}, None),
    ({'picture': IMAGE}, None),
  ],
)
def test_features_that_can_not_be_told_are_listed(features, keys):
  with pytest.raises(errors.DataError) as raised:
    find(features, keys)
  text = str(raised.value)
  assert "'pets' in /data/pets/1.0.0 has no 8-bit feature 'image' with" in text
  assert all(f'\n  {name}: ' in text for name in features)
  assert (str(keys) if keys else 'Nor has it one image alone') in text


def test_image_of_a_derived_label_is_found_too():
  features = {'picture': IMAGE, 'label_azimuth': CLASS, 'category': CLASS}
  found = find(features, label='smallnorb_azimuth')
  assert (found.image, found.label) == ('picture', 'smallnorb_azimuth')
  assert found.is_derived
  assert len(found.class_names) == 18


# Data sets on disk.


class Birds(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """The usual features by unusual names, beside ones that may be mistaken."""

  VERSION = tfds.core.Version('1.0.0')
  KEYS = ('picture', 'species')
  FEATURES = ('picture', 'species', 'mask', 'genus')

  def _info(self):
    kinds = {'picture': IMAGE, 'species': CLASS, 'mask': MASK, 'genus': CLASS}
    features = {name: kinds[name] for name in self.FEATURES}
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features),
      supervised_keys=self.KEYS,
    )

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for i in range(7):
      pixels = np.full((13, 11, 3), i, np.uint8)
      example = {
        'picture': PIL.Image.fromarray(pixels),
        'species': i % 3,
        'mask': PIL.Image.fromarray(99 + pixels[..., 0]),
        'genus': 2 - i % 3,
      }
      yield i, {name: example[name] for name in self.FEATURES}


class Crows(Birds, skip_registration=True):
  """Its names are told by nothing but that there are no others."""

  KEYS = None
  FEATURES = ('picture', 'species')


@pytest.mark.parametrize('file_format', ['array_record', 'tfrecord', 'parquet'])
@pytest.mark.parametrize('builder', [Birds, Crows])
def test_set_with_other_names_is_read(tmp_path, builder, file_format):
  name = builder.__name__.lower()
  tfrecords.prepare(builder, tmp_path, file_format)
  fields = {'tfds_data_dir': str(tmp_path), 'tfds_manual_dir': None}
  source = sources.load_source(ConfigDict({'dataset': name, **fields}), 'train')
  read = [source.read(index) for index in range(7)]
  found = {(int(decode.decode(png)[5, 5, 0]), label) for png, label in read}
  assert found == {(i, i % 3) for i in range(7)}


# What tfds's own parser makes of the same records.

FEATURES = tfds.features.FeaturesDict(
  {
    'image': tfds.features.Image(shape=(None, None, 3)),
    'label': CLASS,
    'real_label': tfds.features.Sequence(
      tfds.features.ClassLabel(num_classes=9)
    ),
    'label_x_position': tfds.features.ClassLabel(num_classes=32),
    'objects': tfds.features.Sequence(
      {
        'type': tfds.features.ClassLabel(num_classes=8),
        'location': tfds.features.Tensor(shape=(3,), dtype=np.float32),
        'box': tfds.features.BBoxFeature(),
      }
    ),
    'age': np.int64,
    'weight': np.float32,
    'is_wild': np.bool_,
    'sizes': tfds.features.Tensor(shape=(2, 2), dtype=np.float32),
    'note': tfds.features.Text(),
    'mask': MASK,
  }
)


def make_record(index):
  rng = np.random.default_rng(index)
  pixels = rng.integers(256, size=(5, 7, 3)).astype(np.uint8)
  kinds = rng.integers(8, size=index)
  example = {
    'image': PIL.Image.fromarray(pixels),
    'label': index % 3,
    'real_label': rng.permutation(9)[: index % 4].tolist(),
    'label_x_position': 5 * index,
    'objects': [
      {
        'type': kind,
        'location': rng.normal(size=3).astype(np.float32),
        'box': tfds.features.BBox(0.1, 0.2, 0.3, 0.4),
      }
      for kind in kinds
    ],
    'age': -index,
    'weight': rng.normal(),
    'is_wild': bool(index % 2),
    'sizes': rng.normal(size=(2, 2)).astype(np.float32),
    'note': f'é{index}',
    'mask': PIL.Image.fromarray(pixels[..., 0]),
  }
  specs = FEATURES.get_serialized_info()
  serializer = example_serializer.ExampleSerializer(specs)
  return serializer.serialize_example(FEATURES.encode_example(example))


def parse_as_tfds(record):
  """Returns {'objects/type': ..., ...} as tfds reads it, undecoded."""
  specs = FEATURES.get_serialized_info()
  parsed = example_parser.ExampleParserNp(specs).parse_example(record)
  inner = parsed.pop('objects')
  return {**parsed, **{f'objects/{key}': inner[key] for key in inner}}


@pytest.mark.parametrize('index', range(6))
def test_image_and_labels_are_those_of_tfds(index):
  record = make_record(index)
  expected = parse_as_tfds(record)
  own = find(dict(FEATURES.items()))
  assert examples.parse(record, own) == (expected['image'], expected['label'])
  others = {k: v for k, v in FEATURES.items() if k != 'label'}
  image, found = examples.parse(record, find(others))
  wanted = sorted(np.ravel(expected['real_label']).tolist())
  assert image == expected['image']
  assert found.tolist() == wanted + [-1] * (9 - len(wanted))


@pytest.mark.parametrize('name', ['kitti_distance', 'dsprites_location'])
@pytest.mark.parametrize('index', range(6))
def test_derived_labels_are_of_what_tfds_reads(index, name):
  record = make_record(index)
  expected = parse_as_tfds(record)
  needed = {
    key: np.ravel(expected[key]).tolist() for key in labels.find(name).needs
  }
  found = examples.parse(record, find(dict(FEATURES.items()), label=name))
  assert found == (expected['image'], labels.label_of(name, needed))


def test_numbers_of_every_kind_are_those_of_tfds():
  compared = set()
  for index in range(6):
    record = make_record(index)
    stored = tf_example_pb2.Example.FromString(record).features.feature
    for key, value in parse_as_tfds(record).items():
      if not isinstance(value, str | bytes):
        found = np.asarray(examples.numbers(stored[key]), np.float32)
        np.testing.assert_array_equal(found, np.ravel(value))
        compared.add(key)
  inner = ('objects/type', 'objects/location', 'objects/box')
  assert compared == {*itertools.chain(FEATURES.keys(), inner)} - {
    'image',
    'mask',
    'note',
    'objects',
  }
