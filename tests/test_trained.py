"""Tests of opening trained models."""

import json
import shutil

import numpy as np
import pytest

from vit_jax import checkpoints, errors, trained


def test_file(mini):
  case = mini('mini-vit')
  opened = trained.load(str(case.path))
  images = np.zeros((2, *opened.image_size, 3), np.float32)
  logits = opened.model.apply({'params': opened.params}, images)
  assert logits.shape == (2, opened.model.num_classes)
  assert opened.config is None and opened.class_names is None
  assert opened.class_name(1) == 'class 1'


@pytest.mark.parametrize('asked', [None, 64, (32, 64)])
def test_run(mini, tmp_path, asked):
  case = mini('mini-vit')
  num_classes = trained.load(str(case.path)).model.num_classes
  shutil.copy(case.path, tmp_path / 'model.npz')
  names = [f'name {i}' for i in range(num_classes)]
  (tmp_path / 'labels.json').write_text(json.dumps(names))
  settings = {'dataset': 'digits', 'pp': {'crop': 32}}
  (tmp_path / 'config.json').write_text(json.dumps(settings))
  opened = trained.load(str(tmp_path), asked)
  assert opened.class_name(1) == 'name 1'
  assert opened.config.pp.crop == 32
  if asked:
    assert opened.image_size == ((asked, asked) if asked == 64 else asked)
  # What lies beside a run is not of it.
  other = shutil.copy(case.path, tmp_path / 'other.npz')
  assert trained.load(other).config is None


def test_names_of_other_weights_are_none(mini, tmp_path):
  shutil.copy(mini('mini-vit').path, tmp_path / 'model.npz')
  (tmp_path / 'labels.json').write_text('["a", "b"]')
  assert trained.load(str(tmp_path)).class_names is None


def test_images_that_no_memory_holds(mini, monkeypatch):
  def load(*_, **__):
    raise MemoryError('Unable to allocate 596. GiB')

  monkeypatch.setattr(checkpoints, 'load_pretrained', load)
  with pytest.raises(errors.ConfigError, match='596. GiB.*--image_size'):
    trained.load(str(mini('mini-vit').path))


def test_missing_file_is_told(tmp_path):
  with pytest.raises(errors.CheckpointNotFoundError, match='nothing'):
    trained.load(str(tmp_path / 'nothing.npz'))
