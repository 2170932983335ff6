"""What is to be measured: a dict for each combination, and its config."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax import config_checks, errors
from vit_jax.config_checks import fields
from vit_jax.models import variants
from vit_jax.plan import accelerators

KINDS = ('train', 'inference')
# What tells one from another, in this order.
NAMES = ('kind', 'model', 'batch', 'dtype', 'mesh', 'settings')


def make_cases(
  models: Sequence[str],
  batches: Sequence[int],
  dtypes: Sequence[str],
  meshes: Sequence[str],
  settings: Sequence[Sequence[str]],
  kinds: Sequence[str],
  shared: Mapping[str, Any],
) -> list[dict[str, Any]]:
  """Returns every combination, which JSON can hold.

  Args:
    models: names of published ones.
    batches: images of a step.
    dtypes: of the computation.
    meshes: such as 'data=2,fsdp=4'.
    settings: each a list of 'FIELD=VALUE' of the config.
    kinds: of `KINDS`.
    shared: by all: 'image_size', 'num_classes', 'rounds', 'steps' of a round,
      'accelerator' ('' for the one that is found) and 'compile_only'.
  """
  return [
    {
      'kind': kind,
      'model': model,
      'batch': batch,
      'dtype': dtype,
      'mesh': mesh,
      'settings': ' '.join(pairs),
      **shared,
    }
    for model, batch, dtype, mesh, pairs, kind in itertools.product(
      models, batches, dtypes, meshes, settings, kinds
    )
  ]


def check_cases(
  cases: Sequence[Mapping[str, Any]], defaults: Any, num_devices: int
) -> None:
  """Raises one error that lists all that can't be measured.

  Args:
    cases: from `make_cases`.
    defaults: as `configs/common.py` gives them.
    num_devices: that there are.

  Raises:
    ConfigError: each reason once, with the first case that it is one for.
  """
  found: dict[str, str] = {}
  for case in cases:
    try:
      config = configure(case, defaults)
      config_checks.check_config(config, num_used(config, num_devices))
      if case['accelerator']:
        accelerators.accelerator(case['accelerator'])
    except errors.ConfigError as error:
      name = ' '.join(str(case[name]) for name in NAMES if case[name])
      found.setdefault(str(error), name)
  if found:
    raise errors.ConfigError(
      'Nothing is measured, for these can not work:\n'
      + '\n'.join(f'{name}: {text}' for text, name in found.items())
    )


def configure(case: Mapping[str, Any], defaults: Any) -> Any:
  """Returns the config of a case.

  Args:
    case: from `make_cases`.
    defaults: as `configs/common.py` gives them.

  Raises:
    ConfigError: a model, axis or field that there is none of, or a value that
      is none of the field's.
  """
  config = defaults.copy_and_resolve_references()
  config.model = variants.model_config(case['model'])
  config.update(
    dataset='imagenet2012',
    pretrained_dir='',
    batch=case['batch'],
    batch_eval=case['batch'],
    accum_steps=1,
    dtype=case['dtype'],
  )
  config.pp.crop = case['image_size']
  config.mesh.data = 1  # Unless it is said: then the others' devices suffice.
  axes = [f'mesh.{pair}' for pair in case['mesh'].split(',')]
  for pair in [*axes, *case['settings'].split()]:
    fields.set_field(config, pair)
  return config


def num_used(config: Any, num_devices: int) -> int:
  """Returns how many devices a mesh is made of: all, or those that it names.

  Args:
    config: which may hold anything until it is checked.
    num_devices: that there are.
  """
  readable, _ = fields.readable(config)
  sizes = readable.mesh.values()
  if -1 in sizes:
    return num_devices
  return max(1, min(math.prod(sizes), num_devices))
