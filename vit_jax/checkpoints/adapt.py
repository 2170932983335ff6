"""Fits the parameters of a file to a model: positions, head, `pre_logits`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.ndimage
from absl import logging
from flax import traverse_util
from jaxtyping import Float

from vit_jax import errors

_POSITIONS = 'Transformer/posembed_input/pos_embedding'


def fit_params(
  params: Mapping[str, Any],
  expected: Mapping[str, Any],
  grid: tuple[int, int],
  *,
  head_bias_init: float = 0.0,
  fresh_head: bool = True,
  source: str = 'the weights',
) -> dict[str, Any]:
  """Returns `params` with every array in the shape that the model expects.

  Position embeddings are resized to `grid`. The head is kept if it fits, else
  it is made afresh: kernel zero, bias `head_bias_init`. A `pre_logits` layer
  that the model doesn't have is dropped, and with it the head that read it.

  Args:
    params: nested parameters as read from a file.
    expected: nested arrays or `jax.ShapeDtypeStruct`s of the model at the
      wanted image size.
    grid: (rows, columns) of patches at that image size.
    head_bias_init: bias of a fresh head.
    fresh_head: whether a head that doesn't fit is made afresh; False reports
      it with what else doesn't fit.
    source: how to call the parameters in an error.

  Raises:
    CheckpointError: arrays are missing, left over or of the wrong shape; the
      text lists them all.
  """
  flat: dict[str, Any] = traverse_util.flatten_dict(dict(params), sep='/')
  wanted: dict[str, Any] = traverse_util.flatten_dict(dict(expected), sep='/')

  if 'pre_logits/kernel' in flat and 'pre_logits/kernel' not in wanted:
    # A head of the right shape would still read features it never saw.
    flat = _without(_without(flat, 'pre_logits/'), 'head/')
  if np.ndim(flat.get(_POSITIONS, 0)) == 3 and _POSITIONS in wanted:
    has_class_token = 'cls' in wanted
    # Where only one of the two has the class token, the shapes below differ
    # and say so; resizing would hide it.
    if has_class_token == ('cls' in flat):
      flat[_POSITIONS] = resize_position_embedding(
        flat[_POSITIONS], grid, has_class_token, source=source
      )
  flat = _fit_head(flat, wanted, head_bias_init, fresh_head, source)
  _check_shapes(flat, wanted, source)
  return traverse_util.unflatten_dict(
    {key: np.asarray(flat[key], wanted[key].dtype) for key in wanted}, sep='/'
  )


def _fit_head(flat, wanted, head_bias_init, fresh_head, source):
  """Returns `flat` with the head that the model has, if it has one."""
  head = {key: wanted[key] for key in wanted if key.startswith('head/')}
  if not head:  # A model without a head gives the features before it.
    return _without(flat, 'head/')
  fits = all(
    key in flat and np.shape(flat[key]) == np.shape(head[key]) for key in head
  )
  if fits or not fresh_head:
    if 'head/kernel' in flat and not np.any(flat['head/kernel']):
      logging.warning(
        "%s: the head's kernel is all zeros, so its logits say nothing about "
        'an image. It has to be fine-tuned first.',
        source,
      )
    return flat
  flat = _without(flat, 'head/')
  for key, array in head.items():
    value = head_bias_init if key == 'head/bias' else 0.0
    flat[key] = np.full(array.shape, value, array.dtype)
  return flat


def resize_position_embedding(
  embedding: Float[np.ndarray, '1 tokens width'],
  grid: tuple[int, int],
  has_class_token: bool,
  *,
  source: str = 'the weights',
) -> Float[np.ndarray, '1 tokens_out width']:
  """Returns the embedding of an image of another size.

  Bilinear per axis with the corners aligned, as `scipy.ndimage.zoom` does it at
  order 1; the class token's slot stays as it is. `jax.image.resize` samples
  other points.

  A file says how many patches there were, not in how many rows. A number that
  is a square is taken for a square grid, so weights for a grid of 2 by 8 can't
  be told from ones for 4 by 4.

  Args:
    embedding: [1, tokens, width], made for a square grid.
    grid: (rows, columns) of the result.
    has_class_token: whether the first slot is the class token's.
    source: how to call the embedding's origin in an error.

  Raises:
    CheckpointError: the grid it was made for is not square and not `grid`.
  """
  num_slots = 1 if has_class_token else 0
  slot, patches = embedding[:, :num_slots], embedding[0, num_slots:]
  tokens, width = patches.shape
  side = round(tokens**0.5)
  if not tokens or side * side != tokens:
    if tokens == grid[0] * grid[1]:
      return embedding  # A file of ours for the same non-square images.
    raise errors.CheckpointError(
      f'{source}: {_POSITIONS} has {tokens} patches, which is no square grid, '
      f'and the model has a grid of {grid[0]} by {grid[1]}. Set the image size '
      'that the file was made for.'
    )
  if (side, side) == tuple(grid):
    return embedding
  zoom = (grid[0] / side, grid[1] / side, 1)
  patches = patches.reshape(side, side, width).astype(np.float32)
  patches = scipy.ndimage.zoom(patches, zoom, order=1)
  patches = patches.reshape(1, grid[0] * grid[1], width)
  return np.concatenate([slot, patches.astype(embedding.dtype)], axis=1)


def _without(flat: Mapping[str, Any], prefix: str) -> dict[str, Any]:
  return {k: v for k, v in flat.items() if not k.startswith(prefix)}


def _check_shapes(flat: Mapping[str, Any], wanted: Mapping[str, Any], source):
  missing = sorted({*wanted} - {*flat})
  extra = sorted({*flat} - {*wanted})
  misfit = [
    f'{key}: found {np.shape(flat[key])}, expected {np.shape(wanted[key])}'
    for key in sorted({*flat} & {*wanted})
    if np.shape(flat[key]) != np.shape(wanted[key])
  ]
  if not (missing or extra or misfit):
    return
  lines = [f'{source} does not fit the model:']
  for title, entries in [
    ('missing', missing),
    ('not in the model', extra),
    ('other shape', misfit),
  ]:
    if entries:
      lines.append(f'  {title} ({len(entries)}):')
      lines += [f'    {entry}' for entry in entries]
  lines.append(
    'Choose the model that the file was made with '
    '(config.model, or the first part of the config argument).'
  )
  raise errors.CheckpointError('\n'.join(lines))
