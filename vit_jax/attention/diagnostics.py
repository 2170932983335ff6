"""What a ViT has learned: Figure 7 of Dosovitskiy et al. 2021.

Left: `filter_components`; centre: `position_similarity`; right:
`attention_distances`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vit_jax import errors
from vit_jax.attention.maps import has_class_token, token_size
from vit_jax.attention.weights import check_images, check_model, tapped_logits
from vit_jax.models.positions import sincos2d

Array = jax.Array | np.ndarray


class Components(NamedTuple):
  """Principal components of the patch-embedding filters.

  Attributes:
    images: float32 [components, height, width, 3] RGB in [0, 1], each stretched
      by itself so that zero is mid-grey.
    shares: [components], of the variance over the filters that each explains;
      falling, and summing to one if all are there.
  """

  images: np.ndarray
  shares: np.ndarray


def filter_components(params: Any, num_components: int = 28) -> Components:
  """Returns the principal components of the filters that embed patches.

  Args:
    params: of a ViT or a Mixer that embeds pixels.
    num_components: at most so many, the strongest first; the paper has 28.

  Raises:
    ConfigError: the embedding reads a ResNet's features, which are no colours.
  """
  kernel = np.asarray(params.get('embedding', params.get('stem'))['kernel'])
  *shape, width = kernel.shape
  if shape[-1] != 3:
    raise errors.ConfigError(
      f'The patch embedding reads {shape[-1]} features of a ResNet stem. '
      'Filters can be drawn only where they read pixels: not those of a hybrid.'
    )
  filters = kernel.astype(np.float32).reshape(-1, width).T
  _, scales, components = np.linalg.svd(
    filters - filters.mean(axis=0), full_matrices=False
  )
  variances = scales**2
  shares = variances / max(variances.sum(), np.finfo(np.float32).tiny)
  components = components[:num_components]
  # The sign is anyone's; with the largest entry positive it is the same on all
  # machines.
  peaks = np.take_along_axis(
    components, np.abs(components).argmax(axis=1)[:, None], axis=1
  )
  images = 0.5 + 0.5 * components / peaks
  return Components(images.reshape(-1, *shape), shares[:num_components])


def position_similarity(
  model: Any, params: Any, grid: tuple[int, int]
) -> Float[np.ndarray, 'rows columns rows columns']:
  """Returns the cosine similarity of all patches' position embeddings.

  Args:
    model: a ViT or hybrid.
    params: of the model.
    grid: (rows, columns) of patches.

  Returns:
    float32 [rows, columns, rows, columns] in [-1, 1]; [i, j] is the picture of
    the patch in row i and column j.

  Raises:
    ConfigError: the embedding is that of another grid, or the model is a Mixer.
  """
  check_model(model)
  if model.position_embedding == 'sincos2d':
    embedding = np.asarray(sincos2d(grid, model.hidden_size))
  else:
    learned = params['Transformer']['posembed_input']['pos_embedding']
    learned = np.asarray(learned, np.float32)[0]
    embedding = learned[int(has_class_token(len(learned), grid)) :]
  norms = np.linalg.norm(embedding, axis=1, keepdims=True)
  embedding = embedding / np.maximum(norms, np.finfo(np.float32).tiny)
  return (embedding @ embedding.T).clip(-1, 1).reshape(*grid, *grid)


def mean_attention_distance(
  weights: Float[Array, '*batch tokens tokens'],
  grid: tuple[int, int],
  token_size: tuple[int, int],
) -> Float[jax.Array, '*batch']:
  """Returns how far away in the image what patches attend to is.

  Averaged over the patches that ask; each one's weights on patches are made to
  sum to one, without what it takes from a class token.

  Args:
    weights: [tokens, tokens]; leading dimensions are kept.
    grid: (rows, columns) of patches.
    token_size: (height, width) in pixels from one patch to the next.

  Returns:
    Pixels, between patch centres; [] for one matrix.

  Raises:
    ConfigError: the tokens are those of another grid.
  """
  weights = jnp.asarray(weights)
  first = int(has_class_token(weights.shape[-1], grid))
  weights = weights[..., first:, first:]
  places = np.indices(grid).reshape(2, -1).T * np.asarray(token_size)
  offsets = (places[:, None] - places).astype(np.float32)
  distances = np.linalg.norm(offsets, axis=-1)
  total = weights.sum(axis=-1)
  # A patch that looks at nothing but the class token looks nowhere.
  total = jnp.maximum(total, jnp.finfo(jnp.float32).tiny)
  return ((weights * distances).sum(axis=-1) / total).mean(axis=-1)


def attention_distances(
  model: Any,
  params: Any,
  images: Float[Array, '*batch height width 3'],
) -> Float[jax.Array, 'layers batch heads']:
  """Returns the `mean_attention_distance` of each layer, image and head.

  The paper's Figure 7 has the mean over 128 images. The weights of one layer
  are there at a time.

  Args:
    model: a ViT or hybrid.
    params: of the model.
    images: [batch, height, width, 3] in [-1, 1].

  Returns:
    float32 [layers, batch, heads] in pixels.

  Raises:
    ConfigError: the model is a Mixer, or `images` is no batch.
  """
  check_images(model, images)
  return _attention_distances(model, params, images)


@jax.jit(static_argnums=0)
def _attention_distances(model, params, images):
  grid, size = model.grid(images.shape[1:3]), token_size(model)
  distances = []

  def tap(layer, weights):
    distances.append(mean_attention_distance(weights, grid, size))
    return weights

  tapped_logits(model, params, images, tap)
  return jnp.stack(distances)
