"""Fits the parameters of a file to a model: positions, head, `pre_logits`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.ndimage
from absl import logging
from jaxtyping import Float

from vit_jax import errors
from vit_jax.checkpoints.arrays import StoredArray, read_arrays

_POSITIONS = 'Transformer/posembed_input/pos_embedding'


def fit_arrays(
  arrays: Mapping[str, StoredArray],
  expected: Mapping[str, Any],
  grid: tuple[int, int],
  *,
  head_bias_init: float = 0.0,
  fresh_head: bool = True,
  source: str = 'the weights',
) -> dict[str, StoredArray]:
  """Returns the arrays of a file in the shapes that a model expects.

  Position embeddings are resized to `grid`. The head is kept if it fits, else
  it is made afresh: kernel zero, bias `head_bias_init`. A `pre_logits` layer
  that the model doesn't have is dropped, and with it the head that read it.

  Nothing else is read from the file than what that needs, so a file that
  doesn't fit costs neither time nor memory.

  Args:
    arrays: of the file, by our names.
    expected: by the same names, what has the shapes of the model's parameters.
    grid: (rows, columns) of patches at that image size.
    head_bias_init: bias of a fresh head.
    fresh_head: whether a head that doesn't fit is made afresh; False reports
      it with what else doesn't fit.
    source: how to call the arrays in an error.

  Raises:
    CheckpointError: arrays are missing, left over or of the wrong shape; the
      text lists them all.
  """
  fitted = dict(arrays)
  if 'pre_logits/kernel' in fitted and 'pre_logits/kernel' not in expected:
    # A head of the right shape would still read features it never saw.
    fitted = _without(_without(fitted, 'pre_logits/'), 'head/')
  fitted = _fit_head(fitted, expected, head_bias_init, fresh_head)
  misfits = {
    key: f'found {fitted[key].shape}, expected {tuple(expected[key].shape)}'
    for key in fitted
    if key in expected and fitted[key].shape != tuple(expected[key].shape)
  }
  # Where only one of the two has the class token, the shapes differ and say
  # so; resizing would hide it.
  if (
    _POSITIONS in misfits
    and len(fitted[_POSITIONS].shape) == 3
    and fitted[_POSITIONS].shape[2] == expected[_POSITIONS].shape[2]
    and ('cls' in expected) == ('cls' in fitted)
  ):
    try:
      fitted[_POSITIONS] = _resized(
        fitted[_POSITIONS], grid, 'cls' in expected, source
      )
      del misfits[_POSITIONS]
    except errors.CheckpointError as error:
      misfits[_POSITIONS] = str(error)
  _check_fit(fitted, expected, misfits, source)
  return {key: fitted[key] for key in expected}


def _resized(
  stored: StoredArray, grid: tuple[int, int], has_class_token: bool, source: str
) -> StoredArray:
  """Returns the position embedding of another grid, values in memory."""
  value = read_arrays({_POSITIONS: stored}, source)[_POSITIONS]
  return StoredArray.of(
    resize_position_embedding(value, grid, has_class_token), stored.key
  )


def _fit_head(
  arrays: Mapping[str, StoredArray],
  expected: Mapping[str, Any],
  head_bias_init: float,
  fresh_head: bool,
) -> dict[str, StoredArray]:
  """Returns the arrays with the head that the model has, if it has one."""
  head = {key: expected[key] for key in expected if key.startswith('head/')}
  if not head:  # A model without a head gives the features before it.
    return _without(arrays, 'head/')
  fits = all(
    key in arrays and arrays[key].shape == tuple(head[key].shape)
    for key in head
  )
  if fits or not fresh_head:
    return dict(arrays)
  fresh = {
    key: np.full(
      array.shape, head_bias_init if key == 'head/bias' else 0.0, array.dtype
    )
    for key, array in head.items()
  }
  return _without(arrays, 'head/') | {
    key: StoredArray.of(value) for key, value in fresh.items()
  }


def warn_of_zero_head(
  arrays: Mapping[str, StoredArray], params: Mapping[str, Any], source: str
) -> None:
  """Warns if a head was taken from the file and its kernel is all zeros.

  Args:
    arrays: from `fit_arrays`.
    params: their values.
    source: how to call the file.
  """
  key = 'head/kernel'
  # What was made afresh has no key in the file.
  if key in arrays and arrays[key].key and not np.any(params[key]):
    logging.warning(
      "%s: the head's kernel is all zeros, so its logits say nothing about an "
      'image. It has to be fine-tuned first.',
      source,
    )


def resize_position_embedding(
  embedding: Float[np.ndarray, '1 tokens width'],
  grid: tuple[int, int],
  has_class_token: bool,
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
      f'found {tokens} patches, which is no square grid, expected one or '
      f'{grid[0]} by {grid[1]}; set the image size that the file was made for'
    )
  if (side, side) == tuple(grid):
    return embedding
  zoom = (grid[0] / side, grid[1] / side, 1)
  patches = patches.reshape(side, side, width).astype(np.float32)
  patches = scipy.ndimage.zoom(patches, zoom, order=1)
  patches = patches.reshape(1, grid[0] * grid[1], width)
  return np.concatenate([slot, patches.astype(embedding.dtype)], axis=1)


def _without(
  arrays: Mapping[str, StoredArray], prefix: str
) -> dict[str, StoredArray]:
  return {k: v for k, v in arrays.items() if not k.startswith(prefix)}


def _check_fit(
  arrays: Mapping[str, StoredArray],
  expected: Mapping[str, Any],
  misfits: Mapping[str, str],
  source: str,
) -> None:
  """Raises one CheckpointError with all that doesn't fit."""
  sections = [
    ('missing', sorted({*expected} - {*arrays})),
    ('not in the model', sorted({*arrays} - {*expected})),
    ('other shape', [f'{key}: {misfits[key]}' for key in sorted(misfits)]),
  ]
  if not any(entries for _, entries in sections):
    return
  lines = [f'{source} does not fit the model:']
  for title, entries in sections:
    if entries:
      lines.append(f'  {title} ({len(entries)}):')
      lines += [f'    {entry}' for entry in entries]
  lines.append(_remedy(sections, misfits))
  raise errors.CheckpointError('\n'.join(lines))


def _remedy(sections: Any, misfits: Mapping[str, str]) -> str:
  others = [key for key in misfits if '/token_mixing/' not in key]
  if misfits and not (others or sections[0][1] or sections[1][1]):
    return (
      'The token mixing of a Mixer is made for one image size; set the size '
      'that the file was made for (config.pp.crop).'
    )
  return (
    'Choose the model that the file was made with (config.model, or the first '
    'part of the config argument); scripts/inspect_checkpoint.py FILE says '
    'which that is.'
  )
