"""What a report shows, and which layers and heads the user's words mean."""

import dataclasses
from collections.abc import Sequence

from vit_jax import errors
from vit_jax.attention.maps import check_index
from vit_jax.class_names import readable


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is drawn, and how.

  Attributes:
    method: a key of `METHODS`.
    layers: 'all', or any of 'first', 'middle', 'last' and numbers, by commas.
    heads: 'mean', 'all', or numbers, by commas.
    class_asked: the class that is asked about, its number or its name; None for
      the predicted one.
    head_fusion: of rollouts: 'mean', 'max' or 'min'.
    discard_ratio: of rollouts: share of the weights left out, in [0, 1).
    fit: a key of `data.images.FITS`.
    format: of the figures: 'png', 'pdf' or 'svg'.
    alpha: share of the map's colour in an overlay.
    colormap: matplotlib's name.
    dpi: of the figures.
    batch: images at a time.
    image_size: side in pixels, or (height, width); None for what the weights
      were made for.
    faithfulness: whether deletion and insertion areas are measured, which takes
      42 forward passes.
    num_heads: of the model, for a file that doesn't say it.
    note: drawn below every figure.
  """

  method: str = 'rollout'
  layers: str = 'first,middle,last'
  heads: str = 'mean'
  class_asked: str | int | None = None
  head_fusion: str = 'mean'
  discard_ratio: float = 0.0
  fit: str = 'crop'
  format: str = 'png'
  alpha: float = 0.6
  colormap: str = 'viridis'
  dpi: int = 150
  batch: int = 8
  image_size: int | tuple[int, int] | None = None
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


def parse_class(
  asked: str | int, num_classes: int, names: Sequence[str] | None
) -> int:
  """Returns the class that a number or a name means, counted from 0.

  Args:
    asked: as of `Settings`; negative numbers count from the end.
    num_classes: of the model.
    names: of the classes, where they are known.

  Raises:
    ConfigError: there is no such class.
  """
  for each in (names or [], [readable(name) for name in names or []]):
    if str(asked) in each:
      return each.index(str(asked))
  try:
    index = int(asked)
  except ValueError as error:
    if names:
      text = errors.unknown_name('class', str(asked), names)
    else:
      text = (
        f'{asked!r} is no class: these weights come without class names, so '
        f'give a number from 0 to {num_classes - 1}.'
      )
    raise errors.ConfigError(text) from error
  return check_index('class', index, num_classes)


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
