"""Collects images with their attention and writes the page that shows them."""

import base64
import html
import json
import os
import pathlib
import string
from typing import Any

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8

from vit_jax import attention, errors, figures, whole_files
from vit_jax.attention.weights import check_model, with_class_token
from vit_jax.attention_report.explorer import packing
from vit_jax.data import augment

# What browsers open in seconds: an image of L/16 at 384 pixels, or 26 of B/16
# at 224.
MAX_BYTES = 160 * 2**20
_SCRIPTS = ('weights.js', 'picture.js', 'controls.js')


class Page:
  """Images and their attention, to be written as one page."""

  def __init__(
    self,
    model: Any,
    params: Any,
    style: figures.Style | None = None,
    *,
    title: str = 'Attention',
    head_fusion: str = 'mean',
    discard_ratio: float = 0.0,
    max_bytes: int = MAX_BYTES,
  ):
    """Begins an empty page.

    Args:
      model: a ViT or hybrid.
      params: of the model.
      style: its colours, their share at first, and the note.
      title: the page's heading, such as the name of the model.
      head_fusion: of the rollout; as of `attention.rollout`.
      discard_ratio: the same.
      max_bytes: how much attention there may be on the page.

    Raises:
      ConfigError: the model has no attention.
    """
    check_model(model)
    self._model, self._params = model, params
    self._style = style or figures.Style()
    self._title = title
    self._rollout = (head_fusion, discard_ratio)
    self._left = max_bytes
    self._image_size: tuple[int, int] | None = None
    self._images: list[dict[str, str]] = []
    self._packed: list[bytes] = []

  @property
  def num_images(self) -> int:
    """Of those on the page."""
    return len(self._images)

  def check(self, image_size: tuple[int, int]) -> None:
    """Raises ConfigError if not even one image of a size fits the page.

    Args:
      image_size: (height, width) in pixels.
    """
    size = self._size(image_size)
    if size > self._left and not self._images:
      rows, columns = self._model.grid(image_size)
      raise errors.ConfigError(
        f'The attention of {self._model.num_layers} layers and '
        f'{self._model.num_heads} heads between {rows} by {columns} patches '
        f'takes {size / 2**20:,.0f} MB, more than the {self._left / 2**20:,.0f}'
        ' MB that a page may hold. Give a smaller image size, or draw figures.'
      )

  def add(
    self, image: UInt8[np.ndarray, 'height width 3'], name: str, title: str = ''
  ) -> bool:
    """Adds an image, or returns False if there is no room for it.

    Args:
      image: as the model saw it; all of one size.
      name: such as that of its file.
      title: what is said of it, such as the prediction.

    Raises:
      ConfigError: not even one fits, or it is of another size than the first.
    """
    size = image.shape[0], image.shape[1]
    self.check(size)
    if self._image_size not in (None, size):
      raise errors.ConfigError(
        f'{name}: {size[0]} by {size[1]} pixels, on a page of images with '
        f'{self._image_size[0]} by {self._image_size[1]}. Make one page a size.'
      )
    if self._size(size) > self._left:
      return False
    self._left -= self._size(size)
    self._image_size = size
    self._packed.append(self._attention(image))
    self._images.append({'name': name, 'title': title, 'source': _png(image)})
    return True

  def write(self, path: str | os.PathLike, num_left_out: int = 0) -> None:
    """Writes the page; the file appears whole or not at all.

    Args:
      path: of the file.
      num_left_out: images that had no room, which the page says.

    Raises:
      ConfigError: there is no image on the page.
      OSError: the file can not be written.
    """
    if self._image_size is None:
      raise errors.ConfigError('A page needs an image: add one.')
    settings = {
      'title': self._title,
      'note': self._style.note,
      'numLeftOut': num_left_out,
      'numLayers': self._model.num_layers,
      'numHeads': self._model.num_heads,
      'hasClassToken': with_class_token(self._model),
      'grid': self._model.grid(self._image_size),
      'imageSize': self._image_size,
      'tokenSize': attention.token_size(self._model),
      'headFusion': self._rollout[0],
      'alpha': self._style.alpha,
      'colors': _colors(self._style.colormap),
      'images': self._images,
    }
    packed = '\n'.join(
      f'<script type="text/plain" id="weights{i}">'
      f'{base64.b64encode(each).decode("ascii")}</script>'
      for i, each in enumerate(self._packed)
    )
    text = _Template(_part('page.html')).substitute(
      title=html.escape(self._title),
      style=_part('page.css'),
      settings=_json(settings),
      weights=packed,
      script='\n'.join(_part(name) for name in _SCRIPTS),
    )
    path = pathlib.Path(path)
    # A path in the title may have bytes that are no text.
    whole_files.write_text(
      path, text.encode('utf-8', 'replace').decode('utf-8')
    )

  def _size(self, image_size: tuple[int, int]) -> int:
    rows, columns = self._model.grid(image_size)
    patches = rows * columns
    return packing.packed_size(
      self._model.num_layers,
      self._model.num_heads,
      patches + with_class_token(self._model),
      patches,
    )

  def _attention(self, image: np.ndarray) -> bytes:
    batch = augment.normalize(jnp.asarray(image[None]))
    found = attention.attention_weights(self._model, self._params, batch)[:, 0]
    class_token = with_class_token(self._model)
    rolled = attention.layer_rollouts(
      found, *self._rollout, class_token=class_token
    )
    return packing.pack(np.asarray(found), np.asarray(rolled), class_token)


class _Template(string.Template):
  """As the page's own `$` and `${}` are JavaScript's."""

  delimiter = '@@'


def _part(name: str) -> str:
  return (pathlib.Path(__file__).parent / name).read_text(encoding='utf-8')


def _json(settings: dict[str, Any]) -> str:
  """Returns JSON in which nothing can end the element that it stands in."""
  return json.dumps(settings).replace('<', '\\u003c')


def _png(image: np.ndarray) -> str:
  """Returns the address of an image that is in the address itself."""
  _, encoded = cv2.imencode('.png', image[..., ::-1])
  content = base64.b64encode(encoded.tobytes()).decode('ascii')
  return f'data:image/png;base64,{content}'


def _colors(colormap: str) -> list[list[int]]:
  """Returns the 256 RGB colours of a colormap, in 0 to 255."""
  ramp = np.arange(256, dtype=np.float32)[None]
  black = np.zeros((1, 256, 3), np.uint8)
  style = figures.Style(alpha=1.0, colormap=colormap)
  return figures.overlay(black, ramp, style)[0].tolist()
