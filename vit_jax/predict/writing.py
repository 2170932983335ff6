"""Predictions as text: lines of JSON, or a table to read."""

import json
from collections.abc import Sequence

from vit_jax import class_names, trained
from vit_jax.data import decode
from vit_jax.predict.predicting import Prediction

_WIDEST = 48  # Characters of an image's name in a table.


class Lines:
  """Writes predictions as JSON, one object a line."""

  def __init__(self, opened: trained.Trained, top_k: int):
    """Args are the model, for the names of its classes, and how many."""
    self._opened, self._top_k = opened, top_k

  def text(self, prediction: Prediction) -> str:
    """Returns the line of a prediction without an error.

    {"image": its name, "top": [{"class": its number, "name": or null, "wnid":
    the WordNet ID if it has one, "probability": in [0, 1]}, ...]}
    """
    top = [
      {'class': i, **self._naming(i), 'probability': probability}
      for i, probability in prediction.top(self._top_k)
    ]
    return json.dumps({'image': prediction.image, 'top': top})

  def _naming(self, index: int) -> dict[str, str | None]:
    if self._opened.class_names is None:
      return {'name': None}
    name = self._opened.class_names[index]
    words = class_names.readable(name)
    return {'name': name} if words == name else {'name': words, 'wnid': name}


class Table:
  """Writes predictions as the rows of a table, whose head comes first."""

  def __init__(self, opened: trained.Trained, top_k: int, names: Sequence[str]):
    """Args are as of `Lines`, and the names of all images."""
    self._opened, self._top_k = opened, top_k
    longest = max((len(decode.shown(name)) for name in names), default=0)
    self._width = max(min(longest, _WIDEST), len('image'))
    self._has_head = False

  def text(self, prediction: Prediction) -> str:
    """Returns the rows of a prediction without an error."""
    image, width, rows = decode.shown(prediction.image), self._width, []
    if len(image) > width:  # Of a path, the end tells more.
      image = '…' + image[1 - width :]
    if not self._has_head:
      self._has_head = True
      rows.append(f'{"image":<{width}}  probability  class')
    for index, probability in prediction.top(self._top_k):
      name = decode.shown(self._opened.class_name(index))
      if name != f'class {index}':
        name = f'{name} ({index})'
      rows.append(f'{image:<{width}}  {probability:>11.2%}  {name}')
      image = ''
    return '\n'.join(rows)
