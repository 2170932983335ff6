"""Finds out whether a disk has room for a run's checkpoints."""

import pathlib
import shutil
from typing import Any

import jax
from absl import logging

from vit_jax import errors


def check_room(directory: pathlib.Path, target: Any, num_more: int) -> None:
  """Warns where checkpoints will not all fit on the disk.

  Args:
    directory: of the checkpoints.
    target: a state as arrays or shapes; stored, it is as large or a little
      smaller.
    num_more: checkpoints that there will be besides those that are there.

  Raises:
    CheckpointError: not even one more fits.
  """
  leaves = jax.tree.leaves(target)
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
  free = shutil.disk_usage(directory).free
  if free < size:
    raise errors.CheckpointError(
      f'{directory}: {_size_text(free)} are free on that disk, and a '
      f'checkpoint takes {_size_text(size)}. Make room, or name another '
      'directory: --workdir=DIR.'
    )
  if free < num_more * size:
    logging.warning(
      '%s: %s are free on that disk, and checkpoints will take up to %s more. '
      'Make room, or lower config.keep_checkpoints.',
      directory,
      _size_text(free),
      _size_text(num_more * size),
    )


def _size_text(num_bytes: int) -> str:
  unit, name = (1e9, 'GB') if num_bytes >= 1e9 else (1e6, 'MB')
  return f'{num_bytes / unit:,.3g} {name}'
