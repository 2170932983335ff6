"""Probes frozen features of any checkpoint on any data set."""

from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vit_jax import data_settings, errors, sharding, trained
from vit_jax.data import sources
from vit_jax.probe import examples, features, scores
from vit_jax.probe.results import Probe, Settings


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
  follow_links: bool = False,
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
    follow_links: as `config.follow_links`; False for that of the run.
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
  given = {
    'tfds_data_dir': tfds_data_dir,
    'tfds_manual_dir': tfds_manual_dir,
    'follow_links': follow_links,
  }
  config = data_settings.data_settings(
    opened, dataset, label, given, default_splits
  )
  config.pp.crop = data_settings.side(opened)
  config.batch_eval = data_settings.batch_size(batch, opened)
  train = sources.load_source(config, train_split or config.pp.train)
  test = sources.load_source(config, test_split or config.pp.test)
  examples.check_labels(train, test)
  examples.check_neighbours(settings, train, len(train))
  mesh = sharding.make_mesh()
  fitted, tested = _features_of(
    apply, opened, config, (train, test), mesh, tell
  )
  examples.check_neighbours(settings, train, len(fitted.labels))
  return Probe(
    opened,
    settings,
    train,
    test,
    config.pp.crop,
    {name: rows.shape[1] for name, rows in fitted.values.items()},
    (len(fitted.labels), len(tested.labels)),
    {
      name: scores.of_features(
        settings, fitted, tested, name, train.num_classes, mesh
      )
      for name in fitted.values
    },
    tuple(examples.remarks_on(config, settings, train, test, fitted, tested)),
  )


def _features_of(
  apply: Any,
  opened: trained.Trained,
  config: ConfigDict,
  both: tuple[sources.Source, sources.Source],
  mesh: Mesh,
  tell: features.Tell,
) -> list[features.Features]:
  """Returns those of two splits; the parameters leave the devices after it."""
  params = jax.device_put(opened.params, sharding.replicated(mesh))
  with trained.memory_told('Lower --batch.'):
    return [
      features.of_source(apply, params, config, source, mesh, tell)
      for source in both
    ]
