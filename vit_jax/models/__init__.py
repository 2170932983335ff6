"""Flax modules by name or config."""

from __future__ import annotations

import numbers
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from vit_jax import errors
from vit_jax.models import variants

if TYPE_CHECKING:
  from ml_collections import ConfigDict

  from vit_jax.models.convnet import ConvNet
  from vit_jax.models.mixer import MlpMixer
  from vit_jax.models.vit import VisionTransformer

# The fields of a model config, each with the module's name for it, by the
# family that has them. A field that is a config itself is a dict here.
_SHARED = {
  'model_name': None,
  'patches': {'size': 'patch_size'},
  'gelu': 'gelu',
  'head_bias_init': 'head_bias_init',
}
_SPATIAL_TRANSFORMER = {
  'size': 'localisation_size',
  'features': 'localisation_features',
  'kernel_size': 'localisation_kernel_size',
  'hidden_dim': 'localisation_hidden_dim',
}
_FIELDS: dict[str, dict[str, Any]] = {
  'ViT': _SHARED
  | {
    'hidden_size': 'hidden_size',
    'transformer': {
      'mlp_dim': 'mlp_dim',
      'num_heads': 'num_heads',
      'num_layers': 'num_layers',
      'dropout_rate': 'dropout_rate',
      'attention_dropout_rate': 'attention_dropout_rate',
      'drop_path_rate': 'drop_path_rate',
    },
    'classifier': 'classifier',
    'position_embedding': 'position_embedding',
    'representation_size': 'representation_size',
    'resnet': {
      'num_layers': 'resnet_num_layers',
      'width_factor': 'resnet_width_factor',
    },
    'spatial_transformer': _SPATIAL_TRANSFORMER,
  },
  'Mixer': _SHARED
  | {
    'hidden_dim': 'hidden_dim',
    'num_blocks': 'num_blocks',
    'tokens_mlp_dim': 'tokens_mlp_dim',
    'channels_mlp_dim': 'channels_mlp_dim',
  },
  'ConvNet': {
    'model_name': None,
    'conv_features': 'conv_features',
    'conv_kernel_size': 'conv_kernel_size',
    'dense_size': 'dense_size',
    'dropout_rate': 'dropout_rate',
    'head_bias_init': 'head_bias_init',
    'spatial_transformer': _SPATIAL_TRANSFORMER,
  },
}
# What a config has of one family alone; without any, it is a ViT's.
_MARKS = {'Mixer': 'tokens_mlp_dim', 'ConvNet': 'conv_features'}
# What `create_model` is given beside the config, and a family has no use for.
_UNUSED = {'Mixer': ('attention',), 'ConvNet': ('attention', 'gelu')}
# The module's sizes that have no default.
_SIZES = {
  'ViT': ('hidden_size', 'num_layers', 'num_heads', 'mlp_dim'),
  'Mixer': ('hidden_dim', 'num_blocks', 'tokens_mlp_dim', 'channels_mlp_dim'),
  'ConvNet': ('conv_kernel_size', 'dense_size'),
}
# And those that are a number for each of several layers.
_TUPLES = {
  'ViT': ('patch_size',),
  'Mixer': ('patch_size',),
  'ConvNet': ('conv_features',),
}
_RATES = ('dropout_rate', 'attention_dropout_rate', 'drop_path_rate')
_UNREADABLE = object()


def create_model(
  name_or_config: str | ConfigDict,
  num_classes: int | None,
  *,
  gelu: str | None = None,
  dtype: Any = 'float32',
  param_dtype: Any = 'float32',
  attention: str = 'auto',
  remat: str = 'none',
  scan_layers: bool = False,
) -> VisionTransformer | MlpMixer | ConvNet:
  """Returns a Flax module; nothing is computed and no memory is taken.

  Args:
    name_or_config: a name such as 'ViT-B_16' or 'b16', or an edited
      `model_config(name)`. One with `tokens_mlp_dim` is a Mixer's, one with
      `conv_features` a ConvNet's.
    num_classes: width of the head, or None for the features before it.
    gelu: 'tanh' or 'exact', whatever the config says; None leaves it to that.
    dtype: of the computation: 'float32', 'bfloat16' or 'float16'.
    param_dtype: of the parameters.
    attention: 'plain' has weights to look at, 'fused' never holds them whole,
      'auto' is fused where cuDNN has a kernel and plain elsewhere. The outputs
      are the same. Mixers and ConvNets have none.
    remat: what training computes again to save memory: 'none', 'dots' for all
      but products with weights, or 'full'.
    scan_layers: whether to compile one block for all, which makes compilation
      short. Outputs are the same. So are parameters, as `init` makes them, but
      it pays to give them as `blocks.stack_layers` does.

  Raises:
    ConfigError: an unknown name or field, or sizes that don't fit together.
  """
  import jax.numpy as jnp  # Here, so that configs import in no time.

  from vit_jax.models import convnet, mixer, vit

  config = name_or_config
  if isinstance(config, str):
    config = variants.model_config(config)
  given = {'remat': remat, 'scan_layers': scan_layers}
  if gelu is not None:
    given['gelu'] = gelu
  family, fields, problems = _read(config, given | {'attention': attention})
  if num_classes is not None and num_classes < 1:
    problems.append(
      f'num_classes {num_classes} is not positive (None gives the features '
      'before the head)'
    )
  if problems:
    # Some are sentences already.
    text = '; '.join(problem.removesuffix('.') for problem in problems)
    name = config.get('model_name', 'model')
    raise errors.ConfigError(f'Model {name!r}: {text}.')
  try:
    types = {'dtype': jnp.dtype(dtype), 'param_dtype': jnp.dtype(param_dtype)}
  except TypeError as error:
    raise errors.ConfigError(
      f'dtype {dtype!r} or param_dtype {param_dtype!r} is no dtype; use '
      "'float32', 'bfloat16' or 'float16'."
    ) from error
  module = {
    'ViT': vit.VisionTransformer,
    'Mixer': mixer.MlpMixer,
    'ConvNet': convnet.ConvNet,
  }[family]
  return module(num_classes=num_classes, **types, **fields)


def config_problems(
  config: ConfigDict, unreadable: Collection[str] = ()
) -> list[str]:
  """Returns all that keeps a model from being made of a config.

  Args:
    config: as `create_model` takes it.
    unreadable: fields whose values mean nothing, such as
      'transformer.num_heads'. What depends on them is not judged.
  """
  return _read(config, {}, unreadable)[2]


def _read(
  config: Any, given: dict[str, Any], unreadable: Collection[str] = ()
) -> tuple[str, dict[str, Any], list[str]]:
  """Returns the family, the module's arguments and what is wrong with them."""
  family = _family(config)
  foreign = _foreign_fields(family, config)
  own = {
    key: value
    for key, value in config.items()
    if not any(key in keys for keys in foreign.values())
  }
  fields, problems = _module_fields(own, _FIELDS[family])
  unread = {_module_name(family, field) for field in unreadable}
  for name, value in [*fields.items()]:
    if value is _UNREADABLE:
      unread.add(name)
  if foreign:
    problems = [
      *(_foreign_text(family, other, foreign[other]) for other in foreign),
      *problems,
    ]
    unread |= {*_TUPLES[family], *_SIZES[family]} - {*fields}
  fields |= given
  unused = {*unread, *_UNUSED.get(family, ())}
  fields = {key: fields[key] for key in fields if key not in unused}
  return family, fields, problems + _value_problems(family, fields, unread)


def _family(config: Any) -> str:
  return next((name for name in _MARKS if _MARKS[name] in config), 'ViT')


def _foreign_fields(family: str, config: Any) -> dict[str, list[str]]:
  """Returns the fields that only models of other families have, by family."""
  found: dict[str, list[str]] = {}
  for key, value in sorted(config.items()):
    if key not in _FIELDS[family] and value is not None:
      owner = next((name for name in _FIELDS if key in _FIELDS[name]), None)
      if owner:
        found.setdefault(owner, []).append(key)
  return found


def _foreign_text(family: str, other: str, foreign: list[str]) -> str:
  sign = 'With' if family in _MARKS else 'Without'
  return (
    f'It has fields of a {other}: {", ".join(foreign)}. '
    f'{sign} model.{_MARKS.get(family) or _MARKS[other]} it is taken for a '
    f'{family}, whose fields are {", ".join(_FIELDS[family])}. Use those of '
    'one of the two.'
  )


def _module_name(family: str, field: str) -> str | None:
  """Returns 'patch_size' for 'patches.size', None for what no module takes."""
  node: Any = _FIELDS[family]
  for name in field.split('.'):
    node = node.get(name) if isinstance(node, dict) else None
  return node


def _module_fields(
  config: Any, names: dict[str, Any], path: str = 'model'
) -> tuple[dict[str, Any], list[str]]:
  """Returns the module's arguments for a (nested) config, and its problems."""
  fields, problems = {}, []
  for key, value in config.items():
    if key not in names:
      problems.append(
        errors.unknown_name(
          'config field', f'{path}.{key}', [f'{path}.{name}' for name in names]
        )
      )
    elif isinstance(names[key], dict):
      if value is None:  # As some write a model without a stem.
        continue
      if not hasattr(value, 'items'):
        problems.append(
          f'Config field {path}.{key} is {value!r}, expected one with the '
          f'fields {", ".join(names[key])}.'
        )
        fields |= dict.fromkeys(names[key].values(), _UNREADABLE)
        continue
      inner, more = _module_fields(value, names[key], f'{path}.{key}')
      fields |= inner
      problems += more
    elif names[key] is not None:
      # ConfigDict gives lists back where tuples were overridden.
      fields[names[key]] = tuple(value) if isinstance(value, list) else value
  return fields, problems


def _value_problems(
  family: str, fields: dict[str, Any], unread: Collection[str | None]
) -> list[str]:
  """Returns which arguments can't be built; `unread` may be missing."""
  required = sorted({*_TUPLES[family], *_SIZES[family]} - {*unread})
  problems = [
    f'{field} is missing' for field in required if field not in fields
  ]
  sizes = {*_SIZES[family]}
  if fields.get('representation_size') is not None:
    sizes.add('representation_size')
  problems += [
    f'{field} {fields[field]} is not positive'
    for field in sorted(sizes)
    if fields.get(field, 1) < 1
  ]
  patch = fields.get('patch_size', (1, 1))
  if not isinstance(patch, tuple) or len(patch) != 2 or not _are_sizes(patch):
    problems.append(f'patches.size {patch!r} is not a positive (height, width)')
  if not _are_sizes(features := fields.get('conv_features', (1,))):
    problems.append(f'conv_features {features!r} are not all positive')
  if family == 'ViT':
    problems += _width_problems(fields)
  problems += _transformer_problems(fields, unread)
  problems += _choice_problems(fields)
  stages = fields.get('resnet_num_layers')
  if stages is not None:
    if not _are_sizes(stages):
      problems.append(f'resnet.num_layers {stages} are not all positive')
    width = int(64 * fields.get('resnet_width_factor', 1.0))
    if width < 1 or width % 32:
      problems.append(
        f'resnet.width_factor {fields["resnet_width_factor"]} gives {width} '
        'features, which are no multiple of 32 groups'
      )
  problems += [
    f'{rate} {fields[rate]} is not in [0, 1)'
    for rate in _RATES
    if not 0 <= fields.get(rate, 0.0) < 1
  ]
  return problems


def _are_sizes(values: Iterable[Any]) -> bool:
  return all(
    isinstance(value, numbers.Integral) and int(value) >= 1 for value in values
  )


def _width_problems(fields: dict[str, Any]) -> list[str]:
  # As if they fitted where one of them is wrong by itself.
  width = max(0, fields.get('hidden_size', 0))
  num_heads = max(1, fields.get('num_heads', 1))
  problems = []
  if width % num_heads:
    problems.append(
      f'hidden_size {width} is not a multiple of num_heads {num_heads}'
    )
  if fields.get('position_embedding') == 'sincos2d' and width % 4:
    problems.append(
      f'hidden_size {width} is not a multiple of 4, which the sines and '
      "cosines of position_embedding 'sincos2d' share"
    )
  return problems


def _transformer_problems(
  fields: dict[str, Any], unread: Collection[str | None]
) -> list[str]:
  """Returns what is wrong with the spatial transformer, if there is one."""
  given = {
    name: fields[attribute]
    for name, attribute in _SPATIAL_TRANSFORMER.items()
    if fields.get(attribute) is not None
  }
  if not given:
    return []
  problems = [
    f'spatial_transformer.{name} is missing'
    for name, attribute in _SPATIAL_TRANSFORMER.items()
    if name not in given and attribute not in unread
  ]
  features = given.get('features', (1,))
  if not features or not _are_sizes(features):
    problems.append(
      f'spatial_transformer.features {features!r} are not one or more numbers, '
      'all positive'
    )
  problems += [
    f'spatial_transformer.{name} {given[name]} is not positive'
    for name in ('size', 'kernel_size', 'hidden_dim')
    if given.get(name, 1) < 1
  ]
  size, part = given.get('size', 0), 2 ** len(features)
  if size > 0 and size % part:
    problems.append(
      f'spatial_transformer.size {size} is not a multiple of {part}, by which '
      f'{len(features)} poolings divide it'
    )
  return problems


def _choice_problems(fields: dict[str, Any]) -> list[str]:
  from vit_jax.models import blocks, mlp, positions, vit
  from vit_jax.models.attention import ATTENTIONS

  return [
    errors.unknown_name(field, str(fields[field]), valid)
    for field, valid in {
      'attention': ATTENTIONS,
      'classifier': vit.CLASSIFIERS,
      'gelu': tuple(mlp.GELUS),
      'position_embedding': positions.POSITION_EMBEDDINGS,
      'remat': tuple(blocks.REMATS),
    }.items()
    if field in fields and fields[field] not in valid
  ]
