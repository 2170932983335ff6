"""How well a map tells what a model looks at: Petsiuk et al. 2018, RISE.

Patches are taken from the image (deletion) or put into a baseline (insertion),
those first that the map puts first; arXiv 1806.07421, section 4.2. A map is the
better, the faster the class's probability falls with deletion and rises with
insertion.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vit_jax import errors
from vit_jax.attention.classes import Classes, checked_classes
from vit_jax.attention.maps import token_size
from vit_jax.models import spatial_transformer

Array = jax.Array | np.ndarray

BASELINES = ('mean', 'blur', 'zero')


class Curves(NamedTuple):
  """The probability of a class over the share of patches changed.

  Attributes:
    shares: float32 [steps + 1], from 0 to 1, of patches deleted or inserted.
    deletion: float32 [batch, steps + 1].
    insertion: float32 [batch, steps + 1].
    deletion_area: float32 [batch] in [0, 1], under the curve; less is better.
    insertion_area: the same; more is better.
  """

  shares: jax.Array
  deletion: jax.Array
  insertion: jax.Array
  deletion_area: jax.Array
  insertion_area: jax.Array


def faithfulness_curves(
  model: Any,
  params: Any,
  images: Float[Array, '*batch height width 3'],
  maps: Float[Array, '...'],
  classes: Classes = None,
  baseline: str = 'mean',
  num_steps: int = 20,
) -> Curves:
  """Returns deletion and insertion curves and the areas under them.

  It takes 2 * (num_steps + 1) forward passes of all images, one after the
  other, in the memory of one.

  Args:
    model: with a head and one output for each image; may be a Mixer. Patches
      behind a spatial transformer are of what that makes of an image.
    params: of the model.
    images: [batch, height, width, 3] in [-1, 1].
    maps: [batch, rows, columns], of the grid of the model; only the order of
      each one's values counts, and of equal ones the upper left comes first.
    classes: whose probability: one index for all images, [batch] indices, or
      None for the class that is predicted for the image as it is.
    baseline: what takes the place of a patch: 'mean' is the image's mean
      colour, 'blur' the image blurred by a Gaussian as wide as a token, 'zero'
      mid-grey.
    num_steps: equal shares of patches; no more than there are patches.

  Raises:
    ConfigError: an unknown baseline, or maps, classes or steps that don't fit.
  """
  classes = checked_classes(model, len(images), classes)
  grid = model.grid(images.shape[1:3])
  if maps.shape != (len(images), *grid):
    raise errors.ConfigError(
      f'Maps of shape {maps.shape} are not those of {len(images)} images with '
      f'{grid[0]} by {grid[1]} patches: expected {(len(images), *grid)}.'
    )
  if baseline not in BASELINES:
    raise errors.ConfigError(
      errors.unknown_name('baseline', str(baseline), BASELINES)
    )
  if num_steps < 1:
    raise errors.ConfigError(
      f'num_steps {num_steps} is not positive: in one step all patches change.'
    )
  num_steps = min(num_steps, grid[0] * grid[1])
  return _curves(model, params, images, maps, classes, baseline, num_steps)


def centre_map(grid: tuple[int, int]) -> Float[np.ndarray, 'rows columns']:
  """Returns a map that knows nothing but that things stand in the middle.

  What a method's map has to beat. From 1 in the centre it falls with the
  distance, to 0 in the corners.

  Args:
    grid: (rows, columns) of patches.
  """
  # The patches' centres, from -1 to 1 across the image.
  rows, columns = ((2 * np.arange(size) + 1) / size - 1 for size in grid)
  distances = np.hypot(rows[:, None], columns)
  farthest = max(distances.max(), np.finfo(np.float32).tiny)
  return (1 - distances / farthest).astype(np.float32)


@jax.jit(static_argnums=(0, 5, 6))
def _curves(model, params, images, maps, classes, baseline, num_steps):
  images, patches = jnp.asarray(images), maps[0].size
  if spatial_transformer.of_model(model) is not None:
    images, _ = spatial_transformer.transform(model, params, images)
    model, params = spatial_transformer.without(model, params)
  if classes is None:
    classes = model.apply({'params': params}, images, train=False).argmax(-1)
  other = _baseline(images, baseline, token_size(model))
  ranks = _pixel_ranks(maps, images.shape[1:3], token_size(model))
  counts = jnp.round(jnp.arange(num_steps + 1) * patches / num_steps)

  def probability(count, first, then):
    """Of images with `count` patches of the one, the rest of the other."""
    mixed = jnp.where((ranks < count)[..., None], first, then)
    logits = model.apply({'params': params}, mixed, train=False)
    chosen = jnp.take_along_axis(jax.nn.softmax(logits), classes[:, None], -1)
    return chosen[:, 0]

  def curve(first, then):
    return jax.lax.map(lambda count: probability(count, first, then), counts).T

  deletion, insertion = curve(other, images), curve(images, other)
  shares = (counts / patches).astype(jnp.float32)
  areas = (jnp.trapezoid(curve, shares) for curve in (deletion, insertion))
  return Curves(shares, deletion, insertion, *areas)


def _pixel_ranks(maps, image_size, size):
  """Returns for each pixel at which place its patch is in the map's order."""
  batch, rows, columns = maps.shape
  order = jnp.argsort(-jnp.asarray(maps).reshape(batch, -1), axis=1)
  ranks = jnp.argsort(order, axis=1).reshape(maps.shape)
  # Pixels beyond the last whole patch go with it: a ResNet sees them.
  down, right = (
    np.minimum(np.arange(pixels) // step, last - 1)
    for pixels, step, last in zip(
      image_size, size, (rows, columns), strict=True
    )
  )
  return ranks[:, down][:, :, right]


def _baseline(images, baseline, size):
  """Returns what patches are replaced by, broadcastable to the images."""
  if baseline == 'zero':
    return jnp.zeros((1, 1, 1, 1))
  if baseline == 'mean':
    return images.mean(axis=(1, 2), keepdims=True)
  vertical, horizontal = (
    _blur_matrix(pixels, sigma)
    for pixels, sigma in zip(images.shape[1:3], size, strict=True)
  )
  return jnp.einsum('yh,xw,bhwc->byxc', vertical, horizontal, images)


def _blur_matrix(pixels: int, sigma: int) -> np.ndarray:
  """Returns the [pixels, pixels] that blurs a line; its rows sum to one."""
  places = np.arange(pixels)
  matrix = np.exp(-0.5 * ((places[:, None] - places) / sigma) ** 2)
  matrix /= matrix.sum(axis=1, keepdims=True)
  return matrix.astype(np.float32)
