"""What a report shows, and which layers and heads the user's words mean."""

import dataclasses

from vit_jax import errors
from vit_jax.attention.maps import check_index


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is drawn, and how.

  Attributes:
    method: a key of `METHODS`.
    layers: 'all', or any of 'first', 'middle', 'last' and numbers, by commas.
    heads: 'mean', 'all', or numbers, by commas.
    class_index: the class that is asked about; None for the predicted one.
    fit: a key of `data.images.FITS`.
    format: of the figures: 'png', 'pdf' or 'svg'.
    alpha: share of the map's colour in an overlay.
    colormap: matplotlib's name.
    dpi: of the figures.
    batch: images at a time.
    image_size: side in pixels; None for what the weights were made for.
    faithfulness: whether deletion and insertion areas are measured, which takes
      42 forward passes.
    num_heads: of the model, for a file that doesn't say it.
    note: drawn below every figure.
  """

  method: str = 'rollout'
  layers: str = 'first,middle,last'
  heads: str = 'mean'
  class_index: int | None = None
  fit: str = 'crop'
  format: str = 'png'
  alpha: float = 0.6
  colormap: str = 'viridis'
  dpi: int = 150
  batch: int = 8
  image_size: int | None = None
  faithfulness: bool = True
  num_heads: int | None = None
  note: str = ''


def parse_layers(text: str, num_layers: int) -> list[int]:
  """Returns the layers that a text such as 'first,5,last' or 'all' names.

  Args:
    text: as of `Settings`; negative numbers count from the end.
    num_layers: of the model.

  Raises:
    ConfigError: there is no such layer, or it is no such text.
  """
  if text == 'all':
    return list(range(num_layers))
  names = {'first': 0, 'middle': num_layers // 2, 'last': num_layers - 1}
  return _indices('layer', text, num_layers, names)


def parse_heads(text: str, num_heads: int) -> list[int] | None:
  """Returns the heads that a text names; None is the mean of all.

  Args:
    text: as of `Settings`; negative numbers count from the end.
    num_heads: of the model.

  Raises:
    ConfigError: there is no such head, or it is no such text.
  """
  if text == 'mean':
    return None
  if text == 'all':
    return list(range(num_heads))
  return _indices('head', text, num_heads, {})


def _indices(
  kind: str, text: str, size: int, names: dict[str, int]
) -> list[int]:
  found = []
  for part in text.split(','):
    name = part.strip()
    try:
      index = names[name] if name in names else int(name)
    except ValueError as error:
      words = ', '.join([*names, 'all' if names else 'mean, all'])
      raise errors.ConfigError(
        f'{kind}s {text!r}: {name!r} is no {kind}. Valid are {words}, and '
        f'numbers from 0 to {size - 1} with commas between.'
      ) from error
    found.append(check_index(kind, index, size))
  return list(dict.fromkeys(found))
