"""Outputs equal the original code's, on weights made up for both."""

import zlib

import jax
import numpy as np
import parity
import pytest

import vit_jax
from vit_jax import checkpoints

# Of the weights of mini-hybrid for seed 0, in the order of their keys.
WEIGHTS_CHECKSUM = 1536573606
# Float32 rounding alone: of the recorded logits and of ours, both lie 1.8e-5
# from a float64 evaluation of the R50 hybrid with the same weights, and 1.4e-5
# from each other. The other models stay below 1e-5 with room to spare.
TOLERANCES = {'ViT-B_16-224': 1e-5, 'R50+ViT-B_16-224': 3e-5}


def test_recipe_draws_the_recorded_weights():
  weights = parity.make_checkpoint(parity.layout('mini-hybrid'), seed=0)
  checksum = 0
  for key in sorted(weights):
    assert weights[key].dtype == np.float32
    checksum = zlib.crc32(weights[key].tobytes(), checksum)
  assert checksum == WEIGHTS_CHECKSUM


@pytest.mark.parametrize('name', parity.MINI_VITS)
def test_logits_and_attention_of_mini_models(mini, name):
  case = mini(name)
  logits, attention = case.apply(case.params, case.images)
  expected = parity.expected()
  assert parity.relative_error(logits, expected[f'{name}/logits']) < 1e-5
  wanted = expected[f'{name}/attention']
  assert attention.shape == wanted.shape
  for layer in range(len(wanted)):
    assert parity.relative_error(attention[layer], wanted[layer]) < 1e-5


def test_logits_of_mini_mixer(mini):
  case = mini('mini-mixer')
  logits, _ = case.apply(case.params, case.images)
  wanted = parity.expected()['mini-mixer/logits']
  assert parity.relative_error(logits, wanted) < 1e-5


def test_logits_without_intermediates(mini):
  case = mini('mini-vit')
  logits = jax.jit(case.model.apply)({'params': case.params}, case.images)
  wanted = parity.expected()['mini-vit/logits']
  assert parity.relative_error(logits, wanted) < 1e-5


@pytest.mark.parametrize('name', parity.FULL_SIZES)
def test_logits_of_full_sizes(tmp_path, name):
  model = vit_jax.create_model(name.removesuffix('-224'), num_classes=1000)
  path = tmp_path / f'{name}.npz'
  np.savez(path, **parity.make_checkpoint(parity.layout(name), 0))
  params = checkpoints.load_pretrained(path, model, 224)
  path.unlink()  # pytest would keep the several hundred MB.
  images = parity.make_images(2, 224, 224, 0)
  logits = jax.jit(model.apply)({'params': params}, images)
  wanted = parity.expected()[f'{name}/logits']
  assert parity.relative_error(logits, wanted) < TOLERANCES[name]


@pytest.mark.parametrize('size', [96, 48])
def test_features_at_another_size(mini, size):
  case = mini('mini-vit')
  model = vit_jax.create_model(parity.configs()['mini-vit']['config'], None)
  params = checkpoints.load_pretrained(case.path, model, size)
  positions = params['Transformer']['posembed_input']['pos_embedding']
  expected = parity.expected()
  wanted = expected[f'mini-vit/pos_embedding_{size}']
  assert parity.relative_error(positions, wanted) < 1e-5
  images = parity.make_images(2, size, size, 0)
  features = jax.jit(model.apply)({'params': params}, images)
  wanted = expected[f'mini-vit/features_{size}']
  assert parity.relative_error(features, wanted) < 1e-5
