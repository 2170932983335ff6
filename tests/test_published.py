"""The table of published weights, and what names and folders stand for."""

import pathlib
import re

import pytest

from vit_jax.checkpoints.places import published
from vit_jax.models import variants

ALL = [
  (upstream, name, weights)
  for upstream, row in published.PUBLISHED.items()
  for name, options in row.items()
  for weights in options
]
BUCKET_FILE = re.compile(
  r'(vit_models|mixer_models)/(imagenet21k|imagenet21k\+imagenet2012|'
  r'imagenet1k|augreg|sam|gsam)/[\w.+-]+\.npz|big_vision/vit_s16_\w+\.npz'
)


def places(name: str, upstream: str | None = None) -> list[str]:
  return [each for w in published.find(name, upstream) for each in w.places]


def test_all_places_are_well_formed_and_named_once():
  found = [each for _, _, weights in ALL for each in weights.places]
  assert len(found) == len(set(found)) > 100
  for _, _, weights in ALL:
    assert weights.places
    assert not weights.file or BUCKET_FILE.fullmatch(weights.file)
    assert not weights.repo or re.fullmatch(r'timm/[\w.]+_\w+', weights.repo)


def test_models_of_the_table_are_ours():
  for upstream, name, _ in ALL:
    if upstream in ('imagenet21k', 'sam', 'gsam', 'imagenet1k'):
      assert name in variants.MODELS
    elif upstream.startswith('augreg'):
      stem = name.removesuffix('-224')
      ours = {
        each.replace('ViT-', '').replace('+', '_') for each in variants.MODELS
      }
      assert stem in ours


@pytest.mark.parametrize(('name', 'upstream', 'expected'), [
  ('ViT-B_16', None, ['gs://vit_models/imagenet21k/ViT-B_16.npz',
                      'hf://timm/vit_base_patch16_224.orig_in21k']),
  ('R50+ViT-B_16', None, ['gs://vit_models/imagenet21k/R50+ViT-B_16.npz',
                          'hf://timm/vit_base_r50_s16_224.orig_in21k']),
  ('ViT-B_16.npz', 'sam', ['gs://vit_models/sam/ViT-B_16.npz',
                           'hf://timm/vit_base_patch16_224.sam_in1k']),
  ('ViT-B_16-gap-norep', 'gsam', ['gs://vit_models/gsam/ViT-B_16.npz']),
  ('Mixer-B_16', None, ['gs://mixer_models/imagenet21k/Mixer-B_16.npz',
                        'hf://timm/mixer_b16_224.goog_in21k']),
  ('Mixer-S_8', 'gsam', ['gs://mixer_models/gsam/Mixer-S_8.npz']),
  ('Mixer-B_16', 'imagenet21k+imagenet2012',
   ['hf://timm/mixer_b16_224.goog_in21k_ft_in1k']),
  ('Ti_16', None,
   ['gs://vit_models/augreg/Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-'
    'sd_0.0.npz', 'hf://timm/vit_tiny_patch16_224.augreg_in21k']),
  ('B_16-224', 'augreg+imagenet2012',
   ['gs://vit_models/augreg/B_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-'
    'sd_0.0--imagenet2012-steps_20k-lr_0.01-res_224.npz',
    'hf://timm/vit_base_patch16_224.augreg_in21k_ft_in1k']),
  ('vit_s16_i1k_90ep', 'big_vision',
   ['gs://big_vision/vit_s16_i1k_90ep.npz']),
  ('tiny', None, []),
  ('ViT-H_14', 'sam', []),
])  # fmt: skip
def test_places_of_a_name(name, upstream, expected):
  assert places(name, upstream) == expected


def test_augreg_models_by_either_name():
  assert places('ViT-Ti_16') == places('Ti_16') == places('Ti_16', 'augreg')
  assert places('R26+ViT-S_32') == places('R26_S_32')


def test_best_augreg_file_goes_before_the_converted_one():
  best, converted = published.find('L_16', 'augreg')
  assert 'aug_strong1-wd_0.1-do_0.0-sd_0.0' in best.file and not best.repo
  assert converted.repo == 'timm/vit_large_patch16_224.augreg_in21k'
  assert published.augreg_files('L_16') == [
    pathlib.PurePosixPath(each.file).name[:-4] for each in (best, converted)
  ]


def test_augreg_file_by_its_own_name():
  name = 'S_16-i21k-300ep-lr_0.001-aug_light1-wd_0.03-do_0.0-sd_0.0'
  expected = [f'gs://vit_models/augreg/{name}.npz']
  assert places(f'{name}.npz') == [
    *expected, 'hf://timm/vit_small_patch16_224.augreg_in21k'
  ]  # fmt: skip
  other = name.replace('light1', 'strong2')
  assert places(other) == [f'gs://vit_models/augreg/{other}.npz']


@pytest.mark.parametrize(('directory', 'upstream'), [
  ('gs://vit_models/sam', 'sam'),
  ('gs://mixer_models/gsam/', 'gsam'),
  ('gs://vit_models/imagenet21k+imagenet2012', 'imagenet21k+imagenet2012'),
  ('https://storage.googleapis.com/vit_models/imagenet21k%2Bimagenet2012',
   'imagenet21k+imagenet2012'),
  ('augreg', 'augreg'),
  ('gs://vit_models', None),
  ('gs://mine/sam', None),
  ('weights', None),
  ('', None),
])  # fmt: skip
def test_upstream_of_a_directory(directory, upstream):
  assert published.upstream_of(directory) == upstream


def test_unknown_name_says_what_there_is():
  assert "'sam/ViT-L_32'" not in published.unknown('ViT-L23', None)
  assert "Did you mean 'ViT-L_32'?" in published.unknown('vit-l32', None)
  text = published.unknown('ViT-Ti_16', 'imagenet21k')
  assert 'augreg/ViT-Ti_16' in text and 'sam' not in text
  assert 'gsam/Mixer-S_8' in published.unknown('Mixer-S_8', None)
