"""The names in files of Hugging Face transformers: its ViT and its hybrid."""

import re
from collections.abc import Collection, Mapping

import numpy as np

from vit_jax import errors
from vit_jax.checkpoints.arrays import StoredArray
from vit_jax.checkpoints.names import rules
from vit_jax.checkpoints.names.rules import Rule

_BLOCK = 'Transformer/encoderblock_{i}'
_ATTENTION = f'{_BLOCK}/MultiHeadDotProductAttention_0'
_LAYER = 'encoder.layer.{i}'
# What all versions write, whatever they call it in memory.
_WRITTEN = (
  Rule('cls', 'embeddings.cls_token'),
  Rule(rules.POSITIONS, 'embeddings.position_embeddings'),
  *rules.conv('embedding', 'embeddings.patch_embeddings.projection'),
  *rules.norm(f'{_BLOCK}/LayerNorm_0', f'{_LAYER}.layernorm_before'),
  *(
    rule
    for name in ('query', 'key', 'value')
    for rule in rules.into_heads(
      f'{_ATTENTION}/{name}', f'{_LAYER}.attention.attention.{name}'
    )
  ),
  *rules.out_of_heads(f'{_ATTENTION}/out', f'{_LAYER}.attention.output.dense'),
  *rules.norm(f'{_BLOCK}/LayerNorm_1', f'{_LAYER}.layernorm_after'),
  *rules.dense(f'{_BLOCK}/MlpBlock_0/Dense_0', f'{_LAYER}.intermediate.dense'),
  *rules.dense(f'{_BLOCK}/MlpBlock_0/Dense_1', f'{_LAYER}.output.dense'),
  *rules.norm('Transformer/encoder_norm', 'layernorm'),
)
_POOLER = rules.dense('pre_logits', 'pooler.dense')
_CLASSIFIER = rules.dense('head', 'classifier')
# What transformers 5 has in memory, as `state_dict()` gives it.
_IN_MEMORY = (
  *rules.norm(f'{_BLOCK}/LayerNorm_0', 'layers.{i}.layernorm_before'),
  *(
    rule
    for name in ('query', 'key', 'value')
    for rule in rules.into_heads(
      f'{_ATTENTION}/{name}', f'layers.{{i}}.attention.{name[0]}_proj'
    )
  ),
  *rules.out_of_heads(f'{_ATTENTION}/out', 'layers.{i}.attention.o_proj'),
  *rules.norm(f'{_BLOCK}/LayerNorm_1', 'layers.{i}.layernorm_after'),
  *rules.dense(f'{_BLOCK}/MlpBlock_0/Dense_0', 'layers.{i}.mlp.fc1'),
  *rules.dense(f'{_BLOCK}/MlpBlock_0/Dense_1', 'layers.{i}.mlp.fc2'),
)
_BIT = 'embeddings.patch_embeddings.backbone.bit'
# Of `ViTHybrid`, which was there until transformers 4.40.
_HYBRID = (
  *rules.root(f'{_BIT}.embedder.convolution', f'{_BIT}.embedder.norm'),
  *rules.bottlenecks(f'{_BIT}.encoder.stages.{{i}}.layers.{{j}}'),
)
_PREFIX = 'vit.'
# Its language models have the other names, too.
_OF_A_VIT = re.compile(
  r'(vit\.)?(embeddings\.(cls_token|patch_embeddings\..*)'
  r'|encoder\.layer\.\d+\.(attention\.attention|layernorm_\w+)\..*'
  r'|layers\.\d+\.layernorm_(before|after)\..*)'
)


def matches(keys: Collection[str]) -> bool:
  """Whether these are the keys of such a file."""
  return any(_OF_A_VIT.fullmatch(key) for key in keys)


def to_ours(
  arrays: Mapping[str, StoredArray],
  *,
  num_heads: int | None,
  source: str,
  num_patches: int | None = None,
) -> dict[str, StoredArray]:
  """Returns the arrays under our names and in our shapes.

  Args:
    arrays: by the keys of the file.
    num_heads: None takes it from the width.
    source: the file, for the text of an error.
    num_patches: not needed, as these files always have the class token's slot.

  Raises:
    CheckpointError: two arrays have one name, or `num_heads` can't be had.
  """
  del num_patches
  family = [*_WRITTEN, *_IN_MEMORY, *_HYBRID, *_CLASSIFIER]
  if 'classifier.weight' not in arrays:
    # Beside a classifier, which doesn't read it, a pooler is nothing of ours.
    family += _POOLER
  return rules.to_ours(
    arrays, family, num_heads=num_heads, source=source, prefix=_PREFIX
  )


def from_ours(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Returns the arrays as `ViTForImageClassification` loads them.

  Without a head they are those of a `ViTModel`, whose pooler is `pre_logits`.

  Raises:
    CheckpointError: it is another kind of model.
  """
  rules.check_positions(arrays, 'transformers')
  has_head = 'head/kernel' in arrays
  kind = (
    'a Mixer' if 'stem/kernel' in arrays
    else 'a hybrid' if 'conv_root/kernel' in arrays
    else 'a model with a MAP head' if 'MAPHead_0/probe' in arrays
    else 'a model without a class token' if 'cls' not in arrays
    else 'a model with a pre_logits layer before its head'
    if has_head and 'pre_logits/kernel' in arrays
    else None
  )  # fmt: skip
  if kind:
    raise errors.CheckpointError(
      f'The weights are those of {kind}, for which transformers has no names. '
      "Save them with timm's (names='timm') or as .npz."
    )
  if not has_head:
    return rules.from_ours(arrays, (*_WRITTEN, *_POOLER), 'transformers')
  family = (*_WRITTEN, *_CLASSIFIER)
  found = rules.from_ours(arrays, family, 'transformers')
  return {
    key if key.startswith('classifier.') else _PREFIX + key: value
    for key, value in found.items()
  }
