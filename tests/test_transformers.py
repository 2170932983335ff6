"""Tests of transformers' names, against files and outputs of that library.

In `golden/transformers`, recorded with transformers 5.23.0 and torch 2.9.1 on a
CPU: `save_pretrained` of `ViTForImageClassification`, and of `ViTModel` in
`pooler.safetensors`, with random weights and `ViTConfig(hidden_size=12,
num_hidden_layers=2, num_attention_heads=3, intermediate_size=24, image_size=32,
patch_size=8, layer_norm_eps=1e-6, num_labels=5)`; `no-qkv-bias` has
`qkv_bias=False`, and `state-dict` is the first as it is in memory.
`outputs.json` has logits or pooler outputs in float64, with the exact GELU, on
`parity.make_images(2, size, size, 0)`: of these files and of two seed-0 minis,
which `from_pretrained` loaded as we write them, nothing missing or left over.
"""

import functools
import json
import re

import jax
import ml_dtypes
import numpy as np
import parity
import pytest
import reference
import small_model
from trees import assert_same_bits, flat

import vit_jax
from vit_jax import checkpoints, errors
from vit_jax.checkpoints import files, names
from vit_jax.checkpoints.arrays import StoredArray, read_arrays
from vit_jax.checkpoints.names import transformers

GOLDEN = parity.GOLDEN / 'transformers'


@functools.cache
def outputs():
  return json.loads((GOLDEN / 'outputs.json').read_text())


def load(name):
  return checkpoints.load_params(GOLDEN / f'{name}.safetensors', num_heads=3)


def stored(shapes):
  """Returns arrays of these shapes that take no memory."""
  zero = np.zeros((), 'f4')
  return {
    key: StoredArray.of(np.broadcast_to(zero, shape), key)
    for key, shape in shapes.items()
  }


def to_ours(arrays):
  return transformers.to_ours(arrays, num_heads=None, source='a file')


def shapes_of(arrays):
  return {key: array.shape for key, array in arrays.items()}


def with_pooler(mini):
  """Returns what a `ViTModel` with a pooler has: no head."""
  params = mini('mini-vit-prelogits').params
  return {key: value for key, value in params.items() if key != 'head'}


def error_of(call, *args, **kwargs) -> str:
  with pytest.raises(errors.CheckpointError) as caught:
    call(*args, **kwargs)
  return str(caught.value)


# --- Files of transformers ----------------------------------------------------


@pytest.mark.parametrize('name', ['classifier', 'pooler', 'no-qkv-bias'])
def test_files_give_the_outputs_of_the_library(name):
  images = parity.make_images(2, 32, 32, 0)
  found = reference.vit_logits(flat(load(name)), images, patch=8, gelu='exact')
  assert parity.relative_error(found, outputs()[name]) < 1e-10


def test_models_give_the_outputs_of_the_library():
  config = small_model.CONFIG | {
    'patches': {'size': (8, 8)},
    'hidden_size': 12,
    'transformer': {'mlp_dim': 24, 'num_heads': 3, 'num_layers': 2},
    'gelu': 'exact',
  }
  model = vit_jax.create_model(config, 5)
  path = GOLDEN / 'classifier.safetensors'
  params = checkpoints.load_pretrained(path, model, 32, fresh_head=False)
  images = parity.make_images(2, 32, 32, 0)
  found = jax.jit(model.apply)({'params': params}, images)
  assert parity.relative_error(found, outputs()['classifier']) < 1e-5


def test_names_on_disk_and_in_memory_are_the_same_model():
  assert_same_bits(load('state-dict'), load('classifier'))


# --- Files of ours ------------------------------------------------------------


def test_library_computed_what_we_compute_from_what_we_wrote(mini):
  cases = {
    'mini-vit': (flat(mini('mini-vit').params), 64),
    'mini-vit-prelogits, no head': (flat(with_pooler(mini)), 32),
  }
  for name, (arrays, size) in cases.items():
    images = parity.make_images(2, size, size, 0)
    found = reference.vit_logits(arrays, images, patch=8, gelu='exact')
    assert parity.relative_error(found, outputs()[name]) < 1e-10


@pytest.mark.parametrize('name', ['classifier', 'pooler'])
def test_we_write_what_the_library_writes(name):
  with files.open_file(GOLDEN / f'{name}.safetensors') as file:
    theirs = read_arrays(file.arrays, file.path)
  ours = transformers.from_ours(flat(load(name)))
  assert_same_bits(
    {key: np.asarray(array, order='C') for key, array in ours.items()}, theirs
  )


@pytest.mark.parametrize('dtype', ['float32', 'float16', ml_dtypes.bfloat16])
@pytest.mark.parametrize('has_head', [True, False])
def test_round_trip_gives_the_same_bits(mini, has_head, dtype, tmp_path):
  params = mini('mini-vit').params if has_head else with_pooler(mini)
  params = jax.tree.map(lambda x: x.astype(dtype), params)
  path = tmp_path / 'model.safetensors'
  checkpoints.save_params(params, path, names='transformers')
  assert_same_bits(checkpoints.load_params(path), params)


@pytest.mark.parametrize(('name', 'text'), [
  ('mini-vit-gap', 'a model without a class token'),
  ('mini-vit-prelogits', 'a pre_logits layer before its head'),
  ('mini-hybrid', 'a hybrid'),
  ('mini-stem-hybrid', 'a hybrid'),
  ('mini-mixer', 'a Mixer'),
])  # fmt: skip
def test_models_that_the_library_does_not_have(mini, name, text):
  found = error_of(transformers.from_ours, flat(mini(name).params))
  assert text in found
  assert "names='timm'" in found


def test_map_head_has_no_name():
  arrays = {'MAPHead_0/probe': np.zeros((1, 1, 3))}
  assert 'a MAP head' in error_of(transformers.from_ours, arrays)


def test_positions_that_the_library_does_not_compute(mini):
  arrays = flat(mini('mini-vit').params)
  arrays.pop('Transformer/posembed_input/pos_embedding')
  assert 'sines' in error_of(transformers.from_ours, arrays)


# --- Hybrids ------------------------------------------------------------------


def hybrid_key(key):
  """Returns what `ViTHybridForImageClassification` calls an array of timm's."""
  bit = 'vit.embeddings.patch_embeddings.backbone.bit.'
  for old, new in (
    (r'patch_embed\.backbone\.stem\.conv\.', f'{bit}embedder.convolution.'),
    (r'patch_embed\.backbone\.stem\.norm\.', f'{bit}embedder.norm.'),
    (
      r'patch_embed\.backbone\.stages\.(\d+)\.blocks\.(\d+)\.',
      rf'{bit}encoder.stages.\1.layers.\2.',
    ),
    (r'patch_embed\.proj\.', 'vit.embeddings.patch_embeddings.projection.'),
    ('cls_token', 'vit.embeddings.cls_token'),
    ('pos_embed', 'vit.embeddings.position_embeddings'),
    (r'blocks\.(\d+)\.norm1\.', r'vit.encoder.layer.\1.layernorm_before.'),
    (r'blocks\.(\d+)\.norm2\.', r'vit.encoder.layer.\1.layernorm_after.'),
    (
      r'blocks\.(\d+)\.attn\.proj\.',
      r'vit.encoder.layer.\1.attention.output.dense.',
    ),
    (r'blocks\.(\d+)\.mlp\.fc1\.', r'vit.encoder.layer.\1.intermediate.dense.'),
    (r'blocks\.(\d+)\.mlp\.fc2\.', r'vit.encoder.layer.\1.output.dense.'),
    (r'norm\.', 'vit.layernorm.'),
    (r'head\.', 'classifier.'),
  ):
    found, count = re.subn(f'^{old}', new, key)
    if count:
      return found
  raise AssertionError(key)


def test_hybrid_is_read():
  path = parity.GOLDEN / 'timm' / 'vit_base_r50_s16_224.layout.json'
  theirs = {}
  for key, shape in json.loads(path.read_text()).items():
    block, is_fused, leaf = key.partition('.attn.qkv.')
    if not is_fused:
      theirs[hybrid_key(key)] = shape
      continue
    layer = block.replace('blocks', 'vit.encoder.layer')
    for name in ('query', 'key', 'value'):
      part = f'{layer}.attention.attention.{name}.{leaf}'
      theirs[part] = (shape[0] // 3, *shape[1:])
  model = vit_jax.create_model('R50+ViT-B_16', 1000)
  _, variables = small_model.output_of(model, (224, 224))
  assert transformers.matches(theirs)
  found = shapes_of(to_ours(stored(theirs)))
  assert found == shapes_of(flat(variables['params']))


# --- Keys ---------------------------------------------------------------------


def test_pooler_beside_a_classifier_is_nothing_of_ours():
  shapes = {'classifier.weight': (5, 3), 'vit.pooler.dense.weight': (3, 3)}
  found = shapes_of(to_ours(stored(shapes)))
  assert found == {'head/kernel': (3, 5), 'vit.pooler.dense.weight': (3, 3)}


def test_key_with_and_without_prefix():
  shapes = {'vit.embeddings.cls_token': (1, 1, 3)}
  shapes['embeddings.cls_token'] = (1, 1, 3)
  text = error_of(to_ours, stored(shapes))
  assert all(key in text for key in shapes)


@pytest.mark.parametrize('key', [
  'vit.embeddings.cls_token',
  'embeddings.patch_embeddings.projection.bias',
  'encoder.layer.11.attention.attention.query.weight',
  'vit.layers.0.layernorm_before.bias',
])  # fmt: skip
def test_keys_tell_the_family(key):
  found = names.find_names(stored({key: (3,), 'odd': (3,)}), 'a file')
  assert names.READERS[found] is transformers


def test_keys_of_a_language_model_are_no_vits():
  keys = [
    'embeddings.word_embeddings.weight',
    'embeddings.position_embeddings.weight',
    'encoder.layer.0.attention.self.query.weight',
    'encoder.layer.0.attention.output.dense.bias',
    'encoder.layer.0.intermediate.dense.bias',
    'encoder.layer.0.output.dense.bias',
    'layernorm.weight',
    'classifier.weight',
    'pooler.dense.bias',
  ]
  assert not transformers.matches(keys)
