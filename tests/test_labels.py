"""Derived labels: by hand for made-up features, and read from prepared sets."""

import re

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from vit_jax import errors
from vit_jax.data import eval_sets, labels, reading, sources

CAR, VAN, TRUCK, PEDESTRIAN, CYCLIST = 0, 1, 2, 3, 5


def points(*depths):
  """Gives x, y and depth of each object, of which the first two are traps."""
  return [number for depth in depths for number in (-7.0, 1.5, depth)]


@pytest.mark.parametrize(
  ('name', 'features', 'expected'),
  [
    ('clevr_count', {'objects/size': [0, 1, 1]}, 0),
    ('clevr_count', {'objects/size': [1] * 7}, 4),
    ('clevr_count', {'objects/size': [0] * 10}, 7),
    # A bound belongs to the class below it.
    ('clevr_distance', {'objects/pixel_coords': points(7.25, 11)}, 0),
    ('clevr_distance', {'objects/pixel_coords': points(8)}, 0),
    ('clevr_distance', {'objects/pixel_coords': points(12, 8.25, 9)}, 1),
    ('clevr_distance', {'objects/pixel_coords': points(8.75)}, 2),
    ('clevr_distance', {'objects/pixel_coords': points(9.5)}, 3),
    ('clevr_distance', {'objects/pixel_coords': points(13, 14, 9.75)}, 4),
    ('clevr_distance', {'objects/pixel_coords': points(10.5, 11, 12)}, 5),
    ('dsprites_location', {'label_x_position': [0]}, 0),
    ('dsprites_location', {'label_x_position': [1]}, 0),
    ('dsprites_location', {'label_x_position': [2]}, 1),
    ('dsprites_location', {'label_x_position': [31]}, 15),
    # Forty over sixteen is two and a half.
    ('dsprites_orientation', {'label_orientation': [2]}, 0),
    ('dsprites_orientation', {'label_orientation': [3]}, 1),
    ('dsprites_orientation', {'label_orientation': [4]}, 1),
    ('dsprites_orientation', {'label_orientation': [5]}, 2),
    ('dsprites_orientation', {'label_orientation': [37]}, 14),
    ('dsprites_orientation', {'label_orientation': [38]}, 15),
    ('smallnorb_azimuth', {'label_azimuth': [17]}, 17),
    ('smallnorb_elevation', {'label_elevation': [3]}, 3),
  ],
)
def test_label_is_the_one_worked_out_by_hand(name, features, expected):
  assert labels.label_of(name, features) == expected


@pytest.mark.parametrize(
  ('kinds', 'depths', 'expected'),
  [
    ([CAR], [-0.5], 0),
    ([CAR, VAN], [30.0, 8.0], 0),
    ([PEDESTRIAN, TRUCK], [3.0, 8.5], 1),
    ([VAN, CAR], [20.0, 21.0], 1),
    ([CAR, CYCLIST], [20.5, 2.0], 2),
    ([PEDESTRIAN, CYCLIST], [3.0, 4.0], 3),
    ([], [], 3),
  ],
)
def test_distance_is_that_of_the_nearest_vehicle(kinds, depths, expected):
  features = {'objects/type': kinds, 'objects/location': points(*depths)}
  assert labels.label_of('kitti_distance', features) == expected


@pytest.mark.parametrize(
  ('name', 'num_classes', 'index', 'class_name'),
  [
    ('clevr_count', 8, 4, '7 objects'),
    ('clevr_distance', 6, 1, '8 to 8.5'),
    ('dsprites_location', 16, 15, '30 to 31'),
    ('dsprites_orientation', 16, 1, '3 to 4'),
    ('kitti_distance', 4, 3, 'no vehicle'),
    ('smallnorb_azimuth', 18, 17, '340 degrees'),
    ('smallnorb_elevation', 9, 8, '70 degrees'),
  ],
)
def test_classes_are_as_many_as_vtabs_and_named(
  name, num_classes, index, class_name
):
  names = labels.find(name).class_names
  assert len(names) == len({*names}) == num_classes
  assert names[index] == class_name


def test_merged_classes_are_named_by_what_they_hold():
  label = labels.find('dsprites_orientation')
  for value in range(40):
    name = label.class_names[label.of({'label_orientation': [value]})]
    first, last = map(int, name.split(' to '))
    assert first <= value <= last


@pytest.mark.parametrize(
  ('name', 'features'),
  [
    ('clevr_count', {'objects/size': []}),  # As in CLEVR's test split.
    ('clevr_count', {'objects/size': [0] * 11}),
    ('clevr_distance', {'objects/pixel_coords': []}),
    ('clevr_distance', {'objects/pixel_coords': points(100.5)}),
    ('clevr_distance', {'objects/pixel_coords': points(0.0)}),
    ('dsprites_location', {'label_x_position': [32]}),
    ('dsprites_location', {'label_x_position': [-1]}),
    ('smallnorb_azimuth', {'label_azimuth': []}),
    ('smallnorb_azimuth', {'label_azimuth': [3, 4]}),
    ('kitti_distance', {'objects/type': [0], 'objects/location': []}),
  ],
)
def test_example_of_no_class_is_an_error(name, features):
  said = f"config.label='{name}' has no class for an example with "
  with pytest.raises(errors.DataError, match=re.escape(said)) as raised:
    labels.label_of(name, features)
  assert next(iter(features)) in str(raised.value)


# A kind and a depth for each object of an example.
SCENES = (
  [(CAR, 5.0), (VAN, 30.0)],
  [(PEDESTRIAN, 1.0)],
  [],
  [(TRUCK, 50.0), (CAR, 8.25), (CYCLIST, 2.0)],
  [(VAN, 20.25)],
)


class Scenes(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Objects as KITTI has them, and a position as dSprites has it."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    location = tfds.features.Tensor(shape=(3,), dtype=np.float32)
    kinds = tfds.features.ClassLabel(num_classes=8)
    features = {
      'image': tfds.features.Image(shape=(7, 5, 1)),
      'objects': tfds.features.Sequence({'type': kinds, 'location': location}),
      'label_x_position': tfds.features.ClassLabel(num_classes=32),
    }
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for i, scene in enumerate(SCENES):
      image = np.zeros((7, 5), np.uint8)
      image[i] = 1
      objects = [
        {'type': kind, 'location': np.array(points(depth), np.float32)}
        for kind, depth in scene
      ]
      yield (
        i,
        {
          'image': PIL.Image.fromarray(image),
          'objects': objects,
          'label_x_position': 5 * i,
        },
      )


@pytest.fixture(scope='module', params=['array_record', 'parquet'])
def config(tmp_path_factory, request):
  directory = tmp_path_factory.mktemp('scenes')
  builder = Scenes(data_dir=directory)
  builder.download_and_prepare(file_format=request.param)
  fields = {'dataset': 'scenes', 'tfds_data_dir': str(directory)}
  return ConfigDict({**fields, 'tfds_manual_dir': None, 'label': ''})


def read_all(source):
  """Gives {row that is bright: (label, its brightness)}."""
  reader = reading.Reader(source, ConfigDict())
  found = {}
  for index in range(len(source)):
    image, label = reader.read(index)
    assert image.shape == (7, 5, 3)
    bright = image.max((1, 2)).argmax()
    assert (image[bright] == image.max()).all()
    brightness = int(image.max())
    assert image.sum() == 15 * brightness
    found[int(bright)] = (int(label), brightness)
  return found


@pytest.mark.parametrize('in_memory', [True, False])
@pytest.mark.parametrize(
  ('name', 'expected', 'brightness'),
  [
    ('kitti_distance', [0, 3, 3, 1, 2], 1),
    ('dsprites_location', [0, 2, 5, 7, 10], 255),
  ],
)
def test_prepared_set_is_labelled(
  config, name, expected, brightness, in_memory, monkeypatch
):
  config = config.copy_and_resolve_references()
  config.label = name
  if not in_memory:
    monkeypatch.setattr(sources, '_MAX_SIDE', 6)
  source = sources.load_source(config, 'train')
  assert (source.images is not None) is in_memory
  assert source.class_names == labels.find(name).class_names
  assert source.num_classes == len(source.class_names)
  wanted = {i: (label, brightness) for i, label in enumerate(expected)}
  assert read_all(source) == wanted


def test_unknown_label_is_answered(config):
  config = config.copy_and_resolve_references()
  config.label = 'clever_count'
  with pytest.raises(
    errors.ConfigError, match=r"'clever_count'\. Did you"
  ) as e:
    sources.load_source(config, 'train')
  assert "Did you mean 'clevr_count'?" in str(e.value)
  assert "'' is for the data set's own" in str(e.value)


@pytest.mark.parametrize(
  ('name', 'said'),
  [
    ('', "with a class in 'label'."),
    (
      'clevr_count',
      "config.label='clevr_count', which is made of objects/size",
    ),
    ('smallnorb_azimuth', 'which is made of label_azimuth'),
  ],
)
def test_label_that_a_set_can_not_give_is_answered(config, name, said):
  config = config.copy_and_resolve_references()
  config.label = name
  with pytest.raises(errors.DataError, match=re.escape(said)) as raised:
    sources.load_source(config, 'train')
  assert 'objects: Sequence' in str(raised.value)


def test_example_of_no_class_ends_the_reading(config, monkeypatch):
  config = config.copy_and_resolve_references()
  config.label = 'kitti_distance'
  monkeypatch.setattr(labels, '_KITTI_BOUNDS', (9.0, 10.0, 20.0, 999.0))
  with pytest.raises(errors.DataError, match='kitti_distance.*has no class'):
    sources.load_source(config, 'train')


def test_label_of_a_folder_is_refused(tmp_path):
  config = ConfigDict({'dataset': str(tmp_path), 'label': 'clevr_count'})
  with pytest.raises(
    errors.ConfigError, match='is a path. Pass --config.label='
  ):
    sources.load_source(config, 'train')


def test_preset_is_no_data_set():
  config = ConfigDict({'dataset': 'vtab/dtd'})
  with pytest.raises(errors.ConfigError, match='configs/vit.py:b16,vtab/dtd$'):
    sources.load_source(config, 'train')


# Sets that are evaluated.


class Copies(Scenes, skip_registration=True):
  """Has the same features, and a label of its own with the same classes."""

  def _info(self):
    names = labels.find('dsprites_location').class_names
    features = {
      'image': tfds.features.Image(shape=(7, 5, 1)),
      'label_x_position': tfds.features.ClassLabel(num_classes=32),
      'label': tfds.features.ClassLabel(names=names),
    }
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _generate_examples(self):
    for i, example in super()._generate_examples():
      del example['objects']
      yield i, {**example, 'label': 15 - i}


@pytest.fixture(scope='module')
def with_sets(config):
  builder = Copies(data_dir=config.tfds_data_dir)
  builder.download_and_prepare(file_format='array_record')
  config = config.copy_and_resolve_references()
  config.update(label='dsprites_location', best_metric='', eval_sets='')
  config.pp = {'train': 'train', 'test': 'train'}
  return config


def test_derived_label_is_for_its_own_data_set_alone(with_sets):
  config = with_sets.copy_and_resolve_references()
  config.eval_sets = 'part=train[:3],same=scenes:1.0.0:train,other=copies:train'
  found = eval_sets.load(config)
  derived = {0: 0, 1: 2, 2: 5, 3: 7, 4: 10}  # By the row that is bright.

  def labels_by_row(source):
    return {row: label for row, (label, _) in read_all(source).items()}

  assert labels_by_row(found['test']) == labels_by_row(found['same']) == derived
  assert labels_by_row(found['part']).items() <= derived.items()
  own = {i: 15 - i for i in range(5)}
  assert labels_by_row(found['other']) == own


def test_other_data_set_without_the_classes_says_why(with_sets):
  config = with_sets.copy_and_resolve_references()
  config.update(eval_sets='a=digits:test')
  with pytest.raises(errors.ConfigError) as raised:
    eval_sets.load(config)
  assert "a: the classes of 'digits' are not those of 'scenes'" in str(
    raised.value
  )
  assert str(raised.value).endswith(
    "(config.label='dsprites_location' is for 'scenes' alone: another data set "
    "is read with its own 'label'.)"
  )
