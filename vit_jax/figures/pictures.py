"""Makes pictures of maps: stretched over the image, coloured, blended."""

import dataclasses
import functools

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8

from vit_jax import errors

Size = tuple[int, int]
Image = UInt8[np.ndarray, 'height width 3']
Map = Float[np.ndarray, 'rows columns']


@dataclasses.dataclass(frozen=True)
class Style:
  """How maps are shown.

  Attributes:
    alpha: share of the map's colour over the image, in [0, 1].
    colormap: a name of matplotlib's.
    dpi: pixels per inch of the file.
    token_size: (height, width) in pixels of a map's value, as
      `attention.token_size` gives it; None spreads the map over the image.
    note: drawn below every figure, such as 'random weights'.

  Raises:
    ConfigError: a value that can't be.
  """

  alpha: float = 0.6
  colormap: str = 'viridis'
  dpi: int = 150
  token_size: Size | None = None
  note: str = ''

  def __post_init__(self):
    if not 0 <= self.alpha <= 1:
      raise errors.ConfigError(
        f'alpha {self.alpha} is not in [0, 1]: 0 shows the image alone, 1 the '
        'map alone.'
      )
    if not 10 <= self.dpi <= 1200:
      raise errors.ConfigError(
        f'dpi {self.dpi} is not in 10 to 1200. Print needs 300.'
      )
    if self.colormap not in matplotlib.colormaps:
      # Reversed ones would only double the list.
      names = [each for each in matplotlib.colormaps if each[-2:] != '_r']
      raise errors.ConfigError(
        errors.unknown_name('colormap', self.colormap, names)
      )


def stretch(
  values: Map, image_size: Size, token_size: Size | None = None
) -> Float[np.ndarray, 'height width']:
  """Returns a map with a value for each pixel.

  Bilinear between the centres of the patches, so that each value stands in the
  middle of what it is about; beyond the outer centres it stays the same.

  Args:
    values: [rows, columns].
    image_size: (height, width) in pixels.
    token_size: (height, width) in pixels from one patch to the next, where the
      patches don't fill the image; None if they do.
  """
  values = np.asarray(values, np.float32)
  sizes = zip(image_size, values.shape, token_size or (None, None), strict=True)
  down, across = (
    _between(pixels, patches, float(step or pixels / patches))
    for pixels, patches, step in sizes
  )
  return down @ values @ across.T


@functools.lru_cache(maxsize=8)  # Maps come in many of one size.
def _between(pixels: int, patches: int, step: float) -> np.ndarray:
  """Returns the [pixels, patches] that interpolates a line of values."""
  places = (np.arange(pixels) + 0.5) / step - 0.5
  rows = [np.interp(places, range(patches), row) for row in np.eye(patches)]
  return np.stack(rows, axis=1).astype(np.float32)


def min_max(values: np.ndarray) -> np.ndarray:
  """Returns values moved and scaled to [0, 1]; equal ones become zeros."""
  values = np.asarray(values, np.float32)
  span = values.max() - values.min()
  # Subtracting first: a tiny span over large values has few digits as it is.
  return (values - values.min()) / max(span, np.finfo(np.float32).tiny)


def overlay(image: Image, values: Map, style: Style | None = None) -> Image:
  """Returns an image with a map over it, pixel for pixel where it was.

  Args:
    image: as the model saw it.
    values: the map; shown from its smallest to its largest value.
    style: colours and how much of them.
  """
  style = style or Style()
  share = min_max(stretch(values, image.shape[:2], style.token_size))
  colors = matplotlib.colormaps[style.colormap](share, bytes=True)[..., :3]
  # Half a step more, as the cast cuts off.
  alpha = np.float32(style.alpha)
  return (image + alpha * (colors.astype(np.float32) - image) + 0.5).astype(
    np.uint8
  )


def six_steps(
  image: Image,
  heads: Float[np.ndarray, 'heads rows columns'],
  token_size: Size | None = None,
) -> tuple[np.ndarray, ...]:
  """Returns the six steps of the small-ViT tutorial's map.

  Args:
    image: as the model saw it.
    heads: class-token maps of the last layer's heads.
    token_size: as of `stretch`.

  Returns:
    The mean of the heads' rows [patches]; as a grid [rows, columns]; as large
    as the image [height, width]; from 0 to 1; times the image, from 0 to 1
    [height, width, 3]; and twice that, cut at 1.
  """
  grid = np.asarray(heads, np.float32).mean(axis=0)
  large = stretch(grid, image.shape[:2], token_size)
  share = min_max(large)
  product = share[..., None] * image.astype(np.float32) / 255
  return (
    grid.reshape(-1), grid, large, share, product, np.minimum(2 * product, 1)
  )  # fmt: skip
