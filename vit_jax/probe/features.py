"""Features of every example of a split, from one pass over it."""

import dataclasses
import re
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vit_jax import errors, outputs, progress
from vit_jax.data import sources

# Pixels are compared as they are up to this side, larger images reduced to it.
PIXEL_SIDE = 32
_SECONDS = 30.0  # From one line about the progress to the next.

Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
  """What is known of the examples of a split, those that could be read.

  Attributes:
    labels: int32 [n].
    values: float32 [n, num_features], by what they are of: 'features', and
      'pixels' if asked for.
  """

  labels: np.ndarray
  values: dict[str, np.ndarray]


def make_apply(model: Any, layer: str, with_pixels: bool) -> outputs.Apply:
  """Returns what gives the features of images, to be compiled.

  Args:
    model: with or without a head, which is left out.
    layer: '' for what the head reads, so with the layer `pre_logits` where
      there is one; 'encoder' for what that layer reads; a number, from 0, for
      what comes out of that block: its class token, or the mean of its tokens
      where there is none.
    with_pixels: whether to give those of the image, too.

  Raises:
    ConfigError: the model has no such layer.
  """
  model = model.clone(num_classes=None)
  capture = block = None
  if layer == 'encoder' and hasattr(model, 'representation_size'):
    model = model.clone(representation_size=None)
  elif layer.isdecimal():
    block = _block_name(model, int(layer))
    capture = lambda module, _: module.name == block  # noqa: E731
  elif layer not in ('', 'encoder'):
    raise errors.ConfigError(
      f'layer {layer!r} is neither a number from 0 nor "encoder".'
    )

  def apply(params: Any, images: jax.Array) -> dict[str, jax.Array]:
    variables = {'params': params}
    if block is None:
      found = {'features': model.apply(variables, images)}
    else:
      _, state = model.apply(variables, images, capture_intermediates=capture)
      found = {'features': _pooled(state['intermediates'], block, model)}
    if with_pixels:
      found['pixels'] = _pixels(images)
    return found

  return apply


def _block_name(model: Any, number: int) -> str:
  """Returns what the module of a block is called."""
  for stem, field in (('encoderblock', 'num_layers'),
                      ('MixerBlock', 'num_blocks')):  # fmt: skip
    count = getattr(model, field, None)
    if count is not None:
      if number < count:
        return f'{stem}_{number}'
      raise errors.ConfigError(
        f'layer {number}: the model has {count} blocks, 0 to {count - 1}.'
      )
  raise errors.ConfigError(
    f'layer {number}: a {type(model).__name__} has no blocks to number. Leave '
    'the layer out for the features before the head.'
  )


def _pooled(captured: Any, block: str, model: Any) -> jax.Array:
  found = captured.get('Transformer', captured)[block]['__call__'][0]
  if 'token' in getattr(model, 'classifier', ''):
    return found[:, 0].astype('float32')
  return found.astype('float32').mean(axis=1)


def _pixels(images: jax.Array) -> jax.Array:
  """Returns [batch, height * width * 3], of at most `PIXEL_SIDE` a side."""
  batch, height, width, channels = images.shape
  small = (min(height, PIXEL_SIDE), min(width, PIXEL_SIDE))
  if small != (height, width):
    images = jax.image.resize(images, (batch, *small, channels), 'linear')
  return images.reshape(batch, -1)


def of_source(
  apply: outputs.Apply,
  params: Any,
  config: Any,
  source: sources.Source,
  mesh: Mesh,
  tell: Tell,
) -> Features:
  """Returns the features of all examples; each is read once.

  Args:
    apply: from `make_apply`.
    params: of the model.
    config: as `outputs.of_split` takes it.
    source: of the examples, of one label each.
    mesh: devices of this process.
    tell: is given a line now and then of how far it is.

  Raises:
    DataError: an image can't be used, or there is none.
    NonFiniteError: features that are no numbers.
  """
  parts = outputs.of_split(apply, params, config, source, mesh)
  labels = np.zeros(len(source), np.int32)
  values: dict[str, np.ndarray] = {}
  done, start = 0, time.monotonic()
  told = start
  for part in parts:
    stop = done + len(part.labels)
    labels[done:stop] = part.labels
    for name, rows in part.values.items():
      if name not in values:  # Filled in place: there may be gigabytes.
        values[name] = np.empty((len(source), rows.shape[1]), np.float32)
      values[name][done:stop] = rows
    done, now = stop, time.monotonic()
    if now - told > _SECONDS and done:
      told, left = now, (now - start) * (len(source) - done) / done
      tell(
        f'features of {source.split}: {done:,} of {len(source):,}, '
        f'{progress.format_duration(left)} left'
      )
  if not done:
    raise errors.DataError(
      f'{source.name} ({source.split}) has no example that can be read.'
    )
  found = {name: rows[:done] for name, rows in values.items()}
  _check_finite(found, source)
  return Features(labels[:done], found)


def _check_finite(values: dict[str, np.ndarray], source: sources.Source):
  for rows in values.values():
    # A sum is not finite where one of its parts is not; nothing is copied.
    bad = ~np.isfinite(rows.sum(axis=1, dtype=np.float64))
    if bad.any():
      raise errors.NonFiniteError(
        f'{bad.sum():,} of {len(bad):,} examples of {source.name} '
        f'({source.split}) have features that are no numbers. The weights may '
        'be damaged, or those of a training that failed.'
      )


def layer_text(model: Any, layer: str) -> str:
  """Returns what the features are, for people."""
  if re.fullmatch(r'\d+', layer):
    pooled = 'token' in getattr(model, 'classifier', '')
    return f'block {layer}, {"class token" if pooled else "mean of its tokens"}'
  if getattr(model, 'representation_size', None) is None:
    return 'before the head'
  return 'before pre_logits' if layer else 'before the head, after pre_logits'
