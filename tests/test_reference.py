"""The numpy reference itself: the original's logits, sines by hand."""

import math

import numpy as np
import parity
import pytest
import reference

from vit_jax import checkpoints


def flat_params(path):
  """Returns the parameters of a file as {path: array}."""

  def walk(node, prefix):
    for key, value in node.items():
      if hasattr(value, 'items'):
        yield from walk(value, f'{prefix}{key}/')
      else:
        yield f'{prefix}{key}', value

  return dict(walk(checkpoints.load_params(path), ''))


@pytest.mark.parametrize('name', [
  'mini-vit', 'mini-vit-gap', 'mini-vit-prelogits', 'mini-mixer',
])  # fmt: skip
def test_logits_are_the_recorded_ones(checkpoint_file, name):
  fields = parity.configs()[name]
  flat = flat_params(checkpoint_file(name))
  images = parity.make_images(2, *2 * [fields['image_size']], 0)
  if name == 'mini-mixer':
    logits = reference.mixer_logits(flat, images, patch=8)
  else:
    classifier = fields['config']['classifier']
    logits = reference.vit_logits(
      flat, images, patch=(8, 8), num_heads=3, classifier=classifier
    )
  wanted = parity.expected()[f'{name}/logits']
  assert parity.relative_error(logits, wanted) < 1e-6


def test_sines_of_one_patch():
  found = reference.sincos2d((2, 3), 8).reshape(2, 3, 8)[1, 2]
  wanted = [
    math.sin(2), math.sin(2e-4), math.cos(2), math.cos(2e-4),
    math.sin(1), math.sin(1e-4), math.cos(1), math.cos(1e-4),
  ]  # fmt: skip
  np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_gelus_of_one():
  # The normal distribution has 84.1345 % of its weight below one deviation.
  x = np.ones(1)
  np.testing.assert_allclose(reference.GELUS['exact'](x), 0.841345, atol=1e-6)
  np.testing.assert_allclose(reference.GELUS['tanh'](x), 0.841192, atol=1e-6)
