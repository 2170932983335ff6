"""What a run's model says of every example of a split."""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vit_jax import checkpoints, errors, models, outputs, sharding
from vit_jax.class_names import readable
from vit_jax.data import eval_sets, sources
from vit_jax.run_report import scores
from vit_jax.run_report.runs import Run, find_weights
from vit_jax.run_report.settings import Settings

_TRIES = 5


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
  """A model and what it says of examples; those without a label don't count.

  Attributes:
    model: the module.
    params: of the model.
    config: with the data set, split and size of images that were used.
    source: of the examples.
    class_names: in the order of the logits, those of ImageNet readable.
    indices: int64 [n], of the examples in the source.
    labels: int32 [n], or [n, max_labels] where images have several, -1 for
      those that are not there.
    logits: [n, num_classes].
  """

  model: Any
  params: Any
  config: ConfigDict
  source: sources.Source
  class_names: list[str]
  indices: np.ndarray
  labels: np.ndarray
  logits: np.ndarray

  def __len__(self) -> int:
    return len(self.indices)

  @property
  def num_classes(self) -> int:
    """Width of the head."""
    return self.logits.shape[1]

  @property
  def has_several_labels(self) -> bool:
    """Whether an image may have more than one."""
    return self.labels.ndim == 2

  @functools.cached_property
  def is_finite(self) -> bool:
    """Whether there is no NaN or infinity in the logits."""
    return bool(np.isfinite(self.logits).all())

  @functools.cached_property
  def probabilities(self) -> np.ndarray:
    """[n, num_classes], float64."""
    return scores.softmax(self.logits)

  @functools.cached_property
  def predicted(self) -> np.ndarray:
    """int64 [n]."""
    return self.logits.argmax(axis=1)

  @functools.cached_property
  def confidence(self) -> np.ndarray:
    """[n], the probability of what is predicted."""
    return self.probabilities[np.arange(len(self)), self.predicted]

  @functools.cached_property
  def is_right(self) -> np.ndarray:
    """bool [n]: of several labels, whether it is one of them."""
    labels = self.labels.reshape(len(self), -1)
    return (labels == self.predicted[:, None]).any(axis=1)

  @functools.cached_property
  def single(self) -> np.ndarray:
    """int [n]: the label, -1 where there are several."""
    if not self.has_several_labels:
      return self.labels
    alone = (self.labels >= 0).sum(axis=1) == 1
    return np.where(alone, self.labels.max(axis=1, initial=-1), -1)

  def labels_of(self, place: int) -> list[int]:
    """Returns the labels of the example at a place of these answers."""
    return [int(each) for each in np.ravel(self.labels[place]) if each >= 0]

  def probability_of_truth(self, place: int) -> float:
    """Returns that of the label, or of all labels together."""
    return float(self.probabilities[place, self.labels_of(place)].sum())

  @property
  def accuracy(self) -> float:
    """What `--mode=evaluate` prints, to the same bits: a float32's."""
    if not len(self):
      return math.nan
    return float(np.float32(self.is_right.sum()) / np.float32(len(self)))

  def loss(self) -> float | None:
    """Returns the mean cross-entropy; None of several labels."""
    if self.has_several_labels or not len(self) or not self.is_finite:
      return None
    shifted = self.logits.astype(np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    total = np.log(np.exp(shifted).sum(axis=1))
    return float((total - shifted[np.arange(len(self)), self.labels]).mean())

  def top5(self) -> float | None:
    """Returns the share whose label is among the first five, if that says more.

    None of several labels, or of up to five classes, as in evaluations.
    """
    if self.has_several_labels or self.num_classes <= 5 or not len(self):
      return None
    first = np.argsort(-self.logits, axis=1, kind='stable')[:, :5]
    return float((first == self.labels[:, None]).any(axis=1).mean())


def ask(run: Run, settings: Settings) -> Answers:
  """Runs the model of a run on every example of a split.

  Its settings say of what: the data set, the size of images, the dtype. The
  predictions are those that `--mode=evaluate` counts.

  Args:
    run: with a config; gets notes.
    settings: may name other examples.

  Raises:
    ConfigError, CheckpointError, CheckpointNotFoundError: the model can't be
      made, or its weights can't be had.
    DataError, DataNotFoundError: the examples can't be.
  """
  assert run.config is not None
  if not run.weights:
    raise errors.CheckpointNotFoundError(
      f'{run.path} has no weights yet: neither model.npz nor checkpoints.'
    )
  mesh = sharding.make_mesh()
  config = _config(run.config, settings, mesh.size)
  source = sources.load_source(config, config.pp.test)
  model = models.create_model(
    config.model, num_classes=source.num_classes, dtype=config.dtype
  )
  params = _load(run, model, config.pp.crop)

  def apply(params: Any, images: Any) -> dict[str, Any]:
    logits: Any = model.apply({'params': params}, images)
    return {'logits': logits.astype('float32')}

  batch = outputs.whole_split(
    apply,
    params,
    config,
    source,
    mesh,
  )
  labels, logits = batch.labels, batch.values['logits']
  has_label = labels.reshape(len(labels), -1).max(axis=1) >= 0
  if not has_label.all():
    run.notes.append(
      f'{int((~has_label).sum()):,} images without a label do not count.'
    )
  if len(labels) < len(source):
    run.notes.append(
      f'{len(source) - len(labels):,} images could not be read and do not '
      'count.'
    )
  return Answers(
    model,
    params,
    config,
    source,
    [readable(name) for name in _class_names(run, source)],
    batch.indices[has_label],
    labels[has_label],
    logits[has_label],
  )


def _load(run: Run, model: Any, crop: int) -> Any:
  """Returns the parameters; the run gets to know of which step they are."""
  for _ in range(_TRIES):
    run.weights = find_weights(run.path)
    params = checkpoints.load_pretrained(
      run.path.absolute(), model, crop, fresh_head=False
    )
    # One under way may have saved another meanwhile.
    if find_weights(run.path) == run.weights:
      break
  else:
    raise errors.CheckpointNotFoundError(
      f'{run.path} saves checkpoints faster than they can be read. Make the '
      'report when it has finished.'
    )
  if run.is_under_way:
    run.notes.append(
      f'The run has not finished: its weights are those of {run.weights}'
      + (f', of {run.total_steps:,} steps.' if run.total_steps else '.')
    )
  return params


def _config(config: ConfigDict, settings: Settings, devices: int) -> ConfigDict:
  """Returns the settings with what is asked for in their place."""
  config = config.copy_and_resolve_references()
  split = settings.split
  sets = eval_sets.parse(config.eval_sets)
  if split in sets and settings.dataset is None:
    dataset, split = sets[split]
    if dataset and dataset != config.dataset:
      config.dataset, config.label = dataset, ''
  if settings.dataset is not None:
    config.dataset = settings.dataset
  with config.ignore_type():
    for name in ('tfds_data_dir', 'tfds_manual_dir'):
      if (directory := getattr(settings, name)) is not None:
        config[name] = directory
  config.pp.test = split or config.pp.test
  batch = settings.batch or config.batch_eval
  config.batch_eval = -(-batch // devices) * devices
  return config


def _class_names(run: Run, source: sources.Source) -> list[str]:
  names = [*source.class_names]
  if run.class_names is None or len(run.class_names) != len(names):
    return names
  if run.class_names != names:
    i = next(i for i, name in enumerate(names) if name != run.class_names[i])
    run.notes.append(
      f'The classes of {source.name} are called otherwise than those of the '
      f'run: class {i} is {names[i]!r} there, {run.class_names[i]!r} here. If '
      'they are others, or in another order, nothing below means anything.'
    )
  return run.class_names
