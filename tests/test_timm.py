"""Tests of timm's names, against files and logits of timm itself.

In `golden/timm`, recorded with timm 1.0.31 and torch 2.9.1 on a CPU:
`mini-*.safetensors` and `*.layout.json` are the parity data's. The other files
are `state_dict`s of `VisionTransformer(img_size=32, patch_size=8, embed_dim=12,
depth=2, num_heads=3, mlp_ratio=2, num_classes=5)` with random weights and one
setting that the file is named after. `logits.json` has the outputs in float64,
with timm's exact GELU, on `parity.make_images(2, size, size, 0)`: of these
files and of the seed-0 minis, which timm loaded as we write them.
"""

import functools
import json

import jax
import ml_dtypes
import numpy as np
import parity
import pytest
import reference
import small_model
from flax import traverse_util
from trees import assert_same_bits, flat

import vit_jax
from vit_jax import checkpoints, errors
from vit_jax.checkpoints import files, names
from vit_jax.checkpoints.arrays import StoredArray, read_arrays
from vit_jax.checkpoints.names import heads, timm

GOLDEN = parity.GOLDEN / 'timm'
HYBRIDS = {
  'vit_base_r50_s16_224': 'R50+ViT-B_16',
  'vit_small_r26_s32_224': 'R26+ViT-S_32',
  'vit_tiny_r_s16_p8_224': 'R+ViT-Ti_16',
}
POSITIONS = 'Transformer/posembed_input/pos_embedding'
ATTENTION = 'Transformer/encoderblock_0/MultiHeadDotProductAttention_0'


@functools.cache
def logits():
  return json.loads((GOLDEN / 'logits.json').read_text())


def load(name, **kwargs):
  return checkpoints.load_params(GOLDEN / f'{name}.safetensors', **kwargs)


def stored(shapes, dtype='float32'):
  """Returns arrays of these shapes that take no memory."""
  zero = np.zeros((), dtype)
  return {
    key: StoredArray.of(np.broadcast_to(zero, shape), key)
    for key, shape in shapes.items()
  }


def to_ours(arrays, num_heads=None, **kwargs):
  return timm.to_ours(arrays, num_heads=num_heads, source='a file', **kwargs)


def shapes_of(arrays):
  return {key: array.shape for key, array in arrays.items()}


def error_of(call, *args, **kwargs) -> str:
  with pytest.raises(errors.CheckpointError) as caught:
    call(*args, **kwargs)
  return str(caught.value)


def mini_model(name):
  """Returns (model with exact GELU, images) of a parity model or 'mini-map'."""
  fields = parity.configs()[name.replace('map', 'vit')]
  config = fields['config'] | {'gelu': 'exact'}
  if name == 'mini-map':
    config |= {'classifier': 'map'}
  size = fields['image_size']
  model = vit_jax.create_model(config, fields['num_classes'])
  return model, parity.make_images(2, size, size, 0)


def mini_params(name, mini):
  if name != 'mini-map':
    return mini(name).params
  model, images = mini_model(name)
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  layout = {key: array.shape for key, array in flat(shapes).items()}
  return traverse_util.unflatten_dict(
    parity.make_checkpoint(layout, 0), sep='/'
  )


# --- Files of timm ------------------------------------------------------------


@pytest.mark.parametrize('name', ['mini-vit', 'mini-vit-gap'])
def test_parity_files_are_the_published_ones(mini, name):
  case = mini(name)
  params = load(name, num_heads=3)
  assert_same_bits(params, case.params)
  found, _ = case.apply(params, case.images)
  wanted = parity.expected()[f'{name}/logits']
  assert parity.relative_error(found, wanted) < 1e-5
  # timm's GELU is exact, the published weights' is not.
  assert 1e-5 < parity.relative_error(logits()[name], found) < 3e-4


@pytest.mark.parametrize(('name', 'tolerance'), [
  ('mini-vit', 1e-5),
  ('mini-vit-gap', 1e-5),
  ('mini-map', 1e-5),
  ('mini-mixer', 1e-5),
  ('mini-stem-hybrid', 1e-5),
  ('mini-hybrid, std + 1e-5', 1e-5),
  # timm adds 1e-8 to the variance of a kernel, not 1e-5 to its deviation.
  ('mini-hybrid', 1e-4),
])  # fmt: skip
def test_exact_gelu_gives_timms_logits(mini, name, tolerance):
  model_name = name.split(',')[0]
  model, images = mini_model(model_name)
  found = jax.jit(model.apply)(
    {'params': mini_params(model_name, mini)}, images
  )
  assert parity.relative_error(found, logits()[name]) < tolerance


@pytest.mark.parametrize(('name', 'classifier'), [
  ('no-embed-class', 'token'),
  ('no-qkv-bias', 'token'),
  ('map', 'map'),
])  # fmt: skip
def test_files_with_settings_of_their_own(name, classifier):
  found = reference.vit_logits(
    flat(load(name, num_heads=3)),
    parity.make_images(2, 32, 32, 0),
    patch=8,
    classifier=classifier,
    gelu='exact',
  )
  assert parity.relative_error(found, logits()[name]) < 1e-10


def test_norm_after_pooling_is_no_norm_of_ours():
  params = flat(load('fc-norm', num_heads=3))
  assert 'fc_norm.weight' in params
  assert 'Transformer/encoder_norm/scale' not in params
  fields = parity.configs()['mini-vit-gap']
  config = fields['config'] | {'hidden_size': 12}
  config['transformer'] = config['transformer'] | {'mlp_dim': 24}
  model = vit_jax.create_model(config, 5)
  text = error_of(
    checkpoints.load_pretrained, GOLDEN / 'fc-norm.safetensors', model, 32
  )
  assert 'fc_norm.weight' in text
  assert 'Transformer/encoder_norm/scale' in text


# --- Layouts ------------------------------------------------------------------


@pytest.mark.parametrize('name', HYBRIDS)
def test_hybrids_convert_both_ways(name):
  theirs = {
    key: tuple(shape)
    for key, shape in json.loads(
      (GOLDEN / f'{name}.layout.json').read_text()
    ).items()
  }
  ours = to_ours(stored(theirs))
  model = vit_jax.create_model(HYBRIDS[name], 1000)
  _, variables = small_model.output_of(model, (224, 224))
  assert shapes_of(ours) == shapes_of(flat(variables['params']))
  back = timm.from_ours({key: array.read() for key, array in ours.items()})
  assert shapes_of(back) == theirs


@pytest.mark.parametrize('name', HYBRIDS)
def test_hybrids_convert_both_ways_to_the_bit(name):
  layout = json.loads((GOLDEN / f'{name}.layout.json').read_text())
  sizes = {size for shape in layout.values() for size in shape}
  rng = np.random.default_rng(0)
  # All but kernel sizes and colours become small, and stay multiples.
  small = {size: size if size < 10 else max(1, size // 32) for size in sizes}
  theirs = {
    key: rng.normal(size=[small[size] for size in shape]).astype('f4')
    for key, shape in layout.items()
  }
  ours = to_ours(
    {key: StoredArray.of(array, key) for key, array in theirs.items()},
    num_heads=3,
    has_class_slot=True,
  )
  back = timm.from_ours({key: array.read() for key, array in ours.items()})
  assert_same_bits(back, theirs)


@pytest.mark.parametrize('dtype', ['float32', 'float16', ml_dtypes.bfloat16])
@pytest.mark.parametrize('name', [*parity.MINIS, 'mini-map'])
def test_round_trip_gives_the_same_bits(mini, name, dtype, tmp_path):
  params = jax.tree.map(lambda x: x.astype(dtype), mini_params(name, mini))
  path = tmp_path / 'model.safetensors'
  checkpoints.save_params(params, path, names='timm')
  assert_same_bits(checkpoints.load_params(path), params)


@pytest.mark.parametrize('name', ['mini-vit', 'mini-vit-gap'])
def test_we_write_what_timm_writes(mini, name):
  with files.open_file(GOLDEN / f'{name}.safetensors') as file:
    theirs = read_arrays(file.arrays, file.path)
  ours = timm.from_ours(flat(mini(name).params))
  assert_same_bits(
    {key: np.asarray(array, order='C') for key, array in ours.items()}, theirs
  )


def test_nothing_is_read_to_rename():
  def read():
    raise AssertionError

  layout = json.loads(
    (GOLDEN / 'vit_tiny_r_s16_p8_224.layout.json').read_text()
  )
  arrays = {
    key: StoredArray(key, tuple(shape), np.dtype('f4'), read)
    for key, shape in layout.items()
  }
  assert to_ours(arrays)['head/kernel'].shape == (192, 1000)


def test_unknown_keys_keep_their_names():
  shapes = {
    'blocks.0.ls1.gamma': (5,),
    'blocks.00.norm1.weight': (5,),
    'patch_embed.backbone.stages.0.blocks.0.conv4.weight': (5,),
    'reg_token': (1, 4, 5),
  }
  assert shapes_of(to_ours(stored(shapes))) == shapes


def test_arrays_of_the_wrong_shape_stay_to_be_reported():
  shapes = {
    'patch_embed.proj.weight': (6, 7),
    'blocks.0.attn.qkv.weight': (17, 6),
    'blocks.0.attn.qkv.bias': (),
    'cls_token': (6,),
    'pos_embed': (4, 6),
  }
  found = shapes_of(to_ours(stored(shapes), num_heads=3))
  assert found['embedding/kernel'] == (6, 7)
  assert found[f'{ATTENTION}/query/kernel'] == (17, 6)
  assert found[f'{ATTENTION}/value/bias'] == ()
  assert found[POSITIONS] == (4, 6)


# --- Heads and biases ---------------------------------------------------------


def qkv(width, block=0):
  return {f'blocks.{block}.attn.qkv.weight': (3 * width, width)}


@pytest.mark.parametrize(('width', 'heads'), [
  (192, 3), (384, 6), (512, 8), (768, 12), (1024, 16), (1280, 16),
])  # fmt: skip
def test_heads_of_published_widths(width, heads):
  found = to_ours(stored(qkv(width)))[f'{ATTENTION}/query/kernel']
  assert found.shape == (width, heads, width // heads)


def test_heads_that_nobody_says():
  text = error_of(to_ours, stored(qkv(48)))
  assert 'a file: its width is 48' in text
  assert 'load_params(path, num_heads=N)' in text


@pytest.mark.parametrize('num_heads', [0, -3, 5])
def test_heads_that_do_not_divide_the_width(num_heads):
  text = error_of(to_ours, stored(qkv(48)), num_heads)
  assert f'48 can not be divided into {num_heads}' in text


def test_a_file_without_biases_has_zeros():
  found = to_ours(stored({**qkv(6), **qkv(6, block=1)}, 'f2'), 3)
  for block in range(2):
    for name in ('query', 'key', 'value'):
      bias = found[f'{ATTENTION.replace("0", str(block), 1)}/{name}/bias']
      assert bias.shape == (3, 2)
      assert bias.dtype == np.dtype('f2')
      assert not bias.read().any()


def test_a_single_missing_bias_stays_missing():
  shapes = {**qkv(6), **qkv(6, block=1), 'blocks.1.attn.qkv.bias': (18,)}
  found = to_ours(stored(shapes), 3)
  assert f'{ATTENTION}/query/bias' not in found


@pytest.mark.parametrize('text', ['', '0', '-3', '3.0', 'x', '9' * 5000, '²'])
def test_heads_that_a_file_does_not_say_well(text):
  found = error_of(heads.from_metadata, {'num_heads': text}, 'a file')
  assert f'a file: its metadata say num_heads {text[:20]!r}' in found


def test_heads_that_a_file_says():
  assert heads.from_metadata({'num_heads': '3'}, 'a file') == 3
  assert heads.from_metadata({'format': 'pt'}, 'a file') is None


@pytest.mark.parametrize(('name', 'expected'), [
  ('mini-vit', {'num_heads': '3'}), ('mini-mixer', {}),
])  # fmt: skip
def test_heads_of_parameters(mini, name, expected):
  assert heads.to_metadata(flat(mini(name).params)) == expected


# --- What can't be said -------------------------------------------------------


def test_two_spellings_of_one_array():
  shapes = {
    'patch_embed.backbone.stem.conv.weight': (5, 3, 7, 7),
    'patch_embed.backbone.conv.weight': (5, 3, 7, 7),
  }
  text = error_of(to_ours, stored(shapes))
  assert 'found two' in text
  assert all(key in text for key in shapes)


def test_all_that_has_no_name_is_listed(mini):
  arrays = flat(mini('mini-vit').params)
  del arrays[f'{ATTENTION}/key/kernel']
  bias = f'{ATTENTION}/key/bias'
  embedding = {'embedding/kernel': np.zeros(3), bias: np.zeros((3, 5))}
  text = error_of(
    timm.from_ours, arrays | embedding | {'odd/one': np.zeros((2, 3))}
  )
  assert 'odd/one (2, 3) has no name' in text
  assert 'embedding/kernel has the shape (3,)' in text
  assert 'blocks.0.attn.qkv.weight is missing parts' in text
  assert 'blocks.0.attn.qkv.bias would have parts of different' in text


def test_positions_that_timm_does_not_compute(mini):
  arrays = flat(mini('mini-vit-gap').params)
  del arrays[POSITIONS]
  text = error_of(timm.from_ours, arrays)
  assert POSITIONS in text
  assert '.npz' in text


@pytest.mark.parametrize(('keys', 'family'), [
  (['patch_embed.proj.weight', 'odd'], timm),
  (['blocks.3.norm1.weight', 'norm.bias'], timm),
  (['stem.proj.bias'], timm),
  (['stem/bias'], names.google),
])  # fmt: skip
def test_keys_tell_the_family(keys, family):
  found = names.find_names(stored(dict.fromkeys(keys, (3,))), 'a file')
  assert names.READERS[found] is family


def test_keys_of_any_network_are_no_vits():
  keys = ['norm.weight', 'head.bias', 'layers.0.blocks.0.norm1.weight']
  assert not timm.matches(keys)
