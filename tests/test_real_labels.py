"""Images with several labels, as imagenet2012_real has them."""

import dataclasses
import pickle

import numpy as np
import pytest
import real_labels
import tfrecords

from configs import vit
from vit_jax import errors, train
from vit_jax.data import decode, pipeline, sources


@pytest.fixture
def config(real_dir):
  config = vit.get_config('tiny,digits')
  config.pp.crop = 8
  config.update(tfds_data_dir=real_dir, batch_eval=23, num_threads=1)
  return config


@pytest.fixture(scope='module', params=['array_record', 'tfrecord', 'parquet'])
def large_dir(tmp_path_factory, request):
  directory = tmp_path_factory.mktemp(request.param)
  tfrecords.prepare(real_labels.RealLarge, directory, request.param)
  return str(directory)


def assert_labels_are_real(labels):
  padded = [
    sorted(found) + [-1] * (10 - len(found)) for found in real_labels.LABELS
  ]
  assert labels.dtype == np.int32
  assert sorted(labels.tolist()) == sorted(padded)


def test_several_labels_are_read_and_filled_up(config, large_dir):
  config.update(tfds_data_dir=large_dir, dataset='real_large')
  source = sources.load_source(config, 'validation')
  assert (len(source), source.num_classes, source.max_labels) == (29, 10, 10)
  assert source.images is None
  read = [source.read(index) for index in range(29)]
  assert_labels_are_real(np.stack([labels for _, labels in read]))
  by_pixels = {
    real_labels.make_image(i, 70).tobytes(): i
    for i in range(real_labels.NUM_IMAGES)
  }
  for encoded, labels in read:
    index = by_pixels[decode.decode(encoded).tobytes()]
    assert {*labels.tolist()} - {-1} == {*real_labels.LABELS[index]}
  copied = pickle.loads(pickle.dumps(source)).read(3)[1]
  np.testing.assert_array_equal(copied, read[3][1])


@pytest.mark.parametrize('name', ['real_small', 'real_large'])
def test_batches_have_several_labels(config, name):
  config.dataset = name
  source = sources.load_source(config, 'validation')
  assert (source.images is not None) == (name == 'real_small')
  batches = [*pipeline.eval_batches(config, source)]
  assert [batch['label'].shape for batch in batches] == [(23, 10)] * 2
  mask = np.concatenate([batch['mask'] for batch in batches])
  labels = np.concatenate([batch['label'] for batch in batches])
  assert mask.tolist() == [True] * 29 + [False] * 17
  assert_labels_are_real(labels[mask])


def test_labels_beyond_the_classes_are_refused(config, monkeypatch):
  config.dataset = 'real_large'
  source = sources.load_source(config, 'validation')
  fields = dataclasses.replace(source.records._fields, max_labels=7)
  monkeypatch.setattr(source.records, '_fields', fields)
  with pytest.raises(errors.DataError, match=r'expected labels in \[0, 7\)'):
    [source.read(index) for index in range(29)]


def test_there_is_no_training_on_several_labels(config, tmp_path):
  config.update(dataset='real_small', eval_sets='', best_metric='')
  config.pp.update(train='validation', test='validation')
  with pytest.raises(errors.ConfigError, match='there is no training on it'):
    train.train_and_evaluate(config, tmp_path / 'run')
  with pytest.raises(errors.ConfigError, match='there is no training on it'):
    pipeline.train_batches(config, 0)
  assert not (tmp_path / 'run').exists()
