"""What a model looks at in images: maps, predictions, and their worth."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import attention, checkpoints, errors, models, workdir
from vit_jax.attention.classes import checked_classes
from vit_jax.attention.weights import check_model
from vit_jax.attention_report.settings import (
  Settings,
  parse_class,
  parse_heads,
  parse_layers,
)
from vit_jax.checkpoints import locate
from vit_jax.data import augment, decode, images
from vit_jax.inspection import Description, describe


@dataclasses.dataclass(frozen=True)
class Run:
  """A model and what is asked of it."""

  found: Description
  model: Any
  params: Any
  size: tuple[int, int]
  layers: list[int]
  heads: list[int] | None  # None is the mean of all.
  class_names: list[str] | None
  class_index: int | None  # That is asked about; None is the predicted one.
  settings: Settings

  @property
  def shown_heads(self) -> list[int]:
    """All heads where the mean is asked for."""
    return self.heads or list(range(self.model.num_heads))

  @property
  def model_name(self) -> str:
    """Returns the models that the weights fit, or the one they come near."""
    if not self.found.models:
      return f'a model like {self.found.nearest_model}'
    return ' or '.join(self.found.models)

  def class_name(self, index: int) -> str:
    """Returns what to call a class: by its number if nothing else is known."""
    name = self.class_names[index].strip() if self.class_names else ''
    return f'class {index}' if name in ('', str(index)) else name


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
  path = locate.locate(checkpoint)
  found = describe(path, settings.num_heads)
  if found.num_heads is None and found.family != 'Mixer':
    raise errors.CheckpointError(
      f'{path}: the file does not say into how many attention heads its width '
      f'of {found.width} is divided. Say it with '
      '--num_heads N.'
    )
  # What transformers calls 'gelu' is the exact one.
  gelu = 'exact' if found.names == 'transformers' else None
  model = models.create_model(
    found.model_config(), found.num_classes, gelu=gelu
  )
  check_model(model)
  layers = parse_layers(settings.layers, model.num_layers)
  heads = parse_heads(settings.heads, model.num_heads)
  class_names, class_index = _classes(model, path, settings)
  side = settings.image_size
  size = (side, side) if isinstance(side, int) else side or found.image_size
  if size is None:
    raise errors.ConfigError(
      f'{path}: the file does not say for images of what size it was made. '
      'Give --image_size HEIGHTxWIDTH.'
    )
  params = checkpoints.load_pretrained(path, model, size, fresh_head=False)
  return Run(
    found, model, params, size, layers, heads, class_names, class_index,
    settings,
  )  # fmt: skip


def _classes(
  model: Any, path: str, settings: Settings
) -> tuple[list[str] | None, int | None]:
  """Returns the names of the classes and the index of the one asked about."""
  if settings.class_asked is not None or settings.method in _OF_A_CLASS:
    checked_classes(model, 1, None)
  if model.num_classes is None:
    return None, None
  names = workdir.read_labels(path)
  if names and len(names) != model.num_classes:
    names = None  # They are of other weights.
  if settings.class_asked is None:
    return names, None
  return names, parse_class(settings.class_asked, model.num_classes, names)


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
  found, logits = attention.class_token_maps(run.model, run.params, batch)
  class_token = np.asarray(found)
  maps = np.asarray(METHODS[run.settings.method](run, batch, class_token))
  seen = [
    Seen(name, pixels[i], maps[i], class_token[:, i])
    for i, name in enumerate(names)
  ]
  if run.found.num_classes is not None:
    seen = _with_classes(run, batch, seen, maps, logits)
  good = []
  for each, row in zip(seen, np.asarray(logits), strict=False):
    if all(np.isfinite(x).all() for x in (row, each.values, each.class_token)):
      good.append(each)
    else:
      failed[each.name] = (
        f'{decode.shown(each.name)}: the model makes NaN or infinite values of '
        f'this image, so there is nothing to show. {run.found.path} may be '
        'damaged, or the weights of a training that failed.'
      )
  return good


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
