"""The names in Google's `.npz` files, of all their ages."""

import numpy as np
import pytest
from trees import assert_same_bits, flat

from vit_jax import checkpoints, errors


@pytest.fixture
def published(checkpoint_file):
  """Arrays of a hybrid's file, by the keys it has on disk."""
  with np.load(checkpoint_file('mini-hybrid')) as file:
    return dict(file)


def current_name(key):
  for old, new in (
    ('LayerNorm_2', 'LayerNorm_1'),
    ('MlpBlock_3', 'MlpBlock_0'),
    ('DotProductAttention_1', 'DotProductAttention_0'),
  ):
    key = key.replace(old, new)
  return key


def optimizer_state(prefix, arrays):
  return {f'{prefix}/{key}': -value for key, value in arrays.items()}


VARIANTS = {
  'current names': lambda arrays: {
    current_name(key): value for key, value in arrays.items()
  },
  'squeezed GroupNorm': lambda arrays: {
    key: value.reshape(-1) if '/gn' in f'/{key}' else value
    for key, value in arrays.items()
  },
  'opt/target/': lambda arrays: {
    **{f'opt/target/{key}': value for key, value in arrays.items()},
    **optimizer_state('opt/state/param_states', arrays),
    'opt/state/step': np.int32(3),
  },
  'params/': lambda arrays: {
    **{f'params/{key}': value for key, value in arrays.items()},
    **optimizer_state('opt/mu', arrays),
    'step': np.int32(3),
  },
  'params/ and current names': lambda arrays: {
    f'params/{current_name(key)}': value for key, value in arrays.items()
  },
  'optimizer state beside the weights': lambda arrays: {
    **arrays,
    **optimizer_state('opt/state', arrays),
  },
  'reverse order': lambda arrays: dict(reversed(arrays.items())),
}


@pytest.mark.parametrize('variant', VARIANTS)
def test_all_spellings_of_a_file_read_alike(mini, published, variant, tmp_path):
  path = tmp_path / 'variant.npz'
  np.savez(path, **VARIANTS[variant](published))
  assert_same_bits(checkpoints.load_params(path), mini('mini-hybrid').params)


def test_names_are_the_models_and_norms_are_vectors(mini):
  found = flat(mini('mini-hybrid').params)
  assert found['block1/unit1/gn_proj/scale'].shape == (128,)
  assert found['gn_root/bias'].shape == (32,)
  # A 1x1 convolution is no norm, whatever its shape.
  assert found['block1/unit1/conv1/kernel'].shape == (1, 1, 32, 32)
  assert 'Transformer/encoderblock_1/LayerNorm_1/bias' in found
  assert not any('LayerNorm_2' in key for key in found)


def test_legacy_and_current_name_of_one_array(published, tmp_path):
  key = 'Transformer/encoderblock_0/LayerNorm_2/bias'
  other = key.replace('LayerNorm_2', 'LayerNorm_1')
  path = tmp_path / 'both.npz'
  np.savez(path, **published, **{other: published[key] + 1})
  with pytest.raises(errors.CheckpointError) as caught:
    checkpoints.load_params(path)
  for part in (str(path), key, other):
    assert part in str(caught.value)
