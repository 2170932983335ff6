"""Tests of the settings that models are looked at with."""

from typing import Any

import pytest
from ml_collections import ConfigDict

from vit_jax import data_settings, trained

PLACES = {'tfds_data_dir': None, 'tfds_manual_dir': None}


def opened(size: int, **pp) -> Any:
  config = ConfigDict({'dataset': 'digits', 'pp': {'crop': 16, **pp}})
  nothing: Any = None
  return trained.Trained(
    nothing, nothing, nothing, (size, size), nothing, config
  )


@pytest.mark.parametrize(
  ('size', 'asked', 'wanted', 'text'),
  [
    (16, 19, 19, 'shorter side to 19, the middle 16 x 16 of that'),
    (16, 0, 0, 'squashed to 16 x 16'),
    # At another size nobody has said how.
    (32, 19, 0, 'squashed to 32 x 32'),
  ],
)
@pytest.mark.parametrize('dataset', ['', 'cifar10'])
def test_images_are_resized_as_in_the_run(dataset, size, asked, wanted, text):
  model = opened(size, test_resize=asked)
  config = data_settings.data_settings(
    model, dataset, '', PLACES, ('train', 'test')
  )
  assert config.pp.test_resize == wanted
  assert data_settings.images_text(model) == text


def test_runs_that_are_older_squash():
  assert data_settings.images_text(opened(16)) == 'squashed to 16 x 16'


def test_what_is_given_goes_before_the_run():
  model = opened(16)
  model.config.update({'tfds_data_dir': '/run', 'follow_links': True})
  for given, expected in (
    ({'tfds_data_dir': None, 'follow_links': False}, ('/run', True)),
    ({'tfds_data_dir': '/mine', 'follow_links': True}, ('/mine', True)),
  ):
    config = data_settings.data_settings(
      model, 'digits', '', given, ('train', 'test')
    )
    assert (config.tfds_data_dir, config.follow_links) == expected
  config = data_settings.data_settings(
    model, 'cifar10', '', {'follow_links': True}, ('train', 'test')
  )
  assert (config.tfds_data_dir, config.follow_links) == (None, True)
