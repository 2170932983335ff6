"""Evaluates any checkpoint on any data set; every example counts once."""

import dataclasses
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np
from ml_collections import ConfigDict

from vit_jax import data_settings, errors, progress, sharding, trained
from vit_jax import evaluate as evaluation
from vit_jax.checkpoint_evaluation.classes import check_classes
from vit_jax.checkpoint_evaluation.published import Figure, find_figure
from vit_jax.data import augment, overlaps, sources

_TELL_SECONDS = 10.0


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What came of an evaluation.

  Attributes:
    opened: the model.
    source: the examples.
    metrics: 'accuracy', and 'loss' and 'top5' where there are such.
    image_size: side in pixels.
    figure: what was published of these weights; None for nothing, or for
      another data set, split or image size.
    remarks: what else a user should know, a sentence each.
    is_whole: whether all examples count, and not those with a label alone.
  """

  opened: trained.Trained
  source: sources.Source
  metrics: Mapping[str, float]
  image_size: int
  figure: Figure | None
  remarks: tuple[str, ...]
  is_whole: bool = True

  @property
  def num_right(self) -> int | None:
    """Returns how many were right; None where it isn't known of how many."""
    if not self.is_whole:
      return None
    return round(self.metrics['accuracy'] * len(self.source))

  @property
  def difference(self) -> float | None:
    """Returns how much better the accuracy is than the published one."""
    if self.figure is None:
      return None
    return self.metrics['accuracy'] - self.figure.accuracy


def evaluate(
  checkpoint: str,
  dataset: str = '',
  split: str = '',
  *,
  default_split: str = 'test',
  batch: int | None = None,
  image_size: int | tuple[int, int] | None = None,
  label: str = '',
  tfds_data_dir: str | None = None,
  tfds_manual_dir: str | None = None,
  follow_links: bool = False,
  num_heads: int | None = None,
  tell: Callable[[str], None] = lambda text: None,
) -> Evaluation:
  """Returns the exact metrics of all examples of a split.

  They are what `evaluate.evaluate_run` gives for the same batch. Nothing is
  written.

  Args:
    checkpoint: a weight file, a run directory, a name or an address.
    dataset: a tfds name, or the path of a folder or list of images; '' for that
      of the run.
    split: of it; '' for that of the run, if it is the run's data set.
    default_split: if there is no such run.
    batch: images at a time, of which only rounding depends; None for that of
      the run, or 64.
    image_size: side in pixels; None for what the weights were made for.
    label: of the data set, as `config.label`.
    tfds_data_dir: where it is; None for tfds's own directory.
    tfds_manual_dir: where its archive is, if the user fetched that; None for
      tfds's own directory.
    follow_links: as `config.follow_links`; False for that of the run.
    num_heads: of a file that doesn't say it.
    tell: is told every ten seconds how far it is.

  Raises:
    ConfigError: the model has no head or another number of classes, or settings
      can't work.
    DataError, CheckpointError: unusable data or weights.
    NonFiniteError: the model's results are no numbers.
  """
  opened = trained.load(checkpoint, image_size, num_heads)
  size = data_settings.side(opened)
  if opened.model.num_classes is None:
    raise errors.ConfigError(
      f'{opened.found.path}: these weights have no head, so there is nothing '
      'to evaluate. Fine-tune them first, or give others.'
    )
  given = {
    'tfds_data_dir': tfds_data_dir,
    'tfds_manual_dir': tfds_manual_dir,
    'follow_links': follow_links,
  }
  config = data_settings.data_settings(
    opened, dataset, label, given, ('train', default_split)
  )
  config.batch_eval = data_settings.batch_size(batch, opened)
  config.pp.crop = size
  source = sources.load_source(config, split or config.pp.test)
  remarks = check_classes(opened, source)
  metrics = _metrics(opened, config, source, tell)
  figure = find_figure(checkpoint, opened.found.path)
  if figure and (reason := _other(figure, source, size)):
    remarks.append(
      f'{figure.source} has {figure.accuracy:.2%} for {reason}, which is not '
      'to be compared with this.'
    )
    figure = None
  return Evaluation(
    opened,
    source,
    metrics,
    size,
    figure,
    tuple(remarks),
    is_whole=source.max_labels is None and config.on_bad_image == 'fail',
  )


def _metrics(
  opened: trained.Trained,
  config: ConfigDict,
  source: sources.Source,
  tell: Callable[[str], None],
) -> dict[str, float]:
  mesh = sharding.make_mesh()
  step = evaluation.make_eval_step(
    opened.model, augment.eval_transform(config.pp), mesh
  )
  params = jax.device_put(opened.params, sharding.replicated(mesh))
  with trained.memory_told('Lower --batch.'):
    found = evaluation.evaluate_sets(
      step,
      params,
      config,
      {'test': source},
      mesh,
      _after_each_batch(tell, len(source), config.batch_eval),
    )
  if not np.isfinite([*found.values()]).all():
    raise errors.NonFiniteError(
      f'{opened.found.path}: {found}. Its weights may be damaged, or those of '
      'a training that failed; or no image of the split has a label.'
    )
  return {name.partition('/')[2]: value for name, value in found.items()}


def _after_each_batch(
  tell: Callable[[str], None], num_images: int, batch: int
) -> Callable[[], bool]:
  """Returns what tells how far it is, and that nothing is to be given up."""
  start = told = time.monotonic()
  done = 0

  def count() -> bool:
    nonlocal told, done
    now = time.monotonic()
    done = min(done + batch, num_images)
    if now - told >= _TELL_SECONDS and done < num_images:
      told = now
      left = progress.format_duration(
        (now - start) / done * (num_images - done)
      )
      tell(f'{done:,} of {num_images:,} images, {left} left')
    return False

  return count


def _other(figure: Figure, source: sources.Source, size: int) -> str:
  """Returns what a figure is of, if not of this evaluation; else ''."""
  if overlaps.base_name(source.name) != figure.dataset:
    return figure.dataset
  if source.split != figure.split:
    return f'the split {figure.split!r}'
  if size != figure.image_size:
    return f'images of {figure.image_size} pixels'
  return ''
