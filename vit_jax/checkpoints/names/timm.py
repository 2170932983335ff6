"""The names in files of PyTorch Image Models (timm): ViT, hybrids and Mixer."""

import re
from collections.abc import Collection, Mapping

import numpy as np

from vit_jax.checkpoints.arrays import StoredArray
from vit_jax.checkpoints.names import rules, slots
from vit_jax.checkpoints.names.rules import Rule

_BLOCK = 'Transformer/encoderblock_{i}'
_ATTENTION = f'{_BLOCK}/MultiHeadDotProductAttention_0'
_POOL = 'MAPHead_0/MultiHeadDotProductAttention_0'
_VIT = (
  Rule('cls', 'cls_token'),
  Rule(rules.POSITIONS, 'pos_embed'),
  *rules.conv('embedding', 'patch_embed.proj'),
  *rules.norm(f'{_BLOCK}/LayerNorm_0', 'blocks.{i}.norm1'),
  *rules.into_heads(f'{_ATTENTION}/query', 'blocks.{i}.attn.qkv', (0, 3)),
  *rules.into_heads(f'{_ATTENTION}/key', 'blocks.{i}.attn.qkv', (1, 3)),
  *rules.into_heads(f'{_ATTENTION}/value', 'blocks.{i}.attn.qkv', (2, 3)),
  *rules.out_of_heads(f'{_ATTENTION}/out', 'blocks.{i}.attn.proj'),
  *rules.norm(f'{_BLOCK}/LayerNorm_1', 'blocks.{i}.norm2'),
  *rules.dense(f'{_BLOCK}/MlpBlock_0/Dense_0', 'blocks.{i}.mlp.fc1'),
  *rules.dense(f'{_BLOCK}/MlpBlock_0/Dense_1', 'blocks.{i}.mlp.fc2'),
  # A norm that follows the pooling is called `fc_norm`. No model here has it,
  # so it keeps its name and is reported.
  *rules.norm('Transformer/encoder_norm', 'norm'),
  Rule('MAPHead_0/probe', 'attn_pool.latent'),
  *rules.into_heads(f'{_POOL}/query', 'attn_pool.q'),
  *rules.into_heads(f'{_POOL}/key', 'attn_pool.kv', (0, 2)),
  *rules.into_heads(f'{_POOL}/value', 'attn_pool.kv', (1, 2)),
  *rules.out_of_heads(f'{_POOL}/out', 'attn_pool.proj'),
  *rules.norm('MAPHead_0/LayerNorm_0', 'attn_pool.norm'),
  *rules.dense('MAPHead_0/MlpBlock_0/Dense_0', 'attn_pool.mlp.fc1'),
  *rules.dense('MAPHead_0/MlpBlock_0/Dense_1', 'attn_pool.mlp.fc2'),
  *rules.dense('pre_logits', 'pre_logits.fc'),  # Of timm before 0.8.
  *rules.dense('head', 'head'),
)
_BACKBONE = 'patch_embed.backbone'
_STAGES = rules.bottlenecks(f'{_BACKBONE}.stages.{{i}}.blocks.{{j}}')
_STEM = rules.root(f'{_BACKBONE}.stem.conv', f'{_BACKBONE}.stem.norm')
# What R+ViT-Ti_16 has, whose stem is all of its ResNet.
_STEM_ALONE = rules.root(f'{_BACKBONE}.conv', f'{_BACKBONE}.norm')

_MIXER_BLOCK = 'MixerBlock_{i}'
_MIXER = (
  *rules.conv('stem', 'stem.proj'),
  *rules.norm(f'{_MIXER_BLOCK}/LayerNorm_0', 'blocks.{i}.norm1'),
  *rules.norm(f'{_MIXER_BLOCK}/LayerNorm_1', 'blocks.{i}.norm2'),
  *(
    rule
    for ours, theirs in (
      ('token_mixing', 'blocks.{i}.mlp_tokens'),
      ('channel_mixing', 'blocks.{i}.mlp_channels'),
    )
    for k in range(2)
    for rule in rules.dense(
      f'{_MIXER_BLOCK}/{ours}/Dense_{k}', f'{theirs}.fc{k + 1}'
    )
  ),
  *rules.norm('pre_head_layer_norm', 'norm'),
  *rules.dense('head', 'head'),
)


def matches(keys: Collection[str]) -> bool:
  """Whether these are the keys of such a file."""
  key = re.compile(r'(patch_embed|stem\.proj|attn_pool|blocks\.\d+)\..*')
  return any(key.fullmatch(name) for name in keys)


def to_ours(
  arrays: Mapping[str, StoredArray],
  *,
  num_heads: int | None,
  source: str,
  num_patches: int | None = None,
  has_class_slot: bool | None = None,
) -> dict[str, StoredArray]:
  """Returns the arrays under our names and in our shapes.

  Args:
    arrays: by the keys of the file.
    num_heads: of every attention; None takes it from the width.
    source: the file, for the text of an error.
    num_patches: of the model that they are for.
    has_class_slot: whether the position embedding has one for the class token,
      which a model with `no_embed_class` lacks; it then gets one of zeros.
      None tells it by `num_patches` or by which of the two leaves a square of
      patches, and takes a slot to be there if neither does.

  Raises:
    CheckpointError: two arrays have one name, or `num_heads` can't be had.
  """
  is_mixer = any(key.startswith('stem.proj.') for key in arrays)
  family = _MIXER if is_mixer else (*_VIT, *_STAGES, *_STEM, *_STEM_ALONE)
  ours = rules.to_ours(arrays, family, num_heads=num_heads, source=source)
  positions = ours.get(rules.POSITIONS)
  if 'cls' in ours and positions is not None and len(positions.shape) == 3:
    if has_class_slot is None:
      has_class_slot = slots.has_class_slot(
        positions.shape[1], num_patches, if_unclear=True
      )
    if not has_class_slot:
      ours[rules.POSITIONS] = slots.with_empty_slot(positions)
  return ours


def from_ours(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the arrays as timm loads them.

  Raises:
    CheckpointError: timm has no place for some of them.
  """
  rules.check_positions(arrays, 'timm')
  if 'pre_logits/kernel' in arrays and 'head/kernel' in arrays:
    from absl import logging  # What only reads files needn't wait for it.

    logging.warning(
      'timm 0.8 and later drop the pre_logits layer, so that with these '
      'weights their logits are wrong.'
    )
  is_mixer = any(key.startswith(('stem/', 'MixerBlock_')) for key in arrays)
  has_stages = any(key.startswith('block1/') for key in arrays)
  stem = (*_STAGES, *_STEM) if has_stages else _STEM_ALONE
  family = _MIXER if is_mixer else (*_VIT, *stem)
  return rules.from_ours(arrays, family, 'timm')
