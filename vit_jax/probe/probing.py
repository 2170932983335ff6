"""Probes frozen features of any checkpoint on any data set."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vit_jax import data_settings, errors, sharding, trained
from vit_jax.data import decode, overlaps, sources
from vit_jax.probe import features, neighbours, ridge

_MAX_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is computed of the features.

  Attributes:
    shots: examples of each class to fit on, 0 for all that there are.
    num_seeds: draws of these examples, by the seeds from 0.
    neighbours: numbers of nearest neighbours that vote.
    l2: strength of the regularisation that is not chosen.
    temperature: of weighted votes.
    layer: see `features.make_apply`.
    with_pixels: whether the same is computed of the images themselves.
  """

  shots: Sequence[int] = (5, 10, 25, 0)
  num_seeds: int = 3
  neighbours: Sequence[int] = (1, 3, 5, 20)
  l2: float = ridge.L2
  temperature: float = 0.07
  layer: str = ''
  with_pixels: bool = False


@dataclasses.dataclass(frozen=True)
class Score:
  """How accurate a probe is.

  Attributes:
    method: 'ridge' or 'neighbours'.
    number: of shots, 0 for all examples; or of neighbours.
    variant: of ridge whose l2 it is, 'fixed' or 'leave-one-out'; of neighbours
      the votes, 'majority' or 'weighted'.
    accuracies: shares in [0, 1], one a seed, one in all where none is drawn.
    l2s: as many strengths; () of neighbours.
  """

  method: str
  number: int
  variant: str
  accuracies: tuple[float, ...]
  l2s: tuple[float, ...] = ()

  @property
  def mean(self) -> float:
    return float(np.mean(self.accuracies))

  @property
  def deviation(self) -> float | None:
    """Returns the standard deviation over seeds, None of fewer than two."""
    if len(self.accuracies) < 2:
      return None
    return float(np.std(self.accuracies, ddof=1))


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
  """What came of it.

  Attributes:
    opened: the model.
    settings: what was asked for.
    train: the examples that are fitted and looked for neighbours in.
    test: the examples of which the accuracies are.
    image_size: side in pixels.
    num_features: of each kind.
    num_examples: (training, test) that could be read.
    scores: of each kind, 'features' and perhaps 'pixels', in the same order.
    remarks: what else a user should know, a sentence each.
  """

  opened: trained.Trained
  settings: Settings
  train: sources.Source
  test: sources.Source
  image_size: int
  num_features: dict[str, int]
  num_examples: tuple[int, int]
  scores: dict[str, list[Score]]
  remarks: tuple[str, ...]


def probe(
  checkpoint: str,
  dataset: str = '',
  train_split: str = '',
  test_split: str = '',
  *,
  settings: Settings | None = None,
  default_splits: tuple[str, str] = ('train', 'test'),
  batch: int | None = None,
  image_size: int | None = None,
  label: str = '',
  tfds_data_dir: str | None = None,
  tfds_manual_dir: str | None = None,
  num_heads: int | None = None,
  tell: features.Tell = lambda _: None,
) -> Probe:
  """Returns how accurate simple classifiers of a model's features are.

  Each example is read and goes through the model once. Nothing is written, and
  nothing depends on chance but by the seeds.

  Args:
    checkpoint: a weight file, a run directory, a name or an address; a head is
      not looked at.
    dataset: a tfds name, or the path of a folder or list of images; '' for that
      of the run.
    train_split: of it; '' for that of the run, if it is the run's data set.
    test_split: the same.
    settings: what to compute; None for the defaults.
    default_splits: (training, test) if there is no such run.
    batch: images at a time; None for that of the run, or 64.
    image_size: side in pixels; None for what the weights were made for.
    label: of the data set, as `config.label`.
    tfds_data_dir: where it is; None for tfds's own directory.
    tfds_manual_dir: where its archive is, if the user fetched that; None for
      tfds's own directory.
    num_heads: of a file that doesn't say it.
    tell: is given a line now and then of how far it is.

  Raises:
    ConfigError: settings that can't work, or images with several labels.
    DataError, CheckpointError: unusable data or weights.
    NonFiniteError: features that are no numbers.
  """
  settings = settings or Settings()
  if not (settings.shots or settings.neighbours):
    raise errors.ConfigError(
      'nothing to compute: neither shots nor neighbours are asked for.'
    )
  opened = trained.load(checkpoint, image_size, num_heads)
  apply = features.make_apply(
    opened.model, settings.layer, settings.with_pixels
  )
  height, width = opened.image_size
  if height != width:
    raise errors.ConfigError(
      f'{opened.found.path}: made for images of {height} x {width} pixels, and '
      'a probe is of squares. Give the side: --image_size N'
    )
  places = {'tfds_data_dir': tfds_data_dir, 'tfds_manual_dir': tfds_manual_dir}
  config = data_settings.data_settings(
    opened, dataset, label, places, default_splits
  )
  config.pp.crop = height
  config.batch_eval = data_settings.batch_size(batch, opened)
  train = sources.load_source(config, train_split or config.pp.train)
  test = sources.load_source(config, test_split or config.pp.test)
  _check_labels(train, test)
  _check_neighbours(settings, train, len(train))
  mesh = sharding.make_mesh()
  params = jax.device_put(opened.params, sharding.replicated(mesh))
  with trained.memory_told('Lower --batch.'):
    fitted, tested = (
      features.of_source(apply, params, config, source, mesh, tell)
      for source in (train, test)
    )
  del params  # Neighbours have the device for themselves.
  _check_neighbours(settings, train, len(fitted.labels))
  return Probe(
    opened,
    settings,
    train,
    test,
    height,
    {name: rows.shape[1] for name, rows in fitted.values.items()},
    (len(fitted.labels), len(tested.labels)),
    {
      name: _scores(settings, fitted, tested, name, train.num_classes, mesh)
      for name in fitted.values
    },
    tuple(_remarks(config, settings, train, test, fitted, tested)),
  )


def _scores(
  settings: Settings,
  fitted: features.Features,
  tested: features.Features,
  name: str,
  num_classes: int,
  mesh: Mesh,
) -> list[Score]:
  """Returns the accuracies of all probes of one kind of features."""
  scores = []
  for shots in settings.shots:
    scores += _ridge_scores(settings, fitted, tested, name, num_classes, shots)
  if not settings.neighbours:
    return scores
  with trained.memory_told('Lower --neighbours.'):
    indices, cosines = neighbours.nearest(
      fitted.values[name], tested.values[name], max(settings.neighbours), mesh
    )
  labels = fitted.labels[indices]
  for num in settings.neighbours:
    for variant, weights in (
      ('majority', None),
      ('weighted', cosines[:, :num]),
    ):
      chosen = neighbours.vote(
        labels[:, :num], num_classes, weights, settings.temperature
      )
      right = float((chosen == tested.labels).mean())
      scores.append(Score('neighbours', num, variant, (right,)))
  return scores


def _ridge_scores(
  settings: Settings,
  fitted: features.Features,
  tested: features.Features,
  name: str,
  num_classes: int,
  shots: int,
) -> list[Score]:
  """Returns the accuracies with both choices of the regularisation."""
  found: dict[str, list[tuple[float, float]]] = {}
  for seed in range(settings.num_seeds if shots else 1):
    rows: Any = slice(None)
    if shots:
      rows = ridge.draw_shots(fitted.labels, num_classes, shots, seed)
    fit = ridge.Ridge(
      fitted.values[name][rows], fitted.labels[rows], num_classes
    )
    for variant, l2 in (
      ('fixed', settings.l2),
      ('leave-one-out', fit.choose_l2()),
    ):
      right = fit.predict(tested.values[name], l2) == tested.labels
      found.setdefault(variant, []).append((float(right.mean()), l2))
  return [
    Score('ridge', shots, variant, *zip(*pairs, strict=True))
    for variant, pairs in found.items()
  ]


def _check_labels(train: sources.Source, test: sources.Source) -> None:
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


def _check_neighbours(
  settings: Settings, train: sources.Source, num_train: int
) -> None:
  num = max(settings.neighbours, default=0)
  if num > num_train:
    raise errors.ConfigError(
      f'{num} neighbours: {train.name} ({train.split}) has {num_train:,} '
      'examples. Give --neighbours at most so many.'
    )


def _remarks(
  config: ConfigDict,
  settings: Settings,
  train: sources.Source,
  test: sources.Source,
  fitted: features.Features,
  tested: features.Features,
) -> list[str]:
  """Returns what else a user should know of the examples."""
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
    shared = shared.replace('--config.pp.train=', '--train_split ').replace(
      'config.pp.train', '--train_split'
    )
    remarks.append(f'{shared}.')
  return remarks
