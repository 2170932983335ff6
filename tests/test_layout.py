"""What a file has that no model here has, what it lacks, and what is said."""

import time

import jax
import numpy as np
import parity
import pytest
import safetensors.numpy
from trees import flat

import vit_jax
from vit_jax.checkpoints import files
from vit_jax.checkpoints.arrays import StoredArray
from vit_jax.inspection import describe, report, sizes


@pytest.fixture
def file(tmp_path):
  return tmp_path / 'file.npz'


def arrays_of(name):
  return parity.make_checkpoint(parity.layout(name), 0)


def description(path, arrays):
  np.savez(path, **arrays)
  return describe(path)


BLOCK = 'Transformer/encoderblock_2/'


@pytest.mark.parametrize(
  ('name', 'key'),
  [
    ('mini-vit', 'decoder/kernel'),
    ('mini-vit', f'{BLOCK}LayerNorm_4/scale'),
    ('mini-vit', 'MixerBlock_0/LayerNorm_0/bias'),
    ('mini-vit', 'block1/unit1/gn1/scale'),
    ('mini-mixer', 'Transformer/encoder_norm/scale'),
    ('mini-hybrid', 'block1/unit2/gn_proj/scale'),
  ],
)
def test_keys_that_no_model_has(file, name, key):
  arrays = arrays_of(name) | {key: np.ones((2, 2))}
  found = description(file, arrays)
  assert found.unknown == (key,) and found.missing == ()
  assert found.command is None
  text = report.as_table(found)
  assert text.endswith(f'none: has layers that no model here has: {key}')


@pytest.mark.parametrize(
  'key',
  [
    'blocks.0.ls1.gamma',  # DINOv2's and others' LayerScale.
    'blocks.3.attn.q_norm.weight',
    'blocks.0.attn.relative_position_bias_table',  # BEiT.
    'fc_norm.weight',
    'norm_pre.weight',  # CLIP.
    'reg_token',
  ],
)
def test_layers_of_timm_that_no_model_has(tmp_path, key):
  path = tmp_path / 'file.safetensors'
  with files.open_file(parity.GOLDEN / 'timm' / 'mini-vit.safetensors') as file:
    arrays = {name: array.read() for name, array in file.arrays.items()}
  safetensors.numpy.save_file(arrays, path)
  assert describe(path, num_heads=3).command
  more = {f'{key}{i}' if i else key: np.ones(48, 'f4') for i in range(7)}
  safetensors.numpy.save_file(arrays | more, path)
  found = describe(path, num_heads=3)
  assert found.command is None and found.unknown == (*more,)
  text = report.as_table(found)
  start = f'none: has layers that no model here has: {key}, '
  assert start in text and text.endswith(' and 2 more')


@pytest.mark.parametrize(
  ('name', 'key'),
  [
    ('mini-vit', 'cls'),
    ('mini-vit', f'{BLOCK}LayerNorm_0/scale'),
    ('mini-vit', 'Transformer/encoder_norm/bias'),
    ('mini-vit-gap', 'embedding/bias'),
    ('mini-mixer', 'MixerBlock_1/channel_mixing/Dense_1/bias'),
    ('mini-hybrid', 'block2/unit1/conv_proj/kernel'),
  ],
)
def test_keys_that_are_missing(file, name, key):
  arrays = arrays_of(name)
  del arrays[key]
  found = description(file, arrays)
  if key == 'cls':  # What is left is a model without, of no square grid.
    assert found.command is None
    return
  assert found.missing == (key,) and found.unknown == ()
  assert found.command is None
  assert f'lacks what its model needs: {key}' in report.as_table(found)


def test_gated_mlp_is_of_another_shape(file):
  """Its second layer takes half of what the first one gives."""
  arrays = arrays_of('mini-vit')
  key = f'{BLOCK}MlpBlock_3/Dense_1/kernel'
  arrays[key] = arrays[key][::2]
  found = description(file, arrays)
  assert found.unknown == (key.replace('_3', '_0'),)
  assert found.command is None


def test_norm_after_pooling():
  path = parity.GOLDEN / 'timm' / 'fc-norm.safetensors'
  found = describe(path, num_heads=3)
  assert found.unknown == ('fc_norm.bias', 'fc_norm.weight')
  assert found.missing[0] == 'Transformer/encoder_norm/bias'
  assert found.command is None


def small_hybrid():
  model = vit_jax.create_model('R+ViT-Ti_16', 7)
  images = jax.ShapeDtypeStruct((1, 64, 64, 3), 'float32')
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  return {key: leaf.shape for key, leaf in flat(shapes).items()}


@pytest.mark.parametrize('pattern', [
  'block{}/unit1/gn1/scale',
  'block1/unit{}/gn1/scale',
  'Transformer/encoderblock_{}/LayerNorm_0/bias',
])  # fmt: skip
def test_many_blocks_are_told_in_no_time(pattern):
  layout = small_hybrid()
  layout |= {pattern.format(i): (3,) for i in range(1000, 11_000)}
  flat = {
    key: StoredArray(key, shape, np.dtype('f4'), lambda: np.empty(0))
    for key, shape in layout.items()
  }
  start = time.process_time()
  found = sizes.read_sizes(flat, 'a file')
  assert time.process_time() - start < 2
  assert len(found['unknown']) >= 10_000
