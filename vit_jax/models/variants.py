"""The model sizes by name, as editable configs with the original's fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vit_jax import errors

if TYPE_CHECKING:
  from ml_collections import ConfigDict

Fields = dict[str, Any]


def _vit(
  name: str,
  patch: int,
  hidden_size: int,
  mlp_dim: int,
  num_heads: int,
  num_layers: int,
  *,
  dropout_rate: float = 0.0,
  classifier: str = 'token',
) -> Fields:
  return {
    'model_name': name,
    'patches': {'size': (patch, patch)},
    'hidden_size': hidden_size,
    'transformer': {
      'mlp_dim': mlp_dim,
      'num_heads': num_heads,
      'num_layers': num_layers,
      # Chance that an element is zeroed after the embedding, the attention
      # and each dense layer of the MLP.
      'dropout_rate': dropout_rate,
      # Chance that one attention weight is zeroed.
      'attention_dropout_rate': 0.0,
      # Chance that the last block is skipped for an example; earlier blocks
      # have a share of it that grows linearly with depth.
      'drop_path_rate': 0.0,
    },
    # 'token', 'gap', 'map', 'unpooled' or 'token_unpooled'.
    'classifier': classifier,
    'position_embedding': 'learned',  # Or 'sincos2d'.
    # 'tanh' as Google's weights were trained, or 'exact'.
    'gelu': 'tanh',
    # Width of the dense + tanh layer before the head, or None for no layer.
    'representation_size': None,
    # The head's bias at the start; below zero for many rare classes.
    'head_bias_init': 0.0,
  }


def _mixer(
  name: str,
  patch: int,
  num_blocks: int,
  hidden_dim: int,
  channels_mlp_dim: int,
  tokens_mlp_dim: int,
) -> Fields:
  return {
    'model_name': name,
    'patches': {'size': (patch, patch)},
    'hidden_dim': hidden_dim,
    'num_blocks': num_blocks,
    'tokens_mlp_dim': tokens_mlp_dim,
    'channels_mlp_dim': channels_mlp_dim,
    'gelu': 'tanh',
    'head_bias_init': 0.0,
  }


def _convnet() -> Fields:
  """A small classifier of our own for 32x32 pixels, without weights as well."""
  return {
    'model_name': 'cnn',
    # Of each convolution; a pooling by 2 follows it.
    'conv_features': (16, 32),
    'conv_kernel_size': 3,
    'dense_size': 64,
    # Chance that an output of the dense layer is zeroed.
    'dropout_rate': 0.0,
    'head_bias_init': 0.0,
  }


def _hybrid(fields: Fields, num_layers: tuple[int, ...]) -> Fields:
  return fields | {'resnet': {'num_layers': num_layers, 'width_factor': 1.0}}


def _tiny() -> Fields:
  """A model of our own for 8x8 scans; there are no published weights."""
  return _vit('tiny', 4, 64, 128, 4, 4, classifier='gap')


def _small(name: str, patch: int) -> Fields:
  """For images of 32 pixels; there are no published weights."""
  return _vit(name, patch, 128, 512, 4, 12)


def _ti(name: str, patch: int, **kwargs) -> Fields:
  return _vit(name, patch, 192, 768, 3, 12, **kwargs)


def _s(name: str, patch: int, **kwargs) -> Fields:
  return _vit(name, patch, 384, 1536, 6, 12, **kwargs)


def _b(name: str, patch: int, **kwargs) -> Fields:
  return _vit(name, patch, 768, 3072, 12, 12, **kwargs)


def _l(name: str, patch: int, **kwargs) -> Fields:
  return _vit(name, patch, 1024, 4096, 16, 24, **kwargs)


def _h(name: str, patch: int, **kwargs) -> Fields:
  return _vit(name, patch, 1280, 5120, 16, 32, **kwargs)


def _giant(name: str, patch: int, **kwargs) -> Fields:
  """The 'g' of Zhai et al. 2022, arXiv 2106.04560, table 2."""
  return _vit(name, patch, 1408, 6144, 16, 40, **kwargs)


def _gigantic(name: str, patch: int, **kwargs) -> Fields:
  """The 'G' of the same table."""
  return _vit(name, patch, 1664, 8192, 16, 48, **kwargs)


def _mixer_s(name: str, patch: int) -> Fields:
  return _mixer(name, patch, 8, 512, 2048, 256)


def _mixer_b(name: str, patch: int) -> Fields:
  return _mixer(name, patch, 12, 768, 3072, 384)


def _mixer_l(name: str, patch: int) -> Fields:
  return _mixer(name, patch, 24, 1024, 4096, 512)


# The names are the base names of the published files. The dropout rates are
# those with which the original fine-tunes.
MODELS: dict[str, Callable[[], Fields]] = {
  'tiny': _tiny,
  'cnn': _convnet,
  'small_8': lambda: _small('small_8', 8),
  'small_4': lambda: _small('small_4', 4),
  'ViT-Ti_16': lambda: _ti('ViT-Ti_16', 16),
  'ViT-S_16': lambda: _s('ViT-S_16', 16),
  'ViT-S_32': lambda: _s('ViT-S_32', 32),
  'ViT-B_8': lambda: _b('ViT-B_8', 8),
  'ViT-B_16': lambda: _b('ViT-B_16', 16),
  'ViT-B_32': lambda: _b('ViT-B_32', 32),
  'ViT-L_16': lambda: _l('ViT-L_16', 16, dropout_rate=0.1),
  'ViT-L_32': lambda: _l('ViT-L_32', 32),
  'ViT-H_14': lambda: _h('ViT-H_14', 14, dropout_rate=0.1),
  # No weights of these two are published.
  'ViT-g_14': lambda: _giant('ViT-g_14', 14),
  'ViT-G_14': lambda: _gigantic('ViT-G_14', 14),
  'ViT-S_16-gap-norep': lambda: _s('ViT-S_16-gap-norep', 16, classifier='gap'),
  'ViT-S_32-gap-norep': lambda: _s('ViT-S_32-gap-norep', 32, classifier='gap'),
  'ViT-B_16-gap-norep': lambda: _b('ViT-B_16-gap-norep', 16, classifier='gap'),
  'ViT-B_32-gap-norep': lambda: _b('ViT-B_32-gap-norep', 32, classifier='gap'),
  # The stem alone divides by 4, so this one sees 32x32 pixels per token in
  # spite of its name.
  'R+ViT-Ti_16': lambda: _hybrid(_ti('R+ViT-Ti_16', 8), ()),
  'R26+ViT-S_32': lambda: _hybrid(_s('R26+ViT-S_32', 1), (2, 2, 2, 2)),
  'R26+ViT-B_32': lambda: _hybrid(_b('R26+ViT-B_32', 1), (2, 2, 2, 2)),
  # Three stages, so that a token is 16 pixels wide; the blocks of ResNet-50's
  # fourth stage were added to the third.
  'R50+ViT-B_16': lambda: _hybrid(
    _b('R50+ViT-B_16', 1, dropout_rate=0.1), (3, 4, 9)
  ),
  'R50+ViT-L_32': lambda: _hybrid(
    _l('R50+ViT-L_32', 1, dropout_rate=0.1), (3, 4, 6, 3)
  ),
  'Mixer-S_8': lambda: _mixer_s('Mixer-S_8', 8),
  'Mixer-S_16': lambda: _mixer_s('Mixer-S_16', 16),
  'Mixer-S_32': lambda: _mixer_s('Mixer-S_32', 32),
  'Mixer-B_16': lambda: _mixer_b('Mixer-B_16', 16),
  'Mixer-B_32': lambda: _mixer_b('Mixer-B_32', 32),
  'Mixer-L_16': lambda: _mixer_l('Mixer-L_16', 16),
}

# What a config argument such as `configs/vit.py:b16,cifar10` calls a model.
SHORT_NAMES = {
  'tiny': 'tiny',
  'cnn': 'cnn',
  'small8': 'small_8',
  'small4': 'small_4',
  'ti16': 'ViT-Ti_16',
  's16': 'ViT-S_16',
  's32': 'ViT-S_32',
  'b8': 'ViT-B_8',
  'b16': 'ViT-B_16',
  'b32': 'ViT-B_32',
  'l16': 'ViT-L_16',
  'l32': 'ViT-L_32',
  'h14': 'ViT-H_14',
  'g14': 'ViT-g_14',
  'G14': 'ViT-G_14',
  's16_gap_norep': 'ViT-S_16-gap-norep',
  's32_gap_norep': 'ViT-S_32-gap-norep',
  'b16_gap_norep': 'ViT-B_16-gap-norep',
  'b32_gap_norep': 'ViT-B_32-gap-norep',
  'r_ti16': 'R+ViT-Ti_16',
  'r26_s32': 'R26+ViT-S_32',
  'r26_b32': 'R26+ViT-B_32',
  'r50_b16': 'R50+ViT-B_16',
  'r50_l32': 'R50+ViT-L_32',
  # `configs/mixer.py:b16,cifar10` leaves the first part out.
  'mixer_s8': 'Mixer-S_8',
  'mixer_s16': 'Mixer-S_16',
  'mixer_s32': 'Mixer-S_32',
  'mixer_b16': 'Mixer-B_16',
  'mixer_b32': 'Mixer-B_32',
  'mixer_l16': 'Mixer-L_16',
}


def model_config(name: str) -> ConfigDict:
  """Returns a fresh, editable config of the model called `name`.

  Args:
    name: a published name such as 'ViT-B_16' or a short one such as 'b16'.

  Raises:
    ConfigError: no model has that name; the text names the closest one.
  """
  name_in_full = SHORT_NAMES.get(name, name)
  if name_in_full not in MODELS:
    raise errors.ConfigError(
      errors.unknown_name('model', name, [*MODELS, *SHORT_NAMES])
    )
  # Here, as it takes longer to load than what only compares sizes has.
  from ml_collections import ConfigDict
  from ml_collections.config_dict import placeholder

  fields = MODELS[name_in_full]()
  if 'representation_size' in fields:
    fields['representation_size'] = placeholder(int)
  return ConfigDict(fields, convert_dict=True)


def spatial_transformer_config() -> ConfigDict:
  """Returns what `config.spatial_transformer` of a ViT or ConvNet may be.

  Without it, no spatial transformer stands before the model.
  """
  from ml_collections import ConfigDict

  return ConfigDict(
    {
      # Side in pixels of what the localisation network sees; images of another
      # size are resized for it, and for it alone.
      'size': 32,
      # Of its convolutions; a pooling by 2 follows each.
      'features': (8, 16),
      'kernel_size': 5,
      # Width of its dense layer.
      'hidden_dim': 32,
    }
  )
