"""Whether a model can be made of its config, for images of such a size."""

from __future__ import annotations

from typing import Any

from vit_jax import models
from vit_jax.config_checks import fields, ranges


def problems(config: Any) -> list[str]:
  """Returns what keeps the model from being made.

  Args:
    config: of which all but `config.model` is of the right types. What is not
      finite there is told elsewhere.
  """
  mistyped = fields.model_problems(config.model)
  not_finite = [
    name.removeprefix('model.') for name in ranges.not_finite(config)
  ]
  unreadable = {*mistyped, *not_finite}
  found = [
    *mistyped.values(),
    *(
      f'config.model: {problem.removesuffix(".")}.'
      for problem in models.config_problems(config.model, unreadable)
    ),
  ]
  if found or unreadable:
    return found
  model = models.create_model(config.model, num_classes=1)
  size, patch = config.pp.crop, model.patch_size
  rows, columns = model.grid((size, size))
  if size < 1 or rows * columns:
    return []
  if 'conv_features' in config.model:
    return [
      f'config.pp.crop={size} is too small for the '
      f'{len(config.model.conv_features)} poolings by 2 of '
      'config.model.conv_features. Use larger images or fewer convolutions.'
    ]
  return [
    f'config.pp.crop={size} is too small for config.model.patches.size='
    f'{patch}: images hold no whole patch. Use larger images or smaller '
    'patches.'
  ]
