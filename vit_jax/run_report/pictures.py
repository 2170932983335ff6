"""Images as the model saw them, and with what it looked at over them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import attention, errors
from vit_jax.attention.weights import check_model
from vit_jax.data import augment, crops, decode
from vit_jax.models import spatial_transformer
from vit_jax.run_report.answers import Answers

# Images at a time: a backward pass of a large model takes gigabytes.
_BATCH = 4
# Larger ones make the page slow, and are seen no larger.
_MAX_SIDE = 256


def _rollout(model: Any, params: Any, images: Any, _: np.ndarray) -> Any:
  return attention.rollout_maps(model, params, images).maps


def _grad_rollout(model: Any, params: Any, images: Any, classes: Any) -> Any:
  return attention.grad_rollout_maps(model, params, images, classes).maps


def _relevance(model: Any, params: Any, images: Any, classes: Any) -> Any:
  return attention.relevance_maps(model, params, images, classes).maps


# (model, params, images, predicted classes) -> maps [batch, rows, columns].
METHODS: dict[str, Callable[..., Any]] = {
  'relevance': _relevance,
  'rollout': _rollout,
  'grad_rollout': _grad_rollout,
}


@dataclasses.dataclass(frozen=True)
class Mistake:
  """An image that is taken for something else.

  Attributes:
    place: in the answers.
    name: of its file, or its number in the data set.
    image: uint8 [height, width, 3], as the model got it.
    seen: the same, or what the model's spatial transformer makes of it.
    values: the map of what the model looked at, [rows, columns]; None of models
      without attention.
    overlay: what was seen with the map over it, or None.
  """

  place: int
  name: str
  image: np.ndarray
  seen: np.ndarray
  values: np.ndarray | None
  overlay: np.ndarray | None


def without_attention(answers: Answers) -> str:
  """Returns why there are no overlays, '' if there are."""
  try:
    check_model(answers.model)
  except errors.ConfigError as error:
    return str(error).partition('.')[0] + ', so its images have no overlays.'
  return ''


def has_transformer(answers: Answers) -> bool:
  """Returns whether a spatial transformer stands before the model."""
  return spatial_transformer.of_model(answers.model) is not None


def most_confident(answers: Answers, limit: int) -> np.ndarray:
  """Returns the places of the wrong answers that are given with most certainty.

  Args:
    answers: with finite logits.
    limit: how many at most.
  """
  wrong = np.flatnonzero(~answers.is_right)
  order = np.argsort(-answers.confidence[wrong], kind='stable')
  return wrong[order][:limit]


def show(
  answers: Answers, places: Sequence[int] | np.ndarray, method: str
) -> list[Mistake]:
  """Returns images, with overlays where the model has attention.

  Args:
    answers: what they are of.
    places: in the answers.
    method: a key of `METHODS`; of a class, it asks for the predicted one.
  """
  images = [image_of(answers, place) for place in places]
  seen, maps = _look(answers, images, places, method)
  return [
    Mistake(
      int(place),
      decode.shown(answers.source.describe(int(answers.indices[place]))),
      image,
      what,
      values,
      None if values is None else _overlay(answers, what, values),
    )
    for place, image, what, values in zip(
      places, images, seen, maps, strict=True
    )
  ]


def image_of(answers: Answers, place: int) -> np.ndarray:
  """Returns uint8 [crop, crop, 3], made as in an evaluation."""
  index, pp = int(answers.indices[place]), answers.config.pp
  found, _ = answers.source.read(index)
  if isinstance(found, bytes):
    found = decode.decode(found, answers.source.describe(index))
  if shorter := pp.get('test_resize', 0):
    return crops.resize_and_crop(found, shorter, pp.crop)
  return crops.resize_squash(found, pp.crop)


def style_of(answers: Answers, **kwargs: Any) -> Any:
  """Returns the `figures.Style` of overlays; `kwargs` are others of it."""
  from vit_jax import figures

  if without_attention(answers):
    return figures.Style(**kwargs)
  size = attention.token_size(answers.model)
  return figures.Style(token_size=size, **kwargs)


def _overlay(
  answers: Answers, image: np.ndarray, values: np.ndarray
) -> np.ndarray:
  from vit_jax import figures

  return figures.overlay(image, values, style_of(answers))


def _look(
  answers: Answers,
  images: list[np.ndarray],
  places: Sequence[int] | np.ndarray,
  method: str,
) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
  """Returns what the model sees of each image, and the map of it, or None."""
  model, params = answers.model, answers.params
  transforms = has_transformer(answers)
  has_maps = not without_attention(answers)
  if transforms:
    model, params = spatial_transformer.without(model, params)
  seen, maps = [], []
  for start in range(0, len(images), _BATCH):
    # Another size would be compiled afresh.
    rows = [min(start + i, len(images) - 1) for i in range(_BATCH)]
    batch = augment.normalize(jnp.asarray(np.stack([images[i] for i in rows])))
    if transforms:
      # Patches are of what it makes of an image, and so is the map of them.
      batch, _ = _transform(answers.model, answers.params, batch)
      seen += [*_as_pixels(batch)]
    if has_maps:
      classes = answers.predicted[[places[i] for i in rows]].astype(np.int32)
      found = METHODS[method](model, params, batch, classes)
      maps += [*np.asarray(jax.device_get(found), np.float32)]
  count = len(images)
  return (
    seen[:count] if transforms else images,
    maps[:count] if has_maps else [None] * count,
  )


_transform = jax.jit(spatial_transformer.transform, static_argnums=0)


def _as_pixels(images: jax.Array) -> np.ndarray:
  pixels = np.clip(np.asarray(images, np.float32) * 127.5 + 127.5, 0, 255)
  return np.rint(pixels).astype(np.uint8)


def small(image: np.ndarray) -> np.ndarray:
  """Returns an image as large as a page shows it, at most."""
  side = max(image.shape[:2])
  if side <= _MAX_SIDE:
    return image
  scale = _MAX_SIDE / side
  size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
  return cv2.resize(image, size, interpolation=cv2.INTER_AREA)
