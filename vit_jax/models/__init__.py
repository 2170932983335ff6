"""Flax modules by name or config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from vit_jax import errors
from vit_jax.models import variants

if TYPE_CHECKING:
  from vit_jax.models.vit import VisionTransformer

# The fields of a model config, each with the module's name for it. A field
# that is a config itself is a dict here.
_FIELDS = {
  'model_name': None,
  'patches': {'size': 'patch_size'},
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
  'representation_size': 'representation_size',
  'resnet': {
    'num_layers': 'resnet_num_layers',
    'width_factor': 'resnet_width_factor',
  },
  'head_bias_init': 'head_bias_init',
}
_RATES = ('dropout_rate', 'attention_dropout_rate', 'drop_path_rate')


def create_model(
  name_or_config: str | ConfigDict,
  num_classes: int | None,
  *,
  dtype: Any = 'float32',
  param_dtype: Any = 'float32',
) -> VisionTransformer:
  """Returns a Flax module; nothing is computed and no memory is taken.

  Args:
    name_or_config: a name such as 'ViT-B_16' or 'b16', or an edited
      `model_config(name)`.
    num_classes: width of the head, or None for the features before it.
    dtype: of the computation, such as 'bfloat16'.
    param_dtype: of the parameters.

  Raises:
    ConfigError: an unknown name or field, or sizes that don't fit together.
  """
  import jax.numpy as jnp  # Here, so that configs import in no time.

  from vit_jax.models import vit

  config = name_or_config
  if isinstance(config, str):
    config = variants.model_config(config)
  fields = _module_fields(config)
  _check(fields, num_classes, config.get('model_name', 'model'))
  try:
    types = {'dtype': jnp.dtype(dtype), 'param_dtype': jnp.dtype(param_dtype)}
  except TypeError as error:
    raise errors.ConfigError(
      f'dtype {dtype!r} or param_dtype {param_dtype!r} is no dtype; use '
      "'float32' or 'bfloat16'."
    ) from error
  return vit.VisionTransformer(num_classes=num_classes, **types, **fields)


def _module_fields(config: Any, names=None, path='model') -> dict[str, Any]:
  """Returns the module's arguments for a (nested) config."""
  fields = {}
  names = _FIELDS if names is None else names
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


def _check(fields: dict[str, Any], num_classes: int | None, name: str):
  """Raises one ConfigError that lists all that can't be built."""
  from vit_jax.models import vit

  required = {'patch_size', 'hidden_size', 'num_layers', 'num_heads', 'mlp_dim'}
  problems = [f'{field} is missing' for field in sorted(required - {*fields})]
  problems += [
    f'{field} {fields[field]} is not positive'
    for field in sorted(required - {'patch_size'})
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
  if not problems and fields['hidden_size'] % fields['num_heads']:
    problems.append(
      f'hidden_size {fields["hidden_size"]} is not a multiple of num_heads '
      f'{fields["num_heads"]}'
    )
  classifier = fields.get('classifier', 'token')
  if classifier not in vit.CLASSIFIERS:
    problems.append(
      errors.unknown_name('classifier', str(classifier), vit.CLASSIFIERS)
    )
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
