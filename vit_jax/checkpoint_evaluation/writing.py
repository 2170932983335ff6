"""What came of an evaluation, as a summary for people and as JSON."""

import dataclasses
from typing import Any

from vit_jax import data_settings
from vit_jax.checkpoint_evaluation.evaluating import Evaluation


def as_lines(found: Evaluation) -> dict[str, str]:
  """Returns a summary, a text by its label.

  Args:
    found: what came of an evaluation.
  """
  opened, source, metrics = found.opened, found.source, found.metrics
  accuracy = f'{metrics["accuracy"]:.2%}'
  if found.num_right is not None:
    accuracy += f' ({found.num_right:,} of {len(source):,} right)'
  lines = {
    'weights': opened.found.path,
    'model': f'{opened.name}, {opened.found.num_params:,} parameters',
    'data': f'{source.name} ({source.split}), {len(source):,} examples, '
    f'{source.num_classes:,} classes',
    'images': data_settings.images_text(opened),
    'accuracy': accuracy,
  }
  if 'top5' in metrics:
    lines['top5'] = f'{metrics["top5"]:.2%}'
  if 'loss' in metrics:
    lines['loss'] = f'{metrics["loss"]:.4f}'
  figure, difference = found.figure, found.difference
  if figure is not None and difference is not None:
    lines['published'] = f'{figure.accuracy:.2%} ({figure.source})' + (
      f', images {figure.preprocessing}' if figure.preprocessing else ''
    )
    lines['difference'] = f'{100 * difference:+.2f} percentage points'
  return lines


def as_json(found: Evaluation) -> dict[str, Any]:
  """Returns the same as `as_lines`, with numbers as they are.

  Args:
    found: what came of an evaluation.
  """
  figure = found.figure
  return {
    'weights': found.opened.found.path,
    'sha256': found.opened.found.sha256,
    'models': list(found.opened.found.models),
    'dataset': found.source.name,
    'split': found.source.split,
    'num_examples': len(found.source),
    'num_classes': found.source.num_classes,
    'image_size': found.image_size,
    **found.metrics,
    'num_right': found.num_right,
    'published': dataclasses.asdict(figure) if figure else None,
    'difference': found.difference,
    'remarks': list(found.remarks),
  }
