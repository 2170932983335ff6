"""Slow forward passes in float64 numpy, straight from flat parameters.

They share no code with the package: what the modules compute and what loaded
files mean is held against them. `flat` is {path: array} with our names, such as
'Transformer/encoderblock_0/LayerNorm_0/scale'.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Flat = Mapping[str, Any]


def vit_logits(
  flat: Flat,
  images: np.ndarray,
  *,
  patch: int | tuple[int, int],
  num_heads: int | None = None,
  classifier: str = 'token',
  gelu: str = 'tanh',
  position_embedding: str = 'learned',
) -> np.ndarray:
  """Returns the logits of a ViT, or its features where `flat` has no head.

  Args:
    flat: parameters of the whole model. Those of a hybrid are not understood.
    images: [batch, height, width, 3] in [-1, 1].
    patch: side or (height, width) in pixels.
    num_heads: only compared with the kernels, which have a dimension for it.
    classifier: 'token', 'gap', 'map', 'unpooled' or 'token_unpooled'.
    gelu: 'tanh' or 'exact'.
    position_embedding: 'learned' or 'sincos2d'.

  Returns:
    float64 [batch, classes], or [batch, tokens, classes] if unpooled.
  """
  flat = {key: np.asarray(value, 'f8') for key, value in flat.items()}
  with_token = classifier in ('token', 'token_unpooled')
  outputs = []
  for image in np.asarray(images, 'f8'):
    patches = split(image, patch)
    grid = patches.shape[:2]
    x = embed(patches, below(flat, 'embedding/'))
    if with_token:
      x = np.concatenate([flat['cls'][0], x])
    if position_embedding == 'learned':
      x = x + flat['Transformer/posembed_input/pos_embedding'][0]
    else:
      x[int(with_token) :] += sincos2d(grid, x.shape[-1])
    x = encode(x, below(flat, 'Transformer/'), gelu, num_heads)
    if classifier == 'token':
      x = x[0]
    elif classifier == 'gap':
      x = x.mean(0)
    elif classifier == 'map':
      x = attention_pool(x, below(flat, 'MAPHead_0/'), gelu)
    if 'pre_logits/kernel' in flat:
      x = np.tanh(dense(x, below(flat, 'pre_logits/')))
    outputs.append(head(x, flat))
  return np.stack(outputs)


def mixer_logits(
  flat: Flat,
  images: np.ndarray,
  *,
  patch: int | tuple[int, int],
  gelu: str = 'tanh',
) -> np.ndarray:
  """Returns the logits of a Mixer, [batch, classes]; see `vit_logits`."""
  flat = {key: np.asarray(value, 'f8') for key, value in flat.items()}
  outputs = []
  for image in np.asarray(images, 'f8'):
    x = embed(split(image, patch), below(flat, 'stem/'))
    block = 0
    while weights := below(flat, f'MixerBlock_{block}/'):
      y = layer_norm(x, below(weights, 'LayerNorm_0/'))
      x = x + mlp(y.T, below(weights, 'token_mixing/'), gelu).T
      y = layer_norm(x, below(weights, 'LayerNorm_1/'))
      x = x + mlp(y, below(weights, 'channel_mixing/'), gelu)
      block += 1
    x = layer_norm(x, below(flat, 'pre_head_layer_norm/'))
    outputs.append(head(x.mean(0), flat))
  return np.stack(outputs)


def below(flat: Flat, prefix: str) -> dict[str, np.ndarray]:
  """Returns what is under `prefix`, without it in the keys."""
  return {
    key.removeprefix(prefix): value
    for key, value in flat.items()
    if key.startswith(prefix)
  }


def split(image: np.ndarray, patch: int | tuple[int, int]) -> np.ndarray:
  """Cuts [height, width, 3] into [rows, columns, patch, patch, 3]."""
  high, wide = (patch, patch) if isinstance(patch, int) else patch
  rows, columns = image.shape[0] // high, image.shape[1] // wide
  return np.stack([
    np.stack([
      image[i * high : (i + 1) * high, j * wide : (j + 1) * wide]
      for j in range(columns)
    ])
    for i in range(rows)
  ])  # fmt: skip


def embed(patches: np.ndarray, weights: Flat) -> np.ndarray:
  x = np.einsum('ijhwc,hwcd->ijd', patches, weights['kernel'])
  return x.reshape(-1, x.shape[-1]) + weights['bias']


def sincos2d(grid: tuple[int, int], width: int) -> np.ndarray:
  """Returns [rows * columns, width]: Beyer et al. 2022, arXiv 2205.01580."""
  quarter = width // 4
  embedding = np.zeros((*grid, width))
  for row in range(grid[0]):
    for column in range(grid[1]):
      for i in range(quarter):
        omega = 10_000 ** -(i / max(1, quarter - 1))
        embedding[row, column, i::quarter] = (
          math.sin(column * omega),
          math.cos(column * omega),
          math.sin(row * omega),
          math.cos(row * omega),
        )
  return embedding.reshape(-1, width)


def encode(
  x: np.ndarray, weights: Flat, gelu: str, num_heads: int | None = None
) -> np.ndarray:
  """Runs the blocks and the last norm over [tokens, width]."""
  block = 0
  while inside := below(weights, f'encoderblock_{block}/'):
    projections = below(inside, 'MultiHeadDotProductAttention_0/')
    assert num_heads in (None, projections['query/kernel'].shape[1])
    y = layer_norm(x, below(inside, 'LayerNorm_0/'))
    x = x + attend(y, y, projections)
    y = layer_norm(x, below(inside, 'LayerNorm_1/'))
    x = x + mlp(y, below(inside, 'MlpBlock_0/'), gelu)
    block += 1
  return layer_norm(x, below(weights, 'encoder_norm/'))


def attend(x: np.ndarray, y: np.ndarray, weights: Flat) -> np.ndarray:
  """Returns what the tokens of `x` read from those of `y`, head by head."""
  out = weights['out/bias']
  for i in range(weights['query/kernel'].shape[1]):
    query, key, value = (
      tokens @ weights[f'{name}/kernel'][:, i] + weights[f'{name}/bias'][i]
      for name, tokens in {'query': x, 'key': y, 'value': y}.items()
    )
    logits = query @ key.T / math.sqrt(query.shape[-1])
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = exp / exp.sum(-1, keepdims=True)
    out = out + probabilities @ value @ weights['out/kernel'][i]
  return out


def attention_pool(x: np.ndarray, weights: Flat, gelu: str) -> np.ndarray:
  """Pools [tokens, width] to [width]: Zhai et al. 2022, arXiv 2106.04560."""
  attention = below(weights, 'MultiHeadDotProductAttention_0/')
  pooled = attend(weights['probe'][0], x, attention)
  y = layer_norm(pooled, below(weights, 'LayerNorm_0/'))
  return (pooled + mlp(y, below(weights, 'MlpBlock_0/'), gelu))[0]


def layer_norm(x: np.ndarray, weights: Flat) -> np.ndarray:
  centred = x - x.mean(-1, keepdims=True)
  variance = (centred**2).mean(-1, keepdims=True)
  normed = centred / np.sqrt(variance + 1e-6)
  return normed * weights['scale'] + weights['bias']


def mlp(x: np.ndarray, weights: Flat, gelu: str) -> np.ndarray:
  x = GELUS[gelu](dense(x, below(weights, 'Dense_0/')))
  return dense(x, below(weights, 'Dense_1/'))


def dense(x: np.ndarray, weights: Flat) -> np.ndarray:
  return x @ weights['kernel'] + weights['bias']


def head(x: np.ndarray, flat: Flat) -> np.ndarray:
  return dense(x, below(flat, 'head/')) if 'head/kernel' in flat else x


def tanh_gelu(x: np.ndarray) -> np.ndarray:
  cubic = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
  return 0.5 * x * (1 + np.tanh(cubic))


def exact_gelu(x: np.ndarray) -> np.ndarray:
  return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


GELUS = {'tanh': tanh_gelu, 'exact': exact_gelu}


def bilinear_samples(images, grid):
  """Returns what `grid_sample` does in float64, a pixel at a time."""
  height, width = images.shape[1:3]
  found = np.zeros((*grid.shape[:3], images.shape[3]))
  for place in np.ndindex(*grid.shape[:3]):
    x = ((grid[place][0] + 1) * width - 1) / 2
    y = ((grid[place][1] + 1) * height - 1) / 2
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
      for column in (int(np.floor(x)), int(np.floor(x)) + 1):
        if 0 <= row < height and 0 <= column < width:
          share = (1 - abs(y - row)) * (1 - abs(x - column))
          found[place] += share * images[place[0], row, column]
  return found


def localise(image: np.ndarray, flat: Flat) -> np.ndarray:
  """Returns a spatial transformer's [2, 3] for one image of its own size."""
  x, i = image, 0
  while f'conv_{i}/kernel' in flat:
    x = convolve(x, below(flat, f'conv_{i}/'))
    rows, columns = x.shape[0] // 2, x.shape[1] // 2
    x = x[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2, -1)
    x, i = np.maximum(x.max((1, 3)), 0), i + 1
  x = np.maximum(dense(x.reshape(-1), below(flat, 'hidden/')), 0)
  return dense(x / len(x) ** 0.5, below(flat, 'theta/')).reshape(2, 3)


def convolve(x: np.ndarray, weights: Flat) -> np.ndarray:
  """Returns a convolution, padded with zeros to the same size."""
  kernel = np.asarray(weights['kernel'], np.float64)
  side = len(kernel)
  before = (side - 1) // 2
  pad = (before, side - 1 - before)
  padded = np.pad(x, (pad, pad, (0, 0)))
  found = np.empty((*x.shape[:2], kernel.shape[-1]))
  for row, column in np.ndindex(*x.shape[:2]):
    window = padded[row : row + side, column : column + side]
    found[row, column] = np.tensordot(window, kernel, 3)
  return found + weights['bias']
