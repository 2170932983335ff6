"""Flax modules by name or config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vit_jax import errors
from vit_jax.models import variants

if TYPE_CHECKING:
  from ml_collections import ConfigDict

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
  },
  'Mixer': _SHARED
  | {
    'hidden_dim': 'hidden_dim',
    'num_blocks': 'num_blocks',
    'tokens_mlp_dim': 'tokens_mlp_dim',
    'channels_mlp_dim': 'channels_mlp_dim',
  },
}
# The module's sizes that have no default.
_SIZES = {
  'ViT': ('hidden_size', 'num_layers', 'num_heads', 'mlp_dim'),
  'Mixer': ('hidden_dim', 'num_blocks', 'tokens_mlp_dim', 'channels_mlp_dim'),
}
_RATES = ('dropout_rate', 'attention_dropout_rate', 'drop_path_rate')


def create_model(
  name_or_config: str | ConfigDict,
  num_classes: int | None,
  *,
  gelu: str | None = None,
  dtype: Any = 'float32',
  param_dtype: Any = 'float32',
) -> VisionTransformer | MlpMixer:
  """Returns a Flax module; nothing is computed and no memory is taken.

  Args:
    name_or_config: a name such as 'ViT-B_16' or 'b16', or an edited
      `model_config(name)`. One with `tokens_mlp_dim` is a Mixer's.
    num_classes: width of the head, or None for the features before it.
    gelu: 'tanh' or 'exact', whatever the config says; None leaves it to that.
    dtype: of the computation, such as 'bfloat16'.
    param_dtype: of the parameters.

  Raises:
    ConfigError: an unknown name or field, or sizes that don't fit together.
  """
  import jax.numpy as jnp  # Here, so that configs import in no time.

  from vit_jax.models import mixer, vit

  config = name_or_config
  if isinstance(config, str):
    config = variants.model_config(config)
  family = 'Mixer' if 'tokens_mlp_dim' in config else 'ViT'
  name = config.get('model_name', 'model')
  _check_family(family, config, name)
  fields = _module_fields(config, _FIELDS[family])
  if gelu is not None:
    fields['gelu'] = gelu
  _check(family, fields, num_classes, name)
  try:
    types = {'dtype': jnp.dtype(dtype), 'param_dtype': jnp.dtype(param_dtype)}
  except TypeError as error:
    raise errors.ConfigError(
      f'dtype {dtype!r} or param_dtype {param_dtype!r} is no dtype; use '
      "'float32' or 'bfloat16'."
    ) from error
  module = {'ViT': vit.VisionTransformer, 'Mixer': mixer.MlpMixer}[family]
  return module(num_classes=num_classes, **types, **fields)


def _check_family(family: str, config: Any, name: str) -> None:
  """Raises ConfigError if the config has fields of the other family."""
  other = 'ViT' if family == 'Mixer' else 'Mixer'
  foreign = [
    key
    for key, value in config.items()
    if key in _FIELDS[other] and key not in _FIELDS[family]
    if value is not None
  ]
  if foreign:
    sign = 'With' if family == 'Mixer' else 'Without'
    raise errors.ConfigError(
      f'Model {name!r} has fields of a {other}: {", ".join(sorted(foreign))}. '
      f'{sign} model.tokens_mlp_dim it is taken for a {family}, whose fields '
      f'are {", ".join(_FIELDS[family])}. Use those of one of the two.'
    )


def _module_fields(
  config: Any, names: dict[str, Any], path: str = 'model'
) -> dict[str, Any]:
  """Returns the module's arguments for a (nested) config."""
  fields = {}
  for key, value in config.items():
    if key not in names:
      raise errors.ConfigError(
        errors.unknown_name(
          'config field', f'{path}.{key}', [f'{path}.{name}' for name in names]
        )
      )
    if isinstance(names[key], dict):
      if value is None:  # As some write a model without a stem.
        continue
      if not hasattr(value, 'items'):
        raise errors.ConfigError(
          f'Config field {path}.{key} is {value!r}, expected one with the '
          f'fields {", ".join(names[key])}.'
        )
      fields |= _module_fields(value, names[key], f'{path}.{key}')
    elif names[key] is not None:
      # ConfigDict gives lists back where tuples were overridden.
      fields[names[key]] = tuple(value) if isinstance(value, list) else value
  return fields


def _check(
  family: str, fields: dict[str, Any], num_classes: int | None, name: str
) -> None:
  """Raises one ConfigError that lists all that can't be built."""
  required = sorted({'patch_size', *_SIZES[family]})
  problems = [
    f'{field} is missing' for field in required if field not in fields
  ]
  problems += [
    f'{field} {fields[field]} is not positive'
    for field in sorted(_SIZES[family])
    if fields.get(field, 1) < 1
  ]
  if num_classes is not None and num_classes < 1:
    problems.append(
      f'num_classes {num_classes} is not positive (None gives the features '
      'before the head)'
    )
  patch = fields.get('patch_size', (1, 1))
  if not isinstance(patch, tuple) or len(patch) != 2 or min(patch) < 1:
    problems.append(f'patches.size {patch!r} is not a positive (height, width)')
  if not problems and family == 'ViT':
    problems += _width_problems(fields)
  problems += _choice_problems(fields)
  if fields.get('resnet_num_layers') is not None:
    width = int(64 * fields.get('resnet_width_factor', 1.0))
    if not width or width % 32:
      problems.append(
        f'resnet.width_factor {fields["resnet_width_factor"]} gives {width} '
        'features, which are no multiple of 32 groups'
      )
  for rate in _RATES:
    if not 0 <= fields.get(rate, 0.0) < 1:
      problems.append(f'{rate} {fields[rate]} is not in [0, 1)')
  if problems:
    raise errors.ConfigError(f'Model {name!r}: ' + '; '.join(problems) + '.')


def _width_problems(fields: dict[str, Any]) -> list[str]:
  width, num_heads = fields['hidden_size'], fields['num_heads']
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


def _choice_problems(fields: dict[str, Any]) -> list[str]:
  from vit_jax.models import mlp, positions, vit

  return [
    errors.unknown_name(field, str(fields[field]), valid)
    for field, valid in {
      'classifier': vit.CLASSIFIERS,
      'gelu': tuple(mlp.GELUS),
      'position_embedding': positions.POSITION_EMBEDDINGS,
    }.items()
    if field in fields and fields[field] not in valid
  ]
