"""What one image costs in each part of a model, by formulas.

Only sizes are looked at; nothing is traced or compiled, so the largest models
take no time. Matrix products and convolutions are counted, as in the papers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Layer:
  """One product, or a function of single elements, for one image.

  Attributes:
    macs: multiplications with an addition, forward.
    traffic: elements of activations that are read and written, forward.
    weights: elements of the kernel.
    kept: elements that the backward pass needs, in the computation's dtype.
    kept_float32: more of them, which are float32 whatever that is.
    kept_bytes: more of them, of a byte each: dropout's masks.
    kept_scanned: more of them, in the computation's dtype, where blocks are
      scanned: elsewhere XLA computes again what takes little, but what one loop
      hands to another it stores.
    is_split: whether devices along 'tensor' share it.
    is_dot: whether `remat='dots'` keeps what it gives: a product with weights.
    gives: elements of what it gives.
  """

  macs: float = 0
  traffic: float = 0
  weights: float = 0
  kept: float = 0
  kept_float32: float = 0
  kept_bytes: float = 0
  kept_scanned: float = 0
  is_split: bool = False
  is_dot: bool = False
  gives: float = 0


@dataclasses.dataclass(frozen=True)
class Part:
  """Layers in a row, several times over.

  Attributes:
    name: what it is.
    layers: of one of them.
    repeats: how many there are.
    enters: elements of what enters one, which is all that `remat='full'` keeps;
      0 where `remat` doesn't apply.
  """

  name: str
  layers: tuple[Layer, ...]
  repeats: int = 1
  enters: float = 0

  @property
  def macs(self) -> float:
    return self.repeats * sum(layer.macs for layer in self.layers)


def model_parts(
  model: Any, image_size: int, *, is_fused: bool = False
) -> list[Part]:
  """Returns what a model is made of.

  Args:
    model: a module from `models.create_model`.
    image_size: side of the square images in pixels.
    is_fused: whether attention never holds its weights whole, which some GPUs
      can do; where weights are dropped it holds them all the same.
  """
  grid = model.grid((image_size, image_size))
  num_patches = math.prod(grid)
  if hasattr(model, 'tokens_mlp_dim'):
    return _mixer_parts(model, num_patches)
  before = []
  if model.localisation_features is not None:
    before = [_spatial_transformer(model, image_size)]
  if hasattr(model, 'conv_features'):
    return before + _convnet_parts(model, image_size, num_patches)
  stem, channels = before, 3
  if model.resnet_num_layers is not None:
    parts, channels = _stem_parts(model, image_size)
    stem = before + parts
  width, has_token = model.hidden_size, 'token' in model.classifier
  tokens = num_patches + has_token
  patch = math.prod(model.patch_size) * channels
  block = tuple(_encoder_block(model, tokens, is_fused))
  parts = [
    *stem,
    Part('embedding', (_dense(num_patches, patch, width),)),
    Part('encoder', block, model.num_layers, tokens * width),
    Part('norm', (_norm(tokens * width),)),
  ]
  if model.classifier == 'map':
    parts.append(Part('MAP head', tuple(_map_head(model, tokens, is_fused))))
  rows = tokens if 'unpooled' in model.classifier else 1
  return parts + _head(
    model.num_classes, rows, width, model.representation_size
  )


def forward_flops(parts: list[Part]) -> float:
  """Returns the FLOPs of one image: two for a product that is added."""
  return 2 * sum(part.macs for part in parts)


def training_flops(parts: list[Part]) -> float:
  """Returns the FLOPs that an image takes in training, none done twice.

  A backward pass has two products for each one: the gradients of what entered
  and of the weights. The pixels need no gradient.
  """
  first = parts[0].layers[0]
  return 3 * forward_flops(parts) - 2 * first.macs


def _head(
  num_classes: int | None, rows: int, width: int, representation: int | None
) -> list[Part]:
  layers = []
  if representation is not None:
    layers.append(_dense(rows, width, representation))
    width = representation
  if num_classes is not None:
    layers.append(_dense(rows, width, num_classes))
  return [Part('head', tuple(layers))] if layers else []


def _dense(
  rows: int, inputs: int, outputs: int, *, is_split: bool = False
) -> Layer:
  """A product with weights; what enters is kept for their gradient."""
  return Layer(
    macs=rows * inputs * outputs,
    traffic=rows * (inputs + outputs),
    weights=inputs * outputs,
    kept=rows * inputs,
    is_split=is_split,
    is_dot=True,
    gives=rows * outputs,
  )


def _norm(elements: int) -> Layer:
  return Layer(traffic=2 * elements, kept=elements, kept_scanned=2 * elements)


def _dropout(elements: int, rate: float) -> Layer:
  # Its mask; what it gives is counted where it enters.
  return Layer(
    traffic=elements if rate else 0, kept_bytes=elements if rate else 0
  )


def _attention(
  model: Any, queries: int, keys: int, width: int, rate: float, is_plain: bool
) -> Iterator[Layer]:
  """The projections, the weights and what they gather; with its dropout."""
  projected = _dense(queries, width, width, is_split=True)
  read = _dense(keys, width, width, is_split=True)
  # Query, key and value share what enters, except in a head of one query.
  yield projected
  yield dataclasses.replace(read, kept=read.kept if queries != keys else 0)
  yield dataclasses.replace(read, kept=0)
  weights = model.num_heads * queries * keys
  # What is kept: query, key and value; the softmax, in float32, and a copy
  # where the product with the values is of 16 bits.
  is_copied = is_plain and model.dtype.itemsize < 4
  yield Layer(
    macs=2 * weights * (width // model.num_heads),
    traffic=(queries + 2 * keys) * width + (4 * weights if is_plain else 0),
    kept=(queries + 2 * keys) * width + (weights if is_copied else 0),
    kept_float32=weights if is_plain else 0,
    kept_bytes=weights if rate else 0,
    is_split=True,
  )
  yield _dense(queries, width, width, is_split=True)


def _mlp(
  rows: int, width: int, hidden: int, rate: float, *, is_split: bool = True
) -> Iterator[Layer]:
  yield _dense(rows, width, hidden, is_split=is_split)
  # GELU needs what entered it, the second product what came out.
  elements = rows * hidden
  yield Layer(
    traffic=2 * elements,
    kept=elements,
    kept_scanned=4 * elements,  # Of the derivative, factor by factor.
    is_split=is_split,
  )
  yield dataclasses.replace(_dropout(rows * hidden, rate), is_split=is_split)
  yield _dense(rows, hidden, width, is_split=is_split)
  yield _dropout(rows * width, rate)


def _residual(elements: int) -> Layer:
  return Layer(traffic=3 * elements)


def _encoder_block(model: Any, tokens: int, is_fused: bool) -> Iterator[Layer]:
  width, rate = model.hidden_size, model.dropout_rate
  elements = tokens * width
  yield _norm(elements)
  drop_rate = model.attention_dropout_rate
  is_plain = drop_rate > 0 or not is_fused
  yield from _attention(model, tokens, tokens, width, drop_rate, is_plain)
  yield _dropout(elements, rate)
  yield _residual(elements)
  yield _norm(elements)
  yield from _mlp(tokens, width, model.mlp_dim, rate)
  yield _residual(elements)


def _map_head(model: Any, tokens: int, is_fused: bool) -> Iterator[Layer]:
  width = model.hidden_size
  yield from _attention(model, 1, tokens, width, 0.0, not is_fused)
  yield _norm(width)
  yield from _mlp(1, width, model.mlp_dim, 0.0)


def _mixer_parts(model: Any, tokens: int) -> list[Part]:
  width = model.hidden_dim
  elements = tokens * width
  block = (
    _norm(elements),
    # The transposed copy that enters is the one that is kept.
    *_mlp(width, tokens, model.tokens_mlp_dim, 0.0),
    _residual(elements),
    _norm(elements),
    *_mlp(tokens, width, model.channels_mlp_dim, 0.0),
    _residual(elements),
  )
  return [
    Part('stem', (_dense(tokens, math.prod(model.patch_size) * 3, width),)),
    Part('blocks', block, model.num_blocks, elements),
    Part('norm', (_norm(elements),)),
    *_head(model.num_classes, 1, width, None),
  ]


def _spatial_transformer(model: Any, image_size: int) -> Part:
  features = model.localisation_features
  places = (model.localisation_size // 2 ** len(features)) ** 2
  pixels, hidden = image_size**2, model.localisation_hidden_dim
  return Part(
    'spatial transformer',
    (
      *_pooled_convolutions(
        model.localisation_size, features, model.localisation_kernel_size
      ),
      _dense(1, places * features[-1], hidden),
      _dense(1, hidden, 6),
      # The grid: two sums of three products for each pixel.
      Layer(macs=6 * pixels, traffic=2 * pixels, kept_float32=2 * pixels),
      # Four pixels for each one, and their shares.
      Layer(
        traffic=5 * 3 * pixels, kept=4 * 3 * pixels, kept_float32=8 * pixels
      ),
    ),
  )


def _convnet_parts(model: Any, image_size: int, num_places: int) -> list[Part]:
  features, width = model.conv_features, model.dense_size
  return [
    Part(
      'convolutions',
      tuple(_pooled_convolutions(image_size, features, model.conv_kernel_size)),
    ),
    Part(
      'dense',
      (
        _dense(1, num_places * features[-1], width),
        _dropout(width, model.dropout_rate),
      ),
    ),
    *_head(model.num_classes, 1, width, None),
  ]


def _pooled_convolutions(
  side: int, features: tuple[int, ...], size: int
) -> Iterator[Layer]:
  """Convolutions, and the poolings by 2 behind them."""
  inputs = 3
  for outputs in features:
    yield dataclasses.replace(
      _convolution(side, inputs, outputs, size),
      # What it gives, for the pooling; what that gives is counted below.
      kept=side * side * outputs,
    )
    inputs, side = outputs, side // 2
    yield _norm(side * side * outputs)


def _convolution(side: int, inputs: int, outputs: int, size: int) -> Layer:
  """A convolution that gives [side, side, outputs], and the norm behind it."""
  elements = side * side * outputs
  weights = size * size * inputs * outputs
  return Layer(
    macs=side * side * weights,
    # Read once, written, and read and written by the norm.
    traffic=side * side * inputs + 3 * elements,
    weights=weights,
    # What it gives, for the norm, and what that gives, for the next one.
    kept=2 * elements,
    is_dot=False,
    gives=elements,
  )


def _stem_parts(model: Any, image_size: int) -> tuple[list[Part], int]:
  """Returns the stem of a hybrid, and its number of channels."""
  width = int(64 * model.resnet_width_factor)
  side = -(-image_size // 2)
  root, side = _convolution(side, 3, width, 7), -(-side // 2)
  parts, channels = [Part('root', (root, _norm(side * side * width)))], width
  for i, num_units in enumerate(model.resnet_num_layers):
    features, stride = width * 2**i, 1 if i == 0 else 2
    outer = 4 * features
    for unit in range(num_units):
      before, side = side, -(-side // stride)
      layers = [
        _convolution(before, channels, features, 1),
        _convolution(side, features, features, 3),
        _convolution(side, features, outer, 1),
        _norm(side * side * outer),
      ]
      if channels != outer or stride != 1:
        layers.append(_convolution(side, channels, outer, 1))
      parts.append(Part(f'block{i + 1}/unit{unit + 1}', tuple(layers)))
      channels, stride = outer, 1
  return parts, channels
