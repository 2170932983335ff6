"""Attention rollout: Abnar & Zuidema 2020, arXiv 2005.00928, section 3.

Attention mixes what the layers below have mixed already. With the residual
connection as an identity, a layer passes on

    A = 0.5 W + 0.5 I,    rows normalised,

of the tokens below, W being its weights fused over heads, and the product
A_last ... A_first says how much of each input token is in each output token.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vit_jax import errors
from vit_jax.attention.maps import check_index, row_map
from vit_jax.attention.products import (
  check_ratio,
  discard,
  multiply,
  output_row,
)
from vit_jax.attention.weights import (
  Maps,
  check_images,
  tapped_logits,
  with_class_token,
)

Array = jax.Array | np.ndarray

HEAD_FUSIONS = {'mean': jnp.mean, 'max': jnp.max, 'min': jnp.min}


def rollout(
  weights: Float[Array, 'layers heads tokens tokens'],
  head_fusion: str = 'mean',
  discard_ratio: float = 0.0,
  start_layer: int = 0,
  *,
  class_token: bool = True,
) -> Float[jax.Array, 'tokens tokens']:
  """Returns how much of each input token is in each token of the last layer.

  Args:
    weights: [layers, heads, tokens, tokens] of one image, rows summing to one.
    head_fusion: how heads become one: 'mean', 'max' or 'min'.
    discard_ratio: share in [0, 1) of each fused matrix that is set to zero, the
      smallest first; see `discard`.
    start_layer: the first layer of the product; negative ones count from the
      end.
    class_token: whether the first token is one, which `discard_ratio` spares.

  Returns:
    float32 [tokens, tokens]; rows, the tokens of the last layer, sum to one.

  Raises:
    ConfigError: an unknown head fusion, a ratio outside [0, 1), or no such
      layer.
  """
  weights = jnp.asarray(weights)
  start_layer = _check(head_fusion, discard_ratio, start_layer, len(weights))
  return _rollout(weights, head_fusion, discard_ratio, start_layer, class_token)


def layer_rollouts(
  weights: Float[Array, 'layers heads tokens tokens'],
  head_fusion: str = 'mean',
  discard_ratio: float = 0.0,
  *,
  class_token: bool = True,
) -> Float[jax.Array, 'layers tokens tokens']:
  """Returns how much of each input token is in each token of every layer.

  Args:
    weights: [layers, heads, tokens, tokens] of one image, rows summing to one.
    head_fusion: as of `rollout`.
    discard_ratio: as of `rollout`.
    class_token: as of `rollout`.

  Returns:
    float32 [layers, tokens, tokens]; [i] is `rollout(weights[:i + 1])`.

  Raises:
    ConfigError: an unknown head fusion, or a ratio outside [0, 1).
  """
  weights = jnp.asarray(weights)
  _check(head_fusion, discard_ratio, 0, len(weights))
  return _layer_rollouts(weights, head_fusion, discard_ratio, class_token)


def rollout_batch(
  weights: Float[Array, 'layers batch heads tokens tokens'],
  head_fusion: str = 'mean',
  discard_ratio: float = 0.0,
  start_layer: int = 0,
  *,
  class_token: bool = True,
) -> Float[jax.Array, 'batch tokens tokens']:
  """Returns the `rollout` of each image: `jax.vmap` over dimension 1.

  Args:
    weights: [layers, batch, heads, tokens, tokens], as `attention_weights` of a
      batch gives them. `rollout_maps` needs no such array.
    head_fusion: as of `rollout`.
    discard_ratio: as of `rollout`.
    start_layer: as of `rollout`.
    class_token: as of `rollout`.

  Returns:
    float32 [batch, tokens, tokens].

  Raises:
    ConfigError: as `rollout`.
  """

  def rollout_one(weights):
    return rollout(
      weights, head_fusion, discard_ratio, start_layer, class_token=class_token
    )

  return jax.vmap(rollout_one, in_axes=1)(jnp.asarray(weights))


def rollout_maps(
  model: Any,
  params: Any,
  images: Float[Array, '*batch height width 3'],
  head_fusion: str = 'mean',
  discard_ratio: float = 0.0,
  start_layer: int = 0,
) -> Maps:
  """Returns the `class_token_map` of each image's rollout.

  Heads are fused within the forward pass, so that one layer's weights are there
  at a time, as they are without any rollout. What is kept of each layer until
  the end, 4 * tokens² bytes an image, is for 64 images of B/16 an eighth of
  what the forward pass takes at its peak.

  Args:
    model: a ViT or hybrid.
    params: of the model.
    images: [batch, height, width, 3] in [-1, 1].
    head_fusion: as of `rollout`.
    discard_ratio: as of `rollout`.
    start_layer: as of `rollout`.

  Returns:
    `Maps`: [batch, rows, columns], and the logits.

  Raises:
    ConfigError: as `rollout`; or the model is a Mixer, or `images` no batch.
  """
  check_images(model, images)
  start_layer = _check(
    head_fusion, discard_ratio, start_layer, model.num_layers
  )
  return _rollout_maps(
    model, params, images, head_fusion, discard_ratio, start_layer
  )


def _fuse(weights, head_fusion, discard_ratio, class_token):
  """Makes one [..., tokens, tokens] of [..., heads, tokens, tokens]."""
  fused = HEAD_FUSIONS[head_fusion](weights, axis=-3)
  return discard(fused, discard_ratio, class_token)


def _products(weights, head_fusion, discard_ratio, class_token):
  """Yields the product up to and with each layer, from the first up."""
  rolled = None
  for layer in weights:
    fused = _fuse(layer, head_fusion, discard_ratio, class_token)
    rolled = multiply(rolled, fused)
    yield rolled


@jax.jit(static_argnums=(1, 2, 3, 4))
def _rollout(weights, head_fusion, discard_ratio, start_layer, class_token):
  *_, rolled = _products(
    weights[start_layer:], head_fusion, discard_ratio, class_token
  )
  return rolled


@jax.jit(static_argnums=(1, 2, 3))
def _layer_rollouts(weights, head_fusion, discard_ratio, class_token):
  return jnp.stack(
    [*_products(weights, head_fusion, discard_ratio, class_token)]
  )


@jax.jit(static_argnums=(0, 3, 4, 5))
def _rollout_maps(
  model, params, images, head_fusion, discard_ratio, start_layer
):
  grid = model.grid(images.shape[1:3])
  class_token = with_class_token(model)
  layers = []

  def tap(layer, weights):
    if layer >= start_layer:
      layers.append(_fuse(weights, head_fusion, discard_ratio, class_token))
    return weights

  logits = tapped_logits(model, params, images, tap)
  row = output_row(layers, class_token)
  return Maps(row_map(row, grid), logits)


def _check(head_fusion, discard_ratio, start_layer, num_layers) -> int:
  """Returns `start_layer` from the front, or raises ConfigError."""
  if head_fusion not in HEAD_FUSIONS:
    raise errors.ConfigError(
      errors.unknown_name('head_fusion', str(head_fusion), HEAD_FUSIONS)
    )
  check_ratio(discard_ratio)
  return check_index('layer', start_layer, num_layers)
