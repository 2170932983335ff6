"""Says in a few lines how many images each class has."""

import numpy as np

from vit_jax.data import decode
from vit_jax.data.sources import Source

_MAX_SHOWN = 12  # Classes on a line.


def class_lines(train: Source, test: Source) -> dict[str, str]:
  """Returns lines for the summary of a run, none where counts are not known.

  Args:
    train: what is trained on; the lines are about its classes.
    test: what is tested on.

  Returns:
    'classes': the counts of both, of many classes those of the first ones;
    'balance': the classes with the most and the fewest images.
  """
  if train.labels is None or test.labels is None:
    return {}
  names = [decode.shown(name) for name in train.class_names]
  counts, test_counts = (
    np.bincount(labels, minlength=len(names))
    for labels in (train.labels, test.labels)
  )
  shown = ', '.join(
    f'{name} {count:,} + {test_count:,}'
    for name, count, test_count in zip(
      names[:_MAX_SHOWN], counts, test_counts, strict=False
    )
  )
  left = len(names) - _MAX_SHOWN
  return {
    'classes': f'{shown}{f" and {left:,} more" if left > 0 else ""} '
    '(train + test)',
    'balance': _balance(names, counts),
  }


def _balance(names: list[str], counts: np.ndarray) -> str:
  most, fewest = int(counts.argmax()), int(counts.argmin())
  if counts[most] == counts[fewest]:
    return f'every class has {counts[most]:,} to train on'
  line = (
    f'most to train on: {names[most]} with {counts[most]:,}, fewest: '
    f'{names[fewest]} with {counts[fewest]:,}'
  )
  if counts[fewest]:
    line += f' ({counts[most] / counts[fewest]:.1f} : 1)'
  return line
