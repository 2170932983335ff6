"""The attention weights of a ViT: all of them, or reduced as they appear."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vit_jax import errors
from vit_jax.attention.maps import class_token_map
from vit_jax.models.attention import MultiHeadDotProductAttention
from vit_jax.models.vit import VisionTransformer

Array = jax.Array | np.ndarray
Tap = Callable[[int, jax.Array], jax.Array]


class Maps(NamedTuple):
  """One map for each image, and what the same forward pass says of it.

  Attributes:
    maps: float32 [batch, rows, columns], not normalised.
    logits: float32 [batch, num_classes], or what else the model puts out.
  """

  maps: jax.Array
  logits: jax.Array


def check_model(model: Any) -> None:
  """Raises ConfigError for a model without attention, such as a Mixer."""
  if not isinstance(model, VisionTransformer):
    kind = type(model).__name__
    raise errors.ConfigError(
      f'{kind} has no attention to look at'
      + (': a Mixer mixes tokens by fixed weights' if 'Mixer' in kind else '')
      + '. Use a ViT or a hybrid.'
    )


def check_images(model: Any, images: Array) -> None:
  """Raises ConfigError for a model or images that can't be looked at."""
  check_model(model)
  if jnp.ndim(images) != 4:
    raise errors.ConfigError(
      f'Images have shape {jnp.shape(images)}, expected (batch, height, width, '
      '3). Put a single image into a batch by images[None].'
    )


def with_class_token(model: VisionTransformer) -> bool:
  """Tells whether the model's first token is a class token."""
  return model.classifier in ('token', 'token_unpooled')


def tapped_logits(
  model: VisionTransformer, params: Any, images: Array, tap: Tap
) -> jax.Array:
  """Runs the model and shows the weights of each layer to `tap`.

  For use under `jax.jit`: weights that `tap` reduces are freed as in a plain
  forward pass. The encoder is a plain loop over its blocks, so what `tap` puts
  aside may be used afterwards.

  Args:
    model: the module.
    params: of the model.
    images: [batch, height, width, 3] in [-1, 1].
    tap: takes the layer's number and its float32 [batch, heads, tokens,
      tokens], and returns the weights to go on with.

  Returns:
    The model's output. The pooling of a MAP head is not shown.
  """

  def interceptor(next_fn, args, kwargs, context):
    output = next_fn(*args, **kwargs)
    module = context.module
    if not isinstance(module, MultiHeadDotProductAttention):
      return output
    top, block, *_ = module.path
    if context.method_name != 'weigh' or top != 'Transformer':
      return output
    return tap(int(block.removeprefix('encoderblock_')), output)

  # One after the other, and with weights to look at, however it is trained.
  model = model.clone(attention='plain', scan_layers=False)
  with nn.intercept_methods(interceptor):
    return model.apply({'params': params}, images, train=False)  # pyright: ignore[reportReturnType]


def attention_weights(
  model: Any,
  params: Any,
  images: Float[Array, '*batch height width 3'],
) -> Float[jax.Array, 'layers batch heads tokens tokens']:
  """Returns the weights of every layer and head.

  They take 4 * layers * heads * tokens² bytes an image, which for B/16 at 224
  pixels is 22 MB, beside what the forward pass takes. `rollout_maps` and
  `class_token_maps` do without.

  Args:
    model: a ViT or hybrid.
    params: of the model.
    images: [batch, height, width, 3] in [-1, 1].

  Returns:
    float32 [layers, batch, heads, tokens, tokens]: how much each token (second
    to last) takes from each (last). Rows sum to one. A class token, where there
    is one, comes first, then the patches row by row.

  Raises:
    ConfigError: the model is a Mixer, or `images` is no batch.
  """
  check_images(model, images)
  return _attention_weights(model, params, images)


@jax.jit(static_argnums=0)
def _attention_weights(model, params, images):
  weights = []

  def tap(layer, found):
    if not weights:
      weights.append(jnp.zeros((model.num_layers, *found.shape)))
    # Written in place; `jnp.stack` would hold everything twice.
    weights[0] = weights[0].at[layer].set(found)
    return found

  tapped_logits(model, params, images, tap)
  return weights[0]


def class_token_maps(
  model: Any,
  params: Any,
  images: Float[Array, '*batch height width 3'],
) -> tuple[
  Float[jax.Array, 'layers batch heads rows columns'], Float[jax.Array, '...']
]:
  """Returns the raw map of every layer and head without all their weights.

  Args:
    model: a ViT or hybrid.
    params: of the model.
    images: [batch, height, width, 3] in [-1, 1].

  Returns:
    (float32 [layers, batch, heads, rows, columns], the logits). Each map is the
    `class_token_map` of a head. The head average is the mean over dimension 2.

  Raises:
    ConfigError: the model is a Mixer, or `images` is no batch.
  """
  check_images(model, images)
  return _class_token_maps(model, params, images)


@jax.jit(static_argnums=0)
def _class_token_maps(model, params, images):
  grid = model.grid(images.shape[1:3])
  maps = [None] * model.num_layers

  def tap(layer, weights):
    maps[layer] = class_token_map(weights, grid)
    return weights

  logits = tapped_logits(model, params, images, tap)
  return jnp.stack(maps), logits
