"""How accurate any checkpoint is on any data set, and was said to be."""

from vit_jax.checkpoint_evaluation.evaluating import Evaluation, evaluate
from vit_jax.checkpoint_evaluation.published import Figure, find_figure
from vit_jax.checkpoint_evaluation.writing import as_json, as_lines

__all__ = [
  'Evaluation',
  'Figure',
  'as_json',
  'as_lines',
  'evaluate',
  'find_figure',
]
