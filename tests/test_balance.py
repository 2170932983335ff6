"""Counts of classes, as a run begins with them."""

import dataclasses

import pytest
from image_folder import add_classes, load

from vit_jax.data import balance


@pytest.fixture
def root(tmp_path):
  """An empty folder beside others."""
  path = tmp_path / 'pets'
  path.mkdir()
  return path


def test_counts_are_told(root):
  add_classes(root / 'train', ant=4, bee=1, cat=2)
  add_classes(root / 'test', ant=1, bee=2)
  lines = balance.class_lines(load(root), load(root, 'test'))
  assert lines == {
    'classes': 'ant 4 + 1, bee 1 + 2, cat 2 + 0 (train + test)',
    'balance': 'most to train on: ant with 4, fewest: bee with 1 (4.0 : 1)',
  }


def test_many_classes_are_told_in_short(root):
  add_classes(root / 'train', **{f'c{index:02}': 1 for index in range(15)})
  train = load(root)
  lines = balance.class_lines(train, train)
  assert lines['classes'].startswith('c00 1 + 1, c01 1 + 1, ')
  assert lines['classes'].endswith('c11 1 + 1 and 3 more (train + test)')
  assert lines['balance'] == 'every class has 1 to train on'


def test_class_without_an_image_has_no_ratio(root):
  add_classes(root / 'train', ant=4, bee=1)
  add_classes(root / 'test', bee=2)
  test = load(root, 'test')
  line = balance.class_lines(test, test)['balance']
  assert line == 'most to train on: bee with 2, fewest: ant with 0'


def test_what_is_not_counted_is_not_told(root):
  add_classes(root / 'train', ant=4, bee=1)
  train = load(root)
  unknown = dataclasses.replace(train, labels=None)
  assert balance.class_lines(train, unknown) == {}
