"""Maps of what speaks for a class, from gradients of its logit."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vit_jax import errors
from vit_jax.attention.classes import Classes, checked_classes
from vit_jax.attention.maps import check_index, row_map
from vit_jax.attention.products import (
  PRECISION,
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


class Gradients(NamedTuple):
  """Attention weights and what the class's logit makes of them.

  Attributes:
    weights: float32 [layers, batch, heads, tokens, tokens].
    gradients: the same shape; of each image's logit by its weights, as they
      come out of the softmax.
    logits: float32 [batch, num_classes].
  """

  weights: jax.Array
  gradients: jax.Array
  logits: jax.Array


# --- Whole arrays ------------------------------------------------------------


def attention_gradients(
  model: Any,
  params: Any,
  images: Float[Array, '*batch height width 3'],
  classes: Classes = None,
) -> Gradients:
  """Returns every layer's weights and the gradients of a logit by them.

  They take twice what `attention_weights` take; `grad_rollout_maps` and
  `relevance_maps` do without.

  Args:
    model: a ViT or hybrid with a head and one output for each image.
    params: of the model.
    images: [batch, height, width, 3] in [-1, 1].
    classes: whose logit: one index for all images, [batch] indices, or None for
      the predicted class of each image.

  Raises:
    ConfigError: the model is a Mixer or puts out no logits of images, `images`
      is no batch, or there is no such class.
  """
  check_images(model, images)
  classes = checked_classes(model, len(images), classes)
  return _attention_gradients(model, params, images, classes)


def grad_rollout(
  weights: Float[Array, 'layers heads tokens tokens'],
  gradients: Float[Array, '...'],
  discard_ratio: float = 0.0,
  start_layer: int = 0,
  *,
  class_token: bool = True,
) -> Float[jax.Array, 'tokens tokens']:
  """Returns the rollout of weights that count by their gradients.

  As `rollout`, with heads fused into mean(max(0, gradient * weight)): what
  speaks against the class is left out, and heads that don't matter for it count
  for little. Rows are made to sum to one, as those of attention weights do;
  else the scale of the logits would say how much the identity counts beside
  them. `jax.vmap` with in_axes=1 takes batches.

  Args:
    weights: [layers, heads, tokens, tokens] of one image.
    gradients: of the class's logit, the same shape.
    discard_ratio: as of `rollout`.
    start_layer: as of `rollout`.
    class_token: as of `rollout`.

  Returns:
    float32 [tokens, tokens]; rows sum to one.

  Raises:
    ConfigError: a ratio outside [0, 1), or no such layer.
  """
  check_ratio(discard_ratio)
  rolled = None
  for fused in _contributions(weights, gradients, start_layer):
    shares = _shares(fused, discard_ratio, class_token)
    rolled = multiply(rolled, shares)
  assert rolled is not None  # There is a layer.
  return rolled


def relevance(
  weights: Float[Array, 'layers heads tokens tokens'],
  gradients: Float[Array, '...'],
  start_layer: int = 0,
) -> Float[jax.Array, 'tokens tokens']:
  """Returns the relevance of each input token to each output token.

  Chefer et al. 2021 (arXiv 2103.15679), eq. 5 and 6: from R = I, each layer
  adds mean(max(0, gradient * weight)) R, the mean being over heads. `jax.vmap`
  with in_axes=1 takes batches.

  Args:
    weights: [layers, heads, tokens, tokens] of one image.
    gradients: of the class's logit, the same shape.
    start_layer: the first layer to add; negative ones count from the end.

  Returns:
    float32 [tokens, tokens], not normalised.

  Raises:
    ConfigError: there is no such layer.
  """
  layers = _contributions(weights, gradients, start_layer)
  found = jnp.eye(layers.shape[-1])
  for fused in layers:
    found += jnp.matmul(fused, found, precision=PRECISION)
  return found


def _contributions(weights, gradients, start_layer):
  """Fuses the heads of the layers from `start_layer` up."""
  weights, gradients = jnp.asarray(weights), jnp.asarray(gradients)
  if weights.shape != gradients.shape:
    raise errors.ConfigError(
      f'Attention weights {weights.shape} and gradients {gradients.shape} have '
      'different shapes; give both as attention_gradients returns them.'
    )
  start_layer = check_index('layer', start_layer, len(weights))
  return _fuse(weights[start_layer:], gradients[start_layer:])


# --- Maps of many images -----------------------------------------------------


def grad_rollout_maps(
  model: Any,
  params: Any,
  images: Float[Array, '*batch height width 3'],
  classes: Classes = None,
  discard_ratio: float = 0.0,
  start_layer: int = 0,
) -> Maps:
  """Returns the `class_token_map` of each image's `grad_rollout`.

  The memory is that of a backward pass, which keeps what every layer computed:
  for B/16 at 224 pixels some 205 MB an image. So give many images in small
  batches.

  Args:
    model: a ViT or hybrid with a head and one output for each image.
    params: of the model.
    images: [batch, height, width, 3] in [-1, 1].
    classes: as of `attention_gradients`.
    discard_ratio: as of `rollout`.
    start_layer: as of `rollout`.

  Raises:
    ConfigError: as `attention_gradients` and `grad_rollout`.
  """
  check_images(model, images)
  classes = checked_classes(model, len(images), classes)
  check_ratio(discard_ratio)
  start_layer = check_index('layer', start_layer, model.num_layers)
  return _maps(model, params, images, classes, start_layer, discard_ratio)


def relevance_maps(
  model: Any,
  params: Any,
  images: Float[Array, '*batch height width 3'],
  classes: Classes = None,
  start_layer: int = 0,
) -> Maps:
  """Returns the `class_token_map` of each image's `relevance`.

  Memory and arguments are those of `grad_rollout_maps`. Where there is no class
  token, the map is the mean over the patches' rows.

  Raises:
    ConfigError: as `attention_gradients` and `relevance`.
  """
  check_images(model, images)
  classes = checked_classes(model, len(images), classes)
  start_layer = check_index('layer', start_layer, model.num_layers)
  return _maps(model, params, images, classes, start_layer, None)


# --- Under jit ---------------------------------------------------------------


def _fuse(weights, gradients):
  """Makes one [..., tokens, tokens] of [..., heads, tokens, tokens]."""
  return jnp.maximum(weights * gradients, 0).mean(axis=-3)


def _shares(fused, discard_ratio, class_token):
  """Makes rows sum to one, if they are not zero, and discards the smallest."""
  sums = fused.sum(axis=-1, keepdims=True)
  shares = fused / jnp.maximum(sums, jnp.finfo(jnp.float32).tiny)
  return discard(shares, discard_ratio, class_token)


def _gradients(model, params, images, classes):
  """Returns lists of each layer's weights and gradients, and the logits."""
  rows, columns = model.grid(images.shape[1:3])
  tokens = rows * columns + with_class_token(model)
  shape = (len(images), model.num_heads, tokens, tokens)

  def logit_sum(added):
    weights = []

    def tap(layer, found):
      weights.append(found)
      return found + added[layer]

    logits = tapped_logits(model, params, images, tap)
    chosen = logits.argmax(-1) if classes is None else classes
    picked = jnp.take_along_axis(logits, chosen[:, None], axis=-1)
    # Images don't meet, so the gradients of the sum are those of each one.
    return picked.sum(), (weights, logits)

  added = [jnp.zeros(shape)] * model.num_layers
  gradients, aux = jax.grad(logit_sum, has_aux=True)(added)
  return aux[0], gradients, aux[1]


@jax.jit(static_argnums=0)
def _attention_gradients(model, params, images, classes):
  weights, gradients, logits = _gradients(model, params, images, classes)
  return Gradients(jnp.stack(weights), jnp.stack(gradients), logits)


@jax.jit(static_argnums=(0, 4, 5))
def _maps(model, params, images, classes, start_layer, discard_ratio):
  """Returns maps of `grad_rollout`, or without a ratio those of `relevance`."""
  class_token = with_class_token(model)
  weights, gradients, logits = _gradients(model, params, images, classes)
  layers = [
    _fuse(*both)
    for both in zip(weights[start_layer:], gradients[start_layer:], strict=True)
  ]
  is_rollout = discard_ratio is not None
  if is_rollout:
    layers = [_shares(fused, discard_ratio, class_token) for fused in layers]
  row = output_row(layers, class_token, normalise=is_rollout)
  return Maps(row_map(row, model.grid(images.shape[1:3])), logits)
