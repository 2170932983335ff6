"""Whether a config suits the devices: the mesh, and the batches it splits."""

from __future__ import annotations

from typing import Any

from vit_jax import errors, sharding
from vit_jax.config_checks.fields import leaves


def problems(
  config: Any, num_devices: int | None, unread: set[str]
) -> list[str]:
  """Returns why the mesh can't be made, or splits model or batches unevenly.

  Sizes that no number of devices could have are told elsewhere.

  Args:
    config: all of whose fields are of the right types.
    num_devices: that the mesh is made of; None where that is not known.
    unread: fields whose values there mean nothing.
  """
  found, num_tensor = [], config.mesh.tensor
  num_parts = None  # That a micro-batch is split into.
  if num_devices is not None and _may_be_a_mesh(config.mesh, unread):
    try:
      num_tensor = sharding.mesh_sizes(config.mesh, num_devices)['tensor']
      num_parts = num_devices // num_tensor
    except errors.ConfigError as error:
      found.append(str(error))
      if num_tensor < 1 or num_devices % num_tensor:
        num_tensor = 1  # It is wrong whatever the model.
  if 'mesh.tensor' not in unread and num_tensor > 1:
    found += _model_problems(config.model, num_tensor)
  accum_steps = None if 'accum_steps' in unread else max(1, config.accum_steps)
  return found + _batch_problems(config, num_parts, num_tensor, accum_steps)


def _may_be_a_mesh(mesh: Any, unread: set[str]) -> bool:
  """Returns whether some number of devices makes such a mesh."""
  sizes = [*mesh.values()]
  return (
    unread.isdisjoint(f'mesh.{axis}' for axis in sharding.AXES)
    and all(size >= 1 or size == -1 for size in sizes)
    and sizes.count(-1) <= 1
  )


def _model_problems(model: Any, num_tensor: int) -> list[str]:
  return [
    f'config.mesh.tensor={num_tensor} does not divide config.model.{name}='
    f'{size}. Sizes that work: a common divisor of the heads and the MLP width.'
    for name, size in leaves(model)
    if name.rpartition('.')[-1].endswith(('num_heads', 'mlp_dim'))
    if isinstance(size, int) and size >= 1 and size % num_tensor
  ]


def _batch_problems(
  config: Any, num_parts: int | None, num_tensor: int, accum_steps: int | None
) -> list[str]:
  """Returns which batches the devices and micro-batches can't share evenly.

  Args:
    config: has the batches.
    num_parts: that a micro-batch is split into; None where that is not known.
    num_tensor: devices that share such a part.
    accum_steps: micro-batches of a batch; None where that is not known.
  """
  found = []
  of_rows = 'devices' if num_tensor == 1 else 'of config.mesh.data x fsdp'
  split = {} if num_parts is None else {of_rows: num_parts}
  in_steps = {} if accum_steps is None else {'config.accum_steps': accum_steps}
  # Names, values, and what the multiple is made of.
  for name, parts in {
    'batch': split | in_steps,
    'batch_eval': split,
  }.items():
    multiple = 1
    for part in parts.values():
      multiple *= part
    value = config[name]
    if value > 0 and value % multiple:
      below, above = value // multiple * multiple, -(-value // multiple)
      sizes = [size for size in (below, above * multiple) if size]
      made_of = ' x '.join(f'{n} {what}' for what, n in parts.items())
      found.append(
        f'config.{name}={value} is not a multiple of {multiple} ({made_of}). '
        f'Sizes that work: {", ".join(map(str, sizes))}.'
      )
  return found
