"""Made-up weights and images, and what the original code makes of them.

`golden/expected.npz` holds outputs of the original on CPU in float32. Its
inputs are not stored: every array is drawn from a seed and its own key, so
that they come out the same on every machine.
"""

import functools
import json
import math
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

GOLDEN = pathlib.Path(__file__).parent / 'golden'
MINI_VITS = (
  'mini-vit',
  'mini-vit-prelogits',
  'mini-vit-gap',
  'mini-hybrid',
  'mini-stem-hybrid',
)
MINIS = (*MINI_VITS, 'mini-mixer')
FULL_SIZES = ('ViT-B_16-224', 'R50+ViT-B_16-224')


def make_checkpoint(
  layout: Mapping[str, Sequence[int]], seed: int
) -> dict[str, np.ndarray]:
  """Returns float32 weights with the keys and shapes of `layout`."""
  return {key: _draw(key, tuple(layout[key]), seed) for key in layout}


def _draw(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
  """Draws one array at a scale that keeps activations lively."""
  rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
  noise = rng.standard_normal(shape, dtype=np.float32)
  parts = key.split('/')
  if parts[-1] == 'scale':
    return 1 + 0.2 * noise
  if parts[-1] in ('bias', 'cls', 'pos_embedding', 'probe'):
    return 0.2 * noise
  # Projections are [width, heads, head_dim], all others have the outputs last.
  inside = parts[1:-1]
  projection = {'query', 'key', 'value'} & {*inside}
  fan_in = shape[0] if projection else math.prod(shape[:-1])
  gain = 2 if projection - {'value'} else 1  # Sharp, uneven attention.
  return gain * noise / np.sqrt(fan_in, dtype=np.float32)


def make_images(batch: int, height: int, width: int, seed: int) -> np.ndarray:
  """Returns float32 [batch, height, width, 3] in [-1, 1]: waves and noise."""
  rng = np.random.default_rng([seed, batch, height, width])
  grid = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
  y, x = grid.astype(np.float32)
  images = np.empty((batch, height, width, 3), np.float32)
  for example in range(batch):
    for channel in range(3):
      # The order of the draws is part of the recipe.
      down, right = rng.uniform(1, 9), rng.uniform(1, 9)
      angle = 6.28 * (down * y + right * x) + rng.uniform(0, 6.28)
      images[example, ..., channel] = 0.7 * np.sin(angle)
  images += rng.normal(0, 0.1, images.shape).astype(np.float32)
  return images.clip(-1, 1)


def layout(name: str) -> dict[str, tuple[int, ...]]:
  """Returns {key: shape} of the file called `name`, as it is on disk."""
  text = (GOLDEN / 'layouts' / f'{name}.json').read_text()
  return {key: tuple(shape) for key, shape in json.loads(text).items()}


@functools.cache
def configs() -> dict[str, dict[str, Any]]:
  """Returns num_classes, image_size and config of each mini model."""
  return json.loads((GOLDEN / 'configs.json').read_text())


@functools.cache
def expected() -> dict[str, np.ndarray]:
  """Returns what the original computed, by 'MODEL/WHAT'."""
  with np.load(GOLDEN / 'expected.npz') as file:
    return dict(file)


def relative_error(found: Any, wanted: Any) -> float:
  """Returns the L2 norm of the difference over that of `wanted`."""
  found, wanted = np.asarray(found, 'f8'), np.asarray(wanted, 'f8')
  assert found.shape == wanted.shape
  return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
