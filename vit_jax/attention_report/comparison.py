"""How good the maps of trained runs are, by deletion and insertion areas."""

import contextlib
import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from vit_jax import attention, checkpoints, errors, models, workdir
from vit_jax.attention.weights import check_model
from vit_jax.data import augment, pipeline, sources

# Each takes (model, params, images, classes).
METHODS: dict[str, Any] = {
  'random': None,  # Drawn afresh for each image.
  'centre': lambda model, _, images, __: np.broadcast_to(
    attention.centre_map(model.grid(images.shape[1:3])),
    (len(images), *model.grid(images.shape[1:3])),
  ),
  'raw': lambda *args: attention.class_token_maps(*args[:3])[0][-1].mean(1),
  'rollout': lambda *args: attention.rollout_maps(*args[:3]).maps,
  'grad_rollout': lambda *args: attention.grad_rollout_maps(*args).maps,
  'relevance': lambda *args: attention.relevance_maps(*args).maps,
}
KINDS = ('deletion', 'insertion')

# What is read of a run's config.json.
FIELDS = (
  'dataset',
  'dtype',
  'model',
  'num_threads',
  'pp',
  'tfds_data_dir',
  'tfds_manual_dir',
)


@dataclasses.dataclass(frozen=True)
class Areas:
  """What was measured of one run.

  Attributes:
    areas: float32 [methods, kinds, images].
    accuracy: on the images.
  """

  areas: np.ndarray
  accuracy: float


def choose(names: Sequence[str]) -> list[str]:
  """Returns the methods asked for, and the centre that they are compared to.

  Raises:
    ConfigError: there is no such method.
  """
  for name in names:
    if name not in METHODS:
      raise errors.ConfigError(errors.unknown_name('method', name, METHODS))
  return [name for name in METHODS if name in (*names, 'centre')]


def read_config(run: str, batch: int, split: str | None) -> Any:
  """Returns the settings of a finished run.

  Args:
    run: its directory.
    batch: images at a time, in place of the run's own.
    split: in place of the one that the run was tested on.

  Raises:
    ConfigError: the run isn't finished, or its config can't be read.
  """
  path = workdir.Workdir(run)
  missing = [p.name for p in (path.config, path.model) if not p.is_file()]
  if missing:
    raise errors.ConfigError(
      f'{run} lacks {" and ".join(missing)}: give the directory of a run that '
      'has finished.'
    )
  try:
    settings = json.loads(path.config.read_text(encoding='utf-8'))
    found = ml_collections.ConfigDict(dict(settings))
    lacking = {*FIELDS} - {*found} or {'crop', 'test'} - {*found.pp}
    if lacking:
      raise ValueError(f'no {", ".join(sorted(lacking))}')
  except (TypeError, ValueError) as error:  # Not JSON, or nothing like it.
    raise errors.ConfigError(
      f'{path.config} is not the config of a run: {errors.first_line(error)}. '
      'Put a whole one back.'
    ) from error
  found.batch_eval = batch
  found.pp.test = split or found.pp.test
  return found


def shared_split(configs: Sequence[Any]) -> tuple[str, str]:
  """Returns the data set and the split that all runs are tested on.

  Raises:
    ConfigError: they are not the same.
  """
  found = {(config.dataset, config.pp.test) for config in configs}
  if len(found) > 1:
    raise errors.ConfigError(
      'The runs have different test images, which no average can be of: '
      f'{", ".join(sorted(" ".join(each) for each in found))}. Give those of '
      'one data set, and --split if their splits differ.'
    )
  return found.pop()


def measure(
  run: str,
  config: Any,
  methods: list[str],
  baseline: str = 'mean',
  num_images: int | None = None,
) -> Areas:
  """Returns the areas of methods' maps, for the class that is predicted.

  Args:
    run: directory with the weights.
    config: of `read_config`.
    methods: keys of `METHODS`.
    baseline: what takes the place of a patch; as of `faithfulness_curves`.
    num_images: the first so many of the split; None for all.

  Raises:
    UserError: weights or data that can't be read, or a model without attention.
  """
  source = sources.load_source(config, config.pp.test)
  model = models.create_model(
    config.model, num_classes=source.num_classes, dtype=config.dtype
  )
  check_model(model)
  params = checkpoints.load_pretrained(
    workdir.Workdir(run).model, model, config.pp.crop, fresh_head=False
  )
  transform = jax.jit(augment.eval_transform(config.pp))
  predict = jax.jit(model.apply)
  left = min(num_images or len(source), len(source))
  rng, areas, right = np.random.default_rng(0), [], []
  with contextlib.closing(pipeline.eval_batches(config, source)) as batches:
    while left:
      batch = next(batches)
      images = transform(batch['image'])
      classes = np.asarray(predict({'params': params}, images)).argmax(-1)
      count = min(left, len(classes))  # What fills up stands at the end.
      left -= count
      right.append((classes == batch['label'])[:count])
      found = [
        _areas(method, model, params, images, classes, rng, baseline)
        for method in methods
      ]
      areas.append(np.stack(found)[..., :count])
  return Areas(
    np.concatenate(areas, axis=-1), float(np.concatenate(right).mean())
  )


def _areas(method, model, params, images, classes, rng, baseline) -> np.ndarray:
  """Returns [kinds, images]."""
  if method == 'random':
    maps = rng.random((len(images), *model.grid(images.shape[1:3])))
  else:
    maps = np.asarray(METHODS[method](model, params, images, classes))
  curves = attention.faithfulness_curves(
    model, params, images, maps, classes, baseline
  )
  return np.stack([curves.deletion_area, curves.insertion_area])


def summarise(areas: np.ndarray, methods: list[str]) -> dict[str, Any]:
  """Returns, by method and kind, the mean area and how it compares.

  Args:
    areas: [methods, kinds, images].
    methods: their names; 'centre' is among them.

  Returns:
    For each kind 'mean'; 'minus_centre', the mean of what the area has more
    than that of the centre map; 'standard_error', of this mean over images, or
    None of one image.
  """
  more = areas.astype(np.float64) - areas[methods.index('centre')]
  count = areas.shape[-1]
  return {
    method: {
      kind: {
        'mean': float(areas[i, j].mean()),
        'minus_centre': float(more[i, j].mean()),
        'standard_error': float(more[i, j].std(ddof=1)) / count**0.5
        if count > 1
        else None,
      }
      for j, kind in enumerate(KINDS)
    }
    for i, method in enumerate(methods)
  }


def average(areas: Sequence[np.ndarray], methods: list[str]) -> dict[str, Any]:
  """Returns what `summarise` does, of the mean area of each image over runs."""
  return summarise(np.mean(areas, axis=0), methods)
