"""Every size by name: parameters, key tree, short names; configs that fail."""

import functools
import math
import re

import jax
import jaxtyping
import numpy as np
import parity
import pytest
from flax import traverse_util
from ml_collections import ConfigDict

import vit_jax
from vit_jax import errors
from vit_jax.checkpoints import adapt
from vit_jax.models import variants

# Parameters with 1000 classes at 224 pixels (see `SIDES`).
NUM_PARAMS = {
  'tiny': 202_408,
  'cnn': 201_224,
  'small_8': 2_633_832,
  'small_4': 2_916_456,
  'ViT-Ti_16': 5_717_416,
  'ViT-S_16': 22_050_664,
  'ViT-S_32': 22_878_952,
  'ViT-B_8': 86_576_872,
  'ViT-B_16': 86_567_656,
  'ViT-B_32': 88_224_232,
  'ViT-L_16': 304_326_632,
  'ViT-L_32': 306_535_400,
  'ViT-H_14': 632_045_800,
  'ViT-g_14': 1_012_611_432,
  'ViT-G_14': 1_844_440_680,
  'ViT-S_16-gap-norep': 22_049_896,
  'ViT-S_32-gap-norep': 22_878_184,
  'ViT-B_16-gap-norep': 86_566_120,
  'ViT-B_32-gap-norep': 88_222_696,
  'R+ViT-Ti_16': 6_337_704,
  'R26+ViT-S_32': 36_431_912,
  'R26+ViT-B_32': 101_383_976,
  'R50+ViT-B_16': 98_659_112,
  'R50+ViT-L_32': 328_994_856,
  'Mixer-S_8': 20_646_504,
  'Mixer-S_16': 18_528_264,
  'Mixer-S_32': 19_104_624,
  'Mixer-B_16': 59_880_472,
  'Mixer-B_32': 60_293_428,
  'Mixer-L_16': 208_196_168,
}
MIXERS = {  # Layers, width, channels, tokens: Tolstikhin et al. 2021, table 1.
  'Mixer-S': (8, 512, 2048, 256),
  'Mixer-B': (12, 768, 3072, 384),
  'Mixer-L': (24, 1024, 4096, 512),
}
# The millions of that table, which leaves the head out.
PUBLISHED = {'S_32': 19, 'S_16': 18, 'B_32': 60, 'B_16': 59, 'L_16': 207}
SIDES = {'tiny': 8, 'cnn': 32}
POOLED = {
  'tiny',
  'cnn',
  *(name for name in NUM_PARAMS if re.search('gap|Mix', name)),
}
MLP_DIM_AND_LAYERS = {  # By width, Dosovitskiy et al. 2021, table 1.
  64: (128, 4),
  128: (512, 12),
  192: (768, 12),
  384: (1536, 12),
  768: (3072, 12),
  1024: (4096, 24),
  1280: (5120, 32),
  1408: (6144, 40),  # These two: Zhai et al. 2022, table 2.
  1664: (8192, 48),
}
# Bottlenecks per stage and pixels per token of the hybrids.
STEMS = {
  'R+ViT-Ti_16': ((), 32),
  'R26+ViT-S_32': ((2, 2, 2, 2), 32),
  'R26+ViT-B_32': ((2, 2, 2, 2), 32),
  'R50+ViT-B_16': ((3, 4, 9), 16),
  'R50+ViT-L_32': ((3, 4, 6, 3), 32),
}


@functools.cache
def shapes(name: str, size: int, num_classes: int = 1000) -> dict[str, tuple]:
  """Returns {path: shape} of a model's parameters; nothing is allocated."""
  config = parity.configs()[name]['config'] if name[:4] == 'mini' else name
  model = vit_jax.create_model(config, num_classes)
  images = jax.ShapeDtypeStruct((1, size, size, 3), 'float32')
  params = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  flat = traverse_util.flatten_dict(params, sep='/')
  return {key: array.shape for key, array in flat.items()}


def count_stem(num_layers: tuple[int, ...]) -> tuple[int, int]:
  """Returns the parameters of a ResNet stem and the width it ends with."""
  num_params, width = 7 * 7 * 3 * 64 + 2 * 64, 64
  for stage, num_units in enumerate(num_layers):
    inner = 64 * 2**stage
    for unit in range(num_units):
      # 1x1, 3x3 and 1x1 kernels, then scale and bias of their norms.
      num_params += width * inner + 9 * inner**2 + inner * 4 * inner
      num_params += 2 * (inner + inner + 4 * inner)
      if unit == 0:
        num_params += width * 4 * inner + 2 * 4 * inner
      width = 4 * inner
  return num_params, width


def count_mixer_params(name: str) -> int:
  """Counts a Mixer's parameters by hand, from its name and the paper."""
  size, _, patch = name.partition('_')
  num_blocks, width, channels, hidden = MIXERS[size]
  tokens = (224 // int(patch)) ** 2
  block = 2 * width * channels + channels + width
  block += 2 * tokens * hidden + hidden + tokens
  block += 4 * width  # Two norms.
  stem = int(patch) ** 2 * 3 * width + width
  return stem + num_blocks * block + 2 * width + width * 1000 + 1000


def count_params(name: str) -> int:
  """Counts the parameters by hand, from the model's name and the paper."""
  if name.startswith('Mixer'):
    return count_mixer_params(name)
  if name == 'cnn':  # Two convolutions and two dense layers, with biases.
    return 448 + 4_640 + (2_048 * 64 + 64) + (64 * 1000 + 1000)
  config = variants.model_config(name)
  width, patch = config.hidden_size, config.patches.size[0]
  mlp_dim, num_layers = MLP_DIM_AND_LAYERS[width]
  block = 4 * (width**2 + width)  # Query, key, value, out.
  block += 2 * width * mlp_dim + mlp_dim + width
  block += 4 * width  # Two norms.
  stem, channels, pixels = 0, 3, patch
  if name in STEMS:
    stage_sizes, pixels = STEMS[name]
    stem, channels = count_stem(stage_sizes)
  tokens = (SIDES.get(name, 224) // pixels) ** 2
  class_token = 0 if name in POOLED else 1
  return (
    stem
    + patch**2 * channels * width + width
    + class_token * width
    + (tokens + class_token) * width
    + num_layers * block
    + 2 * width
    + width * 1000 + 1000
  )  # fmt: skip


@pytest.mark.parametrize('name', variants.MODELS)
def test_number_of_parameters(name):
  found = shapes(name, SIDES.get(name, 224))
  num_params = sum(math.prod(shape) for shape in found.values())
  assert num_params == NUM_PARAMS[name] == count_params(name)


@pytest.mark.parametrize(('name', 'millions'), PUBLISHED.items())
def test_mixers_are_as_large_as_published(name, millions):
  head = 1001 * MIXERS[f'Mixer-{name[0]}'][1]
  assert round((NUM_PARAMS[f'Mixer-{name}'] - head) / 1e6) == millions


@pytest.mark.parametrize('name', parity.MINIS + parity.FULL_SIZES)
def test_keys_and_shapes_are_those_of_the_published_files(name):
  if name in parity.FULL_SIZES:
    found = shapes(name.removesuffix('-224'), 224)
  else:
    fields = parity.configs()[name]
    found = shapes(name, fields['image_size'], fields['num_classes'])
  renamed = {}
  for key, shape in parity.layout(name).items():
    for old, new in (
      ('LayerNorm_2', 'LayerNorm_1'),
      ('MlpBlock_3', 'MlpBlock_0'),
      ('DotProductAttention_1', 'DotProductAttention_0'),
    ):
      key = key.replace(old, new)
    renamed[key] = shape[3:] if shape[:3] == (1, 1, 1) else shape
  assert found == renamed


@pytest.mark.parametrize(('short', 'name'), variants.SHORT_NAMES.items())
def test_short_names(short, name):
  config = vit_jax.model_config(short)
  assert config == vit_jax.model_config(name)
  assert config.model_name == name
  assert vit_jax.create_model(short, 10) == vit_jax.create_model(config, 10)


def test_every_model_has_one_short_name():
  assert sorted(variants.SHORT_NAMES.values()) == sorted(variants.MODELS)


@pytest.mark.parametrize('name', variants.MODELS)
def test_class_token_unless_pooled(name):
  found = shapes(name, SIDES.get(name, 224))
  assert ('cls' in found) == (name not in POOLED)


def test_configs_are_fresh_and_editable():
  config = vit_jax.model_config('r50_b16')
  config.transformer.num_layers = 5
  config.resnet.width_factor = 0.5
  config.patches.size = (2, 3)
  assert vit_jax.model_config('r50_b16').transformer.num_layers == 12
  model = vit_jax.create_model(config, 10)
  assert model.num_layers == 5
  assert model.resnet_width_factor == 0.5
  assert model.patch_size == (2, 3)


def test_config_without_a_stem_may_say_so():
  config = vit_jax.model_config('tiny')
  config.resnet = None
  assert vit_jax.create_model(config, 7) == vit_jax.create_model('tiny', 7)


def error_of(call, *args, **kwargs) -> str:
  with pytest.raises(errors.ConfigError) as caught:
    call(*args, **kwargs)
  return str(caught.value)


def tiny_with(**fields) -> ConfigDict:
  """Returns the `tiny` config with dotted fields (`a__b` for a.b) set."""
  config = vit_jax.model_config('tiny').to_dict()
  for path, value in fields.items():
    *parents, leaf = path.split('__')
    node = functools.reduce(dict.__getitem__, parents, config)
    node[leaf] = value
  return ConfigDict(config)


@pytest.mark.parametrize('call', [
  vit_jax.model_config,
  functools.partial(vit_jax.create_model, num_classes=10),
])  # fmt: skip
@pytest.mark.parametrize(('wrong', 'right'), [
  ('ViT-B16', 'ViT-B_16'), ('vit-h_14', 'ViT-H_14'), ('r50b16', 'r50_b16'),
])  # fmt: skip
def test_unknown_name(call, wrong, right):
  text = error_of(call, wrong)
  assert f"Unknown model '{wrong}'. Did you mean '{right}'?" in text
  assert 'R26+ViT-S_32' in text


@pytest.mark.parametrize(('field', 'wrong', 'right'), [
  ('hiden_size', 'model.hiden_size', 'model.hidden_size'),
  (
    'transformer__num_layer',
    'model.transformer.num_layer',
    'model.transformer.num_layers',
  ),
])  # fmt: skip
def test_unknown_field(field, wrong, right):
  text = error_of(vit_jax.create_model, tiny_with(**{field: 3}), 10)
  assert f"Unknown config field '{wrong}'. Did you mean '{right}'?" in text


@pytest.mark.parametrize(('field', 'value', 'text'), [
  ('hidden_size', 66, 'hidden_size 66 is not a multiple of num_heads 4'),
  ('transformer__num_heads', 0, 'num_heads 0 is not positive'),
  ('transformer__mlp_dim', -1, 'mlp_dim -1 is not positive'),
  ('patches__size', 4, 'patches.size 4 is not a positive (height, width)'),
  ('patches__size', (4,), 'patches.size (4,) is not a positive'),
  ('patches__size', (4, 0), 'patches.size (4, 0) is not a positive'),
  ('patches', 4, 'model.patches is 4, expected one with the fields size'),
  ('classifier', 'tokens', "'tokens'. Did you mean 'token'?"),
  ('gelu', 'exakt', "Unknown gelu 'exakt'. Did you mean 'exact'?"),
  ('gelu', None, "Unknown gelu 'None'. Valid: exact, tanh."),
  (
    'position_embedding',
    'sincos',
    "Unknown position_embedding 'sincos'. Did you mean 'sincos2d'?",
  ),
  ('transformer__dropout_rate', 1.0, 'dropout_rate 1.0 is not in [0, 1)'),
  ('transformer__attention_dropout_rate', -0.1, 'attention_dropout_rate -0.1'),
  ('transformer__drop_path_rate', 2, 'drop_path_rate 2 is not in [0, 1)'),
  (
    'resnet',
    {'num_layers': (1,), 'width_factor': 0.75},
    'width_factor 0.75 gives 48 features',
  ),
  (
    'resnet',
    {'num_layers': (), 'width_factor': 0.01},
    'width_factor 0.01 gives 0 features',
  ),
])  # fmt: skip
def test_value_that_cannot_work(field, value, text):
  assert text in error_of(vit_jax.create_model, tiny_with(**{field: value}), 10)


def test_all_problems_in_one_error():
  config = tiny_with(
    hidden_size=65,
    classifier='mean',
    transformer__dropout_rate=1.5,
    transformer__drop_path_rate=-0.5,
  )
  text = error_of(vit_jax.create_model, config, 10)
  assert "Model 'tiny'" in text
  for part in ('hidden_size 65', "'mean'", 'dropout_rate 1.5', 'rate -0.5'):
    assert part in text


@pytest.mark.parametrize('num_classes', [0, -3])
def test_head_has_at_least_one_class(num_classes):
  text = error_of(vit_jax.create_model, 'tiny', num_classes)
  assert f"Model 'tiny': num_classes {num_classes} is not positive" in text
  assert 'None gives the features' in text


def test_missing_fields_are_named():
  config = {'model_name': 'mine', 'patches': {}, 'transformer': {'mlp_dim': 7}}
  text = error_of(vit_jax.create_model, config, 10)
  assert "Model 'mine'" in text
  for field in ('patch_size', 'hidden_size', 'num_layers', 'num_heads'):
    assert f'{field} is missing' in text
  assert 'mlp_dim' not in text


@pytest.mark.parametrize('field', ['dtype', 'param_dtype'])
def test_unknown_dtype(field):
  text = error_of(vit_jax.create_model, 'tiny', 10, **{field: 'bf16'})
  assert "'bf16'" in text
  assert "'bfloat16'" in text


def test_annotated_shapes_are_checked_in_tests():
  embedding = np.zeros((2, 5, 3), 'f4')  # Of one image, so it starts with 1.
  with pytest.raises(jaxtyping.TypeCheckError, match='embedding'):
    adapt.resize_position_embedding(embedding, (3, 2), True)
