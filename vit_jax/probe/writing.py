"""What came of a probe, as a summary and a table for people, and as JSON."""

import dataclasses
import json
import pathlib
from typing import Any

from vit_jax import data_settings, errors, whole_files
from vit_jax.probe import features
from vit_jax.probe.results import Probe, Score

_RIDGE = {'fixed': 'l2 {l2:g}', 'leave-one-out': 'l2 leave-one-out'}


def as_lines(found: Probe) -> dict[str, str]:
  """Returns what was probed with what, a text by its label.

  Args:
    found: what came of a probe.
  """
  opened, train = found.opened, found.train
  what = features.layer_text(opened.model, found.settings.layer)
  num_train, num_test = found.num_examples
  lines = {
    'weights': opened.found.path,
    'model': opened.name,
    'features': f'{found.num_features["features"]:,}, {what}',
    'data': f'{train.name}, {train.num_classes:,} classes: {num_train:,} '
    f'examples of {train.split} to fit, {num_test:,} of {found.test.split} to '
    'test',
    'images': data_settings.images_text(opened),
  }
  if 'pixels' in found.num_features:
    lines['pixels'] = f'{found.num_features["pixels"]:,} numbers'
  return lines


def as_table(found: Probe) -> str:
  """Returns the accuracies as a Markdown table, a row for each probe.

  Args:
    found: what came of a probe.
  """
  kinds = [*found.scores]
  rows = [
    ['probe', *kinds],
    *(
      [_name(scores[0], found), *map(_accuracy, scores)]
      for scores in zip(*found.scores.values(), strict=True)
    ),
  ]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = [_line(row, widths) for row in rows]
  ends = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
  return '\n'.join([lines[0], _line(ends, widths), *lines[1:]])


def _line(cells: list[str], widths: list[int]) -> str:
  first, *others = zip(cells, widths, strict=True)
  texts = [first[0].ljust(first[1]), *(cell.rjust(n) for cell, n in others)]
  return f'| {" | ".join(texts)} |'


def _name(score: Score, found: Probe) -> str:
  if score.method == 'neighbours':
    some = 'neighbour' if score.number == 1 else 'neighbours'
    return f'{score.number} {some}, {score.variant}'
  shots = f'{score.number} a class'
  if not score.number:
    shots = f'all {found.num_examples[0]:,}'
  variant = _RIDGE[score.variant].format(l2=found.settings.l2)
  return f'ridge, {shots}, {variant}'


def _accuracy(score: Score) -> str:
  if score.deviation is None:
    return f'{score.mean:.2%}'
  return f'{score.mean:.2%} ± {100 * score.deviation:.2f}'


def as_json(found: Probe) -> dict[str, Any]:
  """Returns all of it, with numbers as they are.

  Args:
    found: what came of a probe.
  """
  num_train, num_test = found.num_examples
  return {
    'weights': found.opened.found.path,
    'sha256': found.opened.found.sha256,
    'models': list(found.opened.found.models),
    'dataset': found.train.name,
    'num_classes': found.train.num_classes,
    'train_split': found.train.split,
    'test_split': found.test.split,
    'num_train': num_train,
    'num_test': num_test,
    'image_size': found.image_size,
    'features': features.layer_text(found.opened.model, found.settings.layer),
    'num_features': dict(found.num_features),
    'settings': dataclasses.asdict(found.settings),
    'scores': {
      kind: [
        {
          **dataclasses.asdict(score),
          'mean': score.mean,
          'deviation': score.deviation,
        }
        for score in scores
      ]
      for kind, scores in found.scores.items()
    },
    'remarks': list(found.remarks),
  }


def write_json(found: Probe, path: pathlib.Path) -> None:
  """Writes `as_json` to a file.

  Args:
    found: what came of a probe.
    path: of the file, which is replaced.

  Raises:
    ConfigError: it can't be written.
  """
  text = json.dumps(as_json(found), indent=2) + '\n'
  try:
    whole_files.write_text(path, text)
  except OSError as error:
    raise errors.ConfigError(
      f'--out {path}: {error.strerror}; nothing was written.'
    ) from error
