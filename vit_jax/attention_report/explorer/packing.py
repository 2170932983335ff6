"""Makes the weights of one image small enough for a page."""

import zlib

import numpy as np
from jaxtyping import Float


def packed_size(layers: int, heads: int, tokens: int, patches: int) -> int:
  """Returns the bytes of `pack` before compression, about those after it."""
  return layers * (heads + 1) * tokens * (patches + 8)


def pack(
  weights: Float[np.ndarray, 'layers heads tokens tokens'],
  rollouts: Float[np.ndarray, 'layers tokens tokens'],
  class_token: bool,
) -> bytes:
  """Returns what the page's `weights.js` reads, compressed by zlib.

  That is, of every layer, first of its heads and then of its rollout, and of
  every token that asks: the largest weight on a patch (float32), then of all of
  them the weight on the class token (float32, 0 where there is none), then of
  all of them the weights on patches as bytes. A byte of 255 is the largest; the
  weight goes with its square, so that small weights have digits too. What is
  read from a byte is off by at most 0.4 % of the largest.

  Args:
    weights: of one image.
    rollouts: of the same, up to and with each layer.
    class_token: whether the first token is one.
  """
  first = int(class_token)
  largest, on_class, codes = [], [], []
  for heads, rolled in zip(weights, rollouts, strict=True):
    planes = np.concatenate([heads, rolled[None]]).astype('<f4')
    patches = planes[..., first:]
    peak = patches.max(axis=-1)
    share = patches / np.maximum(peak, np.finfo('f4').tiny)[..., None]
    codes.append(np.rint(255 * np.sqrt(share)).astype(np.uint8))
    largest.append(peak)
    on_class.append(planes[..., 0] * np.float32(first))
  parts = [*largest, *on_class, *codes]
  return zlib.compress(b''.join(part.tobytes() for part in parts))
