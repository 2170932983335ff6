"""What a model looks at in images: maps, predictions, and their worth."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import attention, errors, trained
from vit_jax.attention.classes import checked_classes
from vit_jax.attention.weights import check_model
from vit_jax.attention_report.settings import (
  Settings,
  parse_class,
  parse_heads,
  parse_layers,
)
from vit_jax.data import augment, decode, images
from vit_jax.models import spatial_transformer


@dataclasses.dataclass(frozen=True)
class Run:
  """A model and what is asked of it."""

  trained: trained.Trained
  layers: list[int]
  heads: list[int] | None  # None is the mean of all.
  class_index: int | None  # That is asked about; None is the predicted one.
  settings: Settings

  @property
  def model(self) -> Any:
    """The module."""
    return self.trained.model

  @property
  def params(self) -> Any:
    """Its parameters."""
    return self.trained.params

  @property
  def size(self) -> tuple[int, int]:
    """Of the images, (height, width) in pixels."""
    return self.trained.image_size

  @property
  def shown_heads(self) -> list[int]:
    """All heads where the mean is asked for."""
    return self.heads or list(range(self.model.num_heads))


@dataclasses.dataclass(frozen=True)
class Seen:
  """An image as the model saw it, and what came of it."""

  name: str
  image: np.ndarray  # uint8 [height, width, 3].
  values: np.ndarray  # The method's map, [rows, columns].
  class_token: np.ndarray  # [layers, heads, rows, columns].
  # Of a model without a head, None.
  probabilities: np.ndarray | None = None  # [num_classes].
  class_index: int | None = None  # That is asked about.
  areas: dict[str, float] | None = None

  @property
  def top(self) -> int | None:
    """Returns the class that is predicted."""
    if self.probabilities is None:
      return None
    return int(self.probabilities.argmax())


def load(checkpoint: str, settings: Settings) -> Run:
  """Reads weights and finds the layers and heads that are asked for.

  Args:
    checkpoint: a weight file, a run directory, a name or an address.
    settings: what is asked for.

  Raises:
    ConfigError: the model has no attention, or not what is asked for.
    CheckpointError, CheckpointNotFoundError: weights that can't be used.
  """
  opened = trained.load(checkpoint, settings.image_size, settings.num_heads)
  check_model(opened.model)
  return Run(
    opened,
    parse_layers(settings.layers, opened.model.num_layers),
    parse_heads(settings.heads, opened.model.num_heads),
    _class_index(opened, settings),
    settings,
  )


def _class_index(opened: trained.Trained, settings: Settings) -> int | None:
  """Returns the class that is asked about."""
  if settings.class_asked is not None or settings.method in _OF_A_CLASS:
    checked_classes(opened.model, 1, None)
  if settings.class_asked is None or opened.model.num_classes is None:
    return None
  return parse_class(
    settings.class_asked, opened.model.num_classes, opened.class_names
  )


def _rollout(run: Run, batch: jax.Array, _: np.ndarray):
  return attention.rollout_maps(
    run.model,
    run.params,
    batch,
    run.settings.head_fusion,
    run.settings.discard_ratio,
  ).maps


def _grad_rollout(run: Run, batch: jax.Array, _: np.ndarray):
  return attention.grad_rollout_maps(
    run.model, run.params, batch, run.class_index, run.settings.discard_ratio
  ).maps


def _relevance(run: Run, batch: jax.Array, _: np.ndarray):
  return attention.relevance_maps(
    run.model, run.params, batch, run.class_index
  ).maps


def _raw(run: Run, _: jax.Array, class_token: np.ndarray):
  """Returns the mean of the chosen heads in the last of the chosen layers."""
  return class_token[run.layers[-1]][:, run.shown_heads].mean(axis=1)


METHODS: dict[str, Callable[[Run, jax.Array, np.ndarray], Any]] = {
  'rollout': _rollout,
  'grad_rollout': _grad_rollout,
  'relevance': _relevance,
  'raw': _raw,
}

# Those that need a class, and so a head.
_OF_A_CLASS = ('grad_rollout', 'relevance')


def look(
  run: Run, names: list[str], pixels: np.ndarray, failed: dict[str, str]
) -> list[Seen]:
  """Returns what comes of the first len(names) images.

  Args:
    run: the model and what is asked of it.
    names: of the images.
    pixels: uint8 [batch, height, width, 3]; those without a name fill up.
    failed: gets, by name, what is wrong with those that nothing comes of.
  """
  batch = augment.normalize(jnp.asarray(pixels))
  if spatial_transformer.of_model(run.model) is not None:
    run, batch, pixels = _behind_transformer(run, batch)
  found, logits = attention.class_token_maps(run.model, run.params, batch)
  class_token = np.asarray(found)
  maps = np.asarray(METHODS[run.settings.method](run, batch, class_token))
  seen = [
    Seen(name, pixels[i], maps[i], class_token[:, i])
    for i, name in enumerate(names)
  ]
  if run.model.num_classes is not None:
    seen = _with_classes(run, batch, seen, maps, logits)
  good = []
  for each, row in zip(seen, np.asarray(logits), strict=False):
    if all(np.isfinite(x).all() for x in (row, each.values, each.class_token)):
      good.append(each)
    else:
      failed[each.name] = (
        f'{decode.shown(each.name)}: the model makes NaN or infinite values of '
        'this image, so there is nothing to show. '
        f'{run.trained.found.path} may be damaged, or the weights of a '
        'training that failed.'
      )
  return good


def _behind_transformer(
  run: Run, batch: jax.Array
) -> tuple[Run, jax.Array, np.ndarray]:
  """Returns the model without its spatial transformer, and what it sees.

  Patches are of what the transformer makes of an image, so that is what there
  is attention to.
  """
  model, params = run.model, run.params
  batch, _ = jax.jit(spatial_transformer.transform, static_argnums=0)(
    model, params, batch
  )
  model, params = spatial_transformer.without(model, params)
  opened = dataclasses.replace(run.trained, model=model, params=params)
  pixels = np.clip(np.asarray(batch) * 127.5 + 127.5, 0, 255)
  return (
    dataclasses.replace(run, trained=opened),
    batch,
    np.rint(pixels).astype(np.uint8),
  )


def _with_classes(
  run: Run,
  batch: jax.Array,
  seen: list[Seen],
  maps: np.ndarray,
  logits: jax.Array,
) -> list[Seen]:
  """Returns the same with predictions, and with what the maps are worth."""
  probabilities = np.asarray(jax.nn.softmax(logits))
  classes = probabilities.argmax(-1)
  if run.class_index is not None:
    classes[:] = run.class_index
  areas = [None] * len(seen)
  if run.settings.faithfulness:
    curves = attention.faithfulness_curves(
      run.model, run.params, batch, maps, classes
    )
    areas = [
      {
        'deletion_area': float(curves.deletion_area[i]),
        'insertion_area': float(curves.insertion_area[i]),
      }
      for i in range(len(seen))
    ]
  return [
    dataclasses.replace(
      each, probabilities=row, class_index=int(index), areas=area
    )
    for each, row, index, area in zip(
      seen, probabilities, classes, areas, strict=False
    )
  ]


def batches(
  names: Sequence[str], run: Run, failed: dict[str, str]
) -> Iterator[tuple[list[str], np.ndarray]]:
  """Yields (names, uint8 [batch, height, width, 3]) as `look` takes them.

  Args:
    names: of the images, all of them.
    run: the model and what is asked of it.
    failed: gets, by name, what is wrong with those that can't be used.
  """
  size = min(run.settings.batch, len(names))
  good: list[tuple[str, np.ndarray]] = []
  for i, name in enumerate(names):
    try:
      image = images.read_image(name)
      good.append((name, images.fit_image(image, run.size, run.settings.fit)))
    except errors.UserError as error:
      failed[name] = str(error)
    if good and (len(good) == size or i == len(names) - 1):
      # Another size would be compiled afresh.
      filled = good + [good[-1]] * (size - len(good))
      yield [each for each, _ in good], np.stack([each for _, each in filled])
      good = []
