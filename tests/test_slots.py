"""Tests of the class token's slot, which some files of timm leave out."""

import numpy as np
import parity
import pytest
import safetensors.numpy
import small_model
from trees import flat

from vit_jax import checkpoints
from vit_jax.checkpoints import files
from vit_jax.checkpoints.arrays import StoredArray, read_arrays
from vit_jax.checkpoints.names import timm

GOLDEN = parity.GOLDEN / 'timm'
POSITIONS = 'Transformer/posembed_input/pos_embedding'


def stored(shapes):
  """Returns arrays of these shapes that take no memory."""
  zero = np.zeros((), 'f4')
  return {
    key: StoredArray.of(np.broadcast_to(zero, shape), key)
    for key, shape in shapes.items()
  }


def to_ours(arrays, **kwargs):
  return timm.to_ours(arrays, num_heads=None, source='a file', **kwargs)


@pytest.mark.parametrize(('tokens', 'kwargs', 'expected'), [
  (16, {}, 17),
  (17, {}, 17),
  (11, {}, 11),  # 2 by 5 patches.
  (16, {'has_class_slot': True}, 16),  # 3 by 5 patches.
  (10, {'has_class_slot': False}, 11),
  (16, {'num_patches': 15}, 16),
  (10, {'num_patches': 10}, 11),
  (17, {'num_patches': 17}, 18),
  (16, {'num_patches': 49}, 17),  # To be resized.
  (15, {'has_class_slot': True, 'num_patches': 15}, 15),
])  # fmt: skip
def test_slot_of_the_class_token(tokens, kwargs, expected):
  table = np.arange(1.0, 1 + 3 * tokens).reshape(1, tokens, 3)
  arrays = {
    'cls_token': StoredArray.of(np.ones((1, 1, 3))),
    'pos_embed': StoredArray.of(table),
  }
  found = to_ours(arrays, **kwargs)[POSITIONS]
  assert found.shape == (1, expected, 3)
  values = found.read()
  np.testing.assert_array_equal(values[:, expected - tokens :], table)
  assert not values[:, : expected - tokens].any()


def test_positions_without_numbers_get_no_slot():
  """Its zeros would be as many as the header likes."""
  shapes = {'cls_token': (1, 1, 3), 'pos_embed': (1, 0, 1 << 40)}
  found = to_ours(stored(shapes), num_patches=0)[POSITIONS]
  assert found.shape == (1, 0, 1 << 40)


@pytest.mark.parametrize('num_slots', [15, 16])
def test_file_of_timm_for_images_that_are_no_square(tmp_path, num_slots):
  """3 by 5 patches, with a slot for the class token and without."""
  with files.open_file(GOLDEN / 'no-embed-class.safetensors') as file:
    arrays = read_arrays(file.arrays, file.path)
  rng = np.random.default_rng(0)
  arrays['pos_embed'] = rng.normal(size=(1, num_slots, 12)).astype('f4')
  path = tmp_path / 'file.safetensors'
  safetensors.numpy.save_file(arrays, path)
  model = small_model.make_model(
    5,
    patches={'size': (8, 8)},
    hidden_size=12,
    transformer={'mlp_dim': 24, 'num_heads': 3},
  )
  params = checkpoints.load_pretrained(path, model, (24, 40), fresh_head=False)
  found = flat(params)[POSITIONS]
  empty = np.zeros((1, 16 - num_slots, 12), 'f4')
  wanted = np.concatenate([empty, arrays['pos_embed']], axis=1)
  np.testing.assert_array_equal(found, wanted)


def test_no_slot_without_a_class_token():
  arrays = stored({'pos_embed': (1, 16, 3)})
  assert to_ours(arrays)[POSITIONS].shape == (1, 16, 3)
