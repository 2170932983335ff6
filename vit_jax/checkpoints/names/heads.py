"""How many heads an attention has, where its weights don't show it."""

import re
from collections.abc import Mapping
from typing import Any

from vit_jax import errors

# By the width of the published models: Dosovitskiy et al. 2021, table 1;
# Steiner et al. 2021, table 1; Zhai et al. 2022, table 2; Alabdulmohsin et al.
# 2023 (1152).
PUBLISHED = {
  192: 3,
  384: 6,
  512: 8,
  768: 12,
  1024: 16,
  1152: 16,
  1280: 16,
  1408: 16,
  1664: 16,
}


def choose(width: int, num_heads: int | None, source: str) -> int:
  """Returns `num_heads`, or what published models of that width have.

  Raises:
    CheckpointError: the width is unknown or no multiple of the heads.
  """
  if num_heads is None:
    if width not in PUBLISHED:
      raise errors.CheckpointError(
        f"{source}: its width is {width}, and the file doesn't say into how "
        'many attention heads it is divided. Say it with load_params(path, '
        'num_heads=N), or load it for a model with load_pretrained(path, '
        f'model, image_size). Known widths: {_known()}.'
      )
    return PUBLISHED[width]
  if num_heads < 1 or width % num_heads:
    raise errors.CheckpointError(
      f'{source}: its width {width} can not be divided into {num_heads} '
      f'attention heads; check num_heads. Known widths: {_known()}.'
    )
  return num_heads


def to_metadata(arrays: Mapping[str, Any]) -> dict[str, str]:
  """Returns what a file of ours says of the heads of arrays by our names."""
  for key, array in arrays.items():
    if key.endswith('/query/kernel') and len(array.shape) == 3:
      return {'num_heads': str(array.shape[1])}
  return {}


def from_metadata(metadata: Mapping[str, str], source: str) -> int | None:
  """Returns the heads that a file names in words, None where it doesn't.

  Raises:
    CheckpointError: what it says is no positive number.
  """
  text = metadata.get('num_heads')
  if text is None:
    return None
  if not re.fullmatch('[1-9][0-9]{0,4}', text):
    raise errors.CheckpointError(
      f'{source}: its metadata say num_heads {text[:20]!r}, expected a '
      'positive number. Download or copy the file again.'
    )
  return int(text)


def _known() -> str:
  return ', '.join(f'{width} ({heads})' for width, heads in PUBLISHED.items())
