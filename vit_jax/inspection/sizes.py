"""Reads a model's sizes from the shapes of its parameters."""

import collections
import itertools
import math
import re
from collections.abc import Mapping
from typing import Any

from vit_jax import errors
from vit_jax.checkpoints.arrays import StoredArray
from vit_jax.inspection import layout

Flat = Mapping[str, StoredArray]

_BLOCK = 'Transformer/encoderblock_0'
_QUERY = f'{_BLOCK}/MultiHeadDotProductAttention_0/query/kernel'
_MLP = f'{_BLOCK}/MlpBlock_0/Dense_0/kernel'
_TOKENS_MLP = 'MixerBlock_0/token_mixing/Dense_0/kernel'
_CHANNELS_MLP = 'MixerBlock_0/channel_mixing/Dense_0/kernel'
_LOCALISATION = 'spatial_transformer/'
# What has to be there, with its number of dims, and what may be.
_VIT_RANKS = {'embedding/kernel': 4, _QUERY: 3, _MLP: 2}
_MIXER_RANKS = {'stem/kernel': 4, _TOKENS_MLP: 2, _CHANNELS_MLP: 2}
_CONVNET_RANKS = {'conv_0/kernel': 4, 'hidden/kernel': 2}
_LOCALISATION_RANKS = {
  f'{_LOCALISATION}{key}': rank for key, rank in _CONVNET_RANKS.items()
}
_OTHER_RANKS = {
  layout.POSITIONS: 3,
  'conv_root/kernel': 4,
  'pre_logits/kernel': 2,
  'head/kernel': 2,
}


# What a file has beyond is unknown, as no model has as many.
_MAX_BLOCKS, _MAX_STAGES = 200, 8
_MAX_CONVOLUTIONS = 10


def read_sizes(flat: Flat, source: str) -> dict[str, Any]:
  """Returns the fields of a `Description` that shapes say.

  Args:
    flat: by our names; no values are read.
    source: the file, for the text of an error.

  Raises:
    CheckpointError: keys or dims are missing that the sizes are read from.
  """
  ranks, read = _VIT_RANKS, _vit_sizes
  if 'stem/kernel' in flat:
    ranks, read = _MIXER_RANKS, _mixer_sizes
  elif 'conv_0/kernel' in flat:
    ranks, read = _CONVNET_RANKS, _convnet_sizes
  if any(key.startswith(_LOCALISATION) for key in flat):
    ranks = ranks | _LOCALISATION_RANKS
  problems = [f'  {key} is missing' for key in ranks if key not in flat]
  for key, rank in (ranks | _OTHER_RANKS).items():
    shape = flat[key].shape if key in flat else (1,) * rank
    if len(shape) != rank or 0 in shape:
      problems.append(f'  {key}: found {shape}, expected {rank} dims')
  if problems:
    raise errors.CheckpointError(
      f'{source}: not the weights of a Vision Transformer, a hybrid or a Mixer '
      'as they are known here:\n' + '\n'.join(problems)
    )
  sizes = read(flat) | {'spatial_transformer': _localisation(flat)}
  head = flat.get('head/kernel')
  sizes |= _grid(sizes)
  sizes['num_classes'] = head.shape[1] if head else None
  expected = layout.parameters(sizes)
  sizes['unknown'] = tuple(
    sorted(k for k in flat if expected.get(k) != flat[k].shape)
  )
  sizes['missing'] = tuple(sorted({*expected} - {*flat}))
  return sizes


def config_fields(sizes: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what a model's config has for the sizes, by dotted field."""
  if sizes['family'] == 'Mixer':
    fields = {
      'hidden_dim': 'width',
      'num_blocks': 'depth',
      'tokens_mlp_dim': 'tokens_mlp_dim',
      'channels_mlp_dim': 'mlp_dim',
    }
  elif sizes['family'] == 'ConvNet':
    fields = {
      'conv_features': 'conv_features',
      'conv_kernel_size': 'conv_kernel_size',
      'dense_size': 'width',
    }
  else:
    fields = {
      'hidden_size': 'width',
      'transformer.mlp_dim': 'mlp_dim',
      'transformer.num_heads': 'num_heads',
      'transformer.num_layers': 'depth',
      'classifier': 'classifier',
      'position_embedding': 'position_embedding',
    }
  if sizes['family'] == 'hybrid':
    fields |= {
      'resnet.num_layers': 'resnet_num_layers',
      'resnet.width_factor': 'resnet_width_factor',
    }
  if sizes['family'] != 'ConvNet':
    fields['patches.size'] = 'patch'
  found = {field: sizes[name] for field, name in fields.items()}
  for name, value in (sizes['spatial_transformer'] or {}).items():
    found[f'spatial_transformer.{name}'] = value
  return found


def _vit_sizes(flat: Flat) -> dict[str, Any]:
  *patch, _, width = flat['embedding/kernel'].shape
  num_slots = int('cls' in flat)
  positions = flat.get(layout.POSITIONS)
  pre_logits = flat.get('pre_logits/kernel')
  stem = flat.get('conv_root/kernel')
  pooling = 'token' if num_slots else 'gap'
  return {
    'family': 'hybrid' if stem else 'ViT',
    'patch': tuple(patch),
    'width': width,
    'depth': _count(flat, r'Transformer/encoderblock_(\d+)/.+'),
    'mlp_dim': flat[_MLP].shape[1],
    'tokens_mlp_dim': None,
    'conv_features': None,
    'conv_kernel_size': None,
    'num_heads': flat[_QUERY].shape[1],
    'resnet_num_layers': _stages(flat) if stem else None,
    'resnet_width_factor': stem.shape[3] / 64 if stem else None,
    'classifier': 'map' if 'MAPHead_0/probe' in flat else pooling,
    'position_embedding': 'learned' if positions else 'sincos2d',
    'num_patches': positions.shape[1] - num_slots if positions else None,
    'representation_size': pre_logits.shape[1] if pre_logits else None,
  }


def _mixer_sizes(flat: Flat) -> dict[str, Any]:
  *patch, _, width = flat['stem/kernel'].shape
  num_patches, tokens_mlp_dim = flat[_TOKENS_MLP].shape
  return {
    'family': 'Mixer',
    'patch': tuple(patch),
    'width': width,
    'depth': _count(flat, r'MixerBlock_(\d+)/.+'),
    'mlp_dim': flat[_CHANNELS_MLP].shape[1],
    'tokens_mlp_dim': tokens_mlp_dim,
    'conv_features': None,
    'conv_kernel_size': None,
    'num_heads': None,
    'resnet_num_layers': None,
    'resnet_width_factor': None,
    'classifier': 'gap',
    'position_embedding': None,
    'num_patches': num_patches,
    'representation_size': None,
  }


def _convnet_sizes(flat: Flat) -> dict[str, Any]:
  features = _convolutions(flat)
  places, width = flat['hidden/kernel'].shape
  # Each convolution is followed by a pooling by 2.
  return {
    'family': 'ConvNet',
    'patch': (2 ** len(features),) * 2,
    'width': width,
    'depth': len(features),
    'mlp_dim': None,
    'tokens_mlp_dim': None,
    'conv_features': features,
    'conv_kernel_size': flat['conv_0/kernel'].shape[0],
    'num_heads': None,
    'resnet_num_layers': None,
    'resnet_width_factor': None,
    'classifier': None,
    'position_embedding': None,
    'num_patches': places // features[-1],
    'representation_size': None,
  }


def _localisation(flat: Flat) -> dict[str, Any] | None:
  """Returns the fields of a spatial transformer, if there is one."""
  if f'{_LOCALISATION}conv_0/kernel' not in flat:
    return None
  features = _convolutions(flat, _LOCALISATION)
  places, hidden_dim = flat[f'{_LOCALISATION}hidden/kernel'].shape
  side = math.isqrt(places // features[-1])
  return {
    'size': side * 2 ** len(features),
    'features': features,
    'kernel_size': flat[f'{_LOCALISATION}conv_0/kernel'].shape[0],
    'hidden_dim': hidden_dim,
  }


def _convolutions(flat: Flat, prefix: str = '') -> tuple[int, ...]:
  """Returns the features of the convolutions in a row, from the first on."""
  keys = (f'{prefix}conv_{i}/kernel' for i in range(_MAX_CONVOLUTIONS))
  return tuple(
    flat[key].shape[-1] for key in itertools.takewhile(flat.__contains__, keys)
  )


def _grid(sizes: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the pixels of a token, the grid, and the image size it implies."""
  stem = 1
  if sizes['resnet_num_layers'] is not None:
    # The root divides by 4, and every stage but the first by 2.
    stem = 4 * 2 ** max(0, len(sizes['resnet_num_layers']) - 1)
  stride = tuple(stem * patch for patch in sizes['patch'])
  side = math.isqrt(sizes['num_patches'] or 0)
  is_square = side > 0 and side * side == sizes['num_patches']
  return {
    'stride': stride,
    'grid': (side, side) if is_square else None,
    'image_size': tuple(side * s for s in stride) if is_square else None,
  }


def _stages(flat: Flat) -> tuple[int, ...]:
  """Returns the number of bottlenecks in each stage of a stem."""
  matches = (re.fullmatch(r'block(\d+)/unit(\d+)/.+', key) for key in flat)
  units = {match.groups() for match in matches if match}
  counts = collections.Counter(stage for stage, _ in units)
  stages = (counts[f'{i}'] for i in range(1, _MAX_STAGES + 1))
  return tuple(
    min(count, _MAX_BLOCKS) for count in itertools.takewhile(bool, stages)
  )


def _count(flat: Flat, pattern: str) -> int:
  """Returns how many numbers the group of `pattern` has among the keys."""
  matches = (re.fullmatch(pattern, key) for key in flat)
  return min(len({match[1] for match in matches if match}), _MAX_BLOCKS)
