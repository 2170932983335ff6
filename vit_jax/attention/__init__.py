"""Attention to look at: weights, rollout, class-specific maps, their worth.

    weights = attention.attention_weights(model, params, images)
    matrix = attention.rollout(weights[:, 0])  # Of the first image.
    picture = attention.class_token_map(matrix, model.grid((224, 224)))

`rollout_maps`, `grad_rollout_maps` and `relevance_maps` do the same for many
images and never hold all the weights.
"""

from vit_jax.attention.diagnostics import (
  Components,
  attention_distances,
  filter_components,
  mean_attention_distance,
  position_similarity,
)
from vit_jax.attention.faithfulness import (
  BASELINES,
  Curves,
  centre_map,
  faithfulness_curves,
)
from vit_jax.attention.gradients import (
  Gradients,
  attention_gradients,
  grad_rollout,
  grad_rollout_maps,
  relevance,
  relevance_maps,
)
from vit_jax.attention.maps import (
  class_token_map,
  patch_map,
  raw_map,
  token_size,
)
from vit_jax.attention.rollouts import (
  HEAD_FUSIONS,
  layer_rollouts,
  rollout,
  rollout_batch,
  rollout_maps,
)
from vit_jax.attention.weights import (
  Maps,
  attention_weights,
  class_token_maps,
)

__all__ = [
  'BASELINES',
  'HEAD_FUSIONS',
  'Components',
  'Curves',
  'Gradients',
  'Maps',
  'attention_distances',
  'attention_gradients',
  'attention_weights',
  'centre_map',
  'class_token_map',
  'class_token_maps',
  'faithfulness_curves',
  'filter_components',
  'grad_rollout',
  'grad_rollout_maps',
  'layer_rollouts',
  'mean_attention_distance',
  'patch_map',
  'position_similarity',
  'raw_map',
  'relevance',
  'relevance_maps',
  'rollout',
  'rollout_batch',
  'rollout_maps',
  'token_size',
]
