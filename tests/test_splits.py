"""Splits by the hash of a name: stable, disjoint, and wrong ones answered."""

import fractions
import hashlib

import numpy as np
import pytest
from image_folder import add, add_classes, load

from vit_jax import errors
from vit_jax.data import splits


@pytest.mark.parametrize(
  ('name', 'expected'),
  [
    ('cat/0.png', 0xEF25D5BB761494),
    ('cat/1.png', 0xF9DFCDB1689486),
    ('dog/été 2019.jpg', 0x636C24178559D4),
    ('dog/e\u0301te\u0301 2019.jpg', 0x636C24178559D4),
    ('\udcff.png', 0xB5F9B2CFADF448),
    ('', 0x4E9B03474EDA9A),
  ],
)
def test_hash_is_the_same_for_ever(name, expected):
  assert splits.hash_name(name) == expected


def test_hash_is_as_documented():
  digest = hashlib.blake2b('ä/1.png'.encode(), digest_size=7).digest()
  assert splits.hash_name('ä/1.png') == int.from_bytes(digest, 'big')


def test_shares_are_about_as_large_as_asked_for():
  hashes = splits.hash_names([f'cat/{index}.png' for index in range(10_000)])
  assert hashes.dtype == np.int64
  for percent in (1, 10, 50):
    part = splits.Part('train', stop=fractions.Fraction(percent))
    assert abs(part.holds(hashes).mean() - percent / 100) < 0.01


@pytest.mark.parametrize('train', ['train[:90%]', 'train'])
def test_folder_of_classes_is_split_by_percentages(train, root):
  add_classes(root, cat=60, dog=70)
  parts = [load(root, split) for split in (train, 'train[90%:]')]
  found = [{*part.paths} for part in parts]
  assert not found[0] & found[1]
  assert len(found[0] | found[1]) == 130
  assert 3 < len(found[1]) < 30
  assert parts[0].split == 'train[:90%]'


@pytest.mark.parametrize(
  ('train', 'test', 'expected'),
  [
    ('train', 'test', ('train[:90%]', 'train[90%:]')),
    ('train', 'val', ('train[:90%]', 'train[90%:]')),
    ('train', 'train[75%:]', ('train[:75%]', 'train[75%:]')),
    ('train[:98%]', 'test', ('train[:98%]', 'train[98%:]')),
    ('train[20%:80%]', 'test', ('train[20%:80%]', 'train[:20%]+train[80%:]')),
    ('train[:-12.5%]', 'test', ('train[:87.5%]', 'train[87.5%:]')),
  ],
)
def test_split_without_a_share_is_what_the_other_leaves(
  train, test, expected, root
):
  add_classes(root, cat=97, dog=103)
  sources = [
    load(root, split, train=train, test=test) for split in (train, test)
  ]
  assert tuple(source.split for source in sources) == expected
  assert not {*sources[0].paths} & {*sources[1].paths}
  assert sum(map(len, sources)) == 200
  # What is recorded in full gives the same again.
  again = load(root, expected[1], train=expected[0], test=expected[1])
  assert [*again.paths] == [*sources[1].paths]


def test_percentages_of_a_training_folder(root):
  add_classes(root / 'train', cat=50, dog=50)
  add_classes(root / 'test', cat=1, dog=1)
  found = [
    {*load(root, split).paths}
    for split in ('train[:50%]', 'train[50%:]', 'train[:25%]+train[75%:]')
  ]
  assert not found[0] & found[1]
  assert len(found[0] | found[1]) == 100
  assert 20 < len(found[2]) < 80
  assert len(load(root, 'train[:50%]+test')) == len(found[0]) + 2


def test_adding_and_removing_files_moves_no_other(root):
  add_classes(root, cat=40, dog=40)
  before = {*load(root, 'train[80%:]').paths}
  rest = {*load(root, 'train[:80%]').paths}
  add(root / 'cat' / '00.png')
  add(root / 'cow' / '0.png')
  (root / 'dog' / '3.png').unlink()
  gone = str(root / 'dog' / '3.png')
  new = {str(root / 'cat' / '00.png'), str(root / 'cow' / '0.png')}
  assert {*load(root, 'train[80%:]').paths} - new == before - {gone}
  assert {*load(root, 'train[:80%]').paths} - new == rest - {gone}


@pytest.mark.parametrize(
  ('train', 'test', 'asked', 'texts'),
  [
    ('train', 'test', 'test', ["test='train[90%:]'", 'only: train.']),
    ('train', 'validation', 'val', ['no validation', "='train[:90%]'"]),
    ('train', 'test', 'tset', ["'tset'", "Did you mean 'test'?"]),
    ('train[:99]', 'test', 'train[:99]', ["'train[:99]'", 'keeps no exact']),
    ('train[:9x%]', 'test', 'train[:9x%]', ["'train[:9x%]'"]),
    ('train[', 'test', 'train[', ["'train['", "'train[:90%]'"]),
    ('', 'test', '', ["split ''"]),
    ('train[50%:50%]', 'test', 'train[50%:50%]', ['leaves nothing']),
    ('train[:1%]', 'test', 'train[:1%]', ['no image is in', 'percent']),
  ],
)
def test_split_that_can_not_be_had_is_answered(train, test, asked, texts, root):
  add_classes(root / 'train', cat=2, dog=2)
  with pytest.raises(errors.ConfigError) as caught:
    load(root, asked, train=train, test=test)
  for text in [str(root), *texts]:
    assert text in str(caught.value)


@pytest.mark.parametrize('asked', ['train+validation', 'test[:50%]'])
def test_split_of_what_is_not_split_is_answered(asked, root):
  add_classes(root, cat=9, dog=9)
  with pytest.raises(errors.ConfigError, match=r"'train\[90%:\]'"):
    load(root, asked)


def test_validation_is_not_tested_on_where_it_is_trained_on(root):
  add_classes(root / 'train', cat=1, dog=1)
  add_classes(root / 'val', cat=1, dog=1)
  with pytest.raises(errors.ConfigError, match=r'--config\.pp\.train=train '):
    load(root, 'test', train='train+validation')
