"""Whether two splits are fit for a probe, and what to know about them."""

import numpy as np
from ml_collections import ConfigDict

from vit_jax import errors
from vit_jax.data import decode, overlaps, sources
from vit_jax.probe.features import Features
from vit_jax.probe.results import Settings

_MAX_NAMED = 3


def check_labels(train: sources.Source, test: sources.Source) -> None:
  """Raises ConfigError where two splits can't be probed.

  Args:
    train: examples to fit.
    test: examples to test, with the same classes.
  """
  for source in (train, test):
    if source.max_labels is not None:
      raise errors.ConfigError(
        f'{source.name} ({source.split}): images have several labels, and a '
        'probe is of one each. Give a data set of such.'
      )
  if train.class_names != test.class_names:
    raise errors.ConfigError(
      f'{train.name}: the splits {train.split!r} and {test.split!r} have other '
      f'classes ({train.num_classes:,} and {test.num_classes:,}).'
    )


def check_neighbours(
  settings: Settings, train: sources.Source, num_train: int
) -> None:
  """Raises ConfigError where more neighbours are asked for than there are.

  Args:
    settings: what is asked for.
    train: examples that they are of.
    num_train: how many of these there are to be read.
  """
  num = max(settings.neighbours, default=0)
  if num > num_train:
    raise errors.ConfigError(
      f'{num} neighbours: {train.name} ({train.split}) has {num_train:,} '
      'examples. Give --neighbours at most so many.'
    )


def remarks_on(
  config: ConfigDict,
  settings: Settings,
  train: sources.Source,
  test: sources.Source,
  fitted: Features,
  tested: Features,
) -> list[str]:
  """Returns what else a user should know of the examples, in sentences.

  Args:
    config: of the data.
    settings: what is computed.
    train: examples to fit.
    test: examples to test.
    fitted: the features of those of `train` that could be read.
    tested: the features of those of `test`.
  """
  remarks = []
  counts = np.bincount(fitted.labels, minlength=train.num_classes)
  if short := (counts < max(settings.shots, default=0)).nonzero()[0].tolist():
    few = ', '.join(
      f'{decode.shown(train.class_names[i])!r} has {counts[i]}'
      for i in short[:_MAX_NAMED]
    )
    if len(short) > _MAX_NAMED:
      few += f', and so on for {len(short):,} classes'
    remarks.append(
      f'Fewer training examples than shots: {few}. All of them are used, so '
      'these classes have fewer than the others.'
    )
  for source, found in ((train, fitted), (test, tested)):
    if missing := len(source) - len(found.labels):
      remarks.append(
        f'{missing:,} of {len(source):,} examples of {source.split} could not '
        'be read and are left out.'
      )
  if shared := overlaps.warning(config, train, {'the test split': test}):
    remarks.append(f'{shared}.')
  return remarks
