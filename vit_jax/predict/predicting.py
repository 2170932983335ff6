"""Reads images while the model looks at others, and yields what it says."""

import dataclasses
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import errors, trained
from vit_jax.data import augment, decode, images

# Of images from the web, each of which is waited for.
_THREADS = 8


@dataclasses.dataclass(frozen=True)
class Prediction:
  """What a model says of an image.

  Attributes:
    image: its name, as it was given.
    probabilities: float32 [num_classes], None where there is an error.
    error: why nothing can be said, '' if something can.
  """

  image: str
  probabilities: np.ndarray | None = None
  error: str = ''

  def top(self, k: int) -> list[tuple[int, float]]:
    """Returns (class, probability) of the `k` likeliest, or of all if fewer.

    Of equal ones the lower number comes first.

    Args:
      k: at least 1.
    """
    assert self.probabilities is not None, self.error
    order = np.argsort(-self.probabilities, kind='stable')[:k]
    return [(int(i), float(self.probabilities[i])) for i in order]


def predict(
  opened: trained.Trained,
  names: Sequence[str],
  *,
  batch: int = 32,
  fit: str = 'squash',
) -> Generator[Prediction, None, None]:
  """Yields what a model says of each image, in the order of the names.

  What comes of a batch is yielded as soon as it is known; meanwhile the next
  one is read. With what others an image is in a batch changes nothing; only
  rounding depends on the size of batches.

  Args:
    opened: the model, from `trained.load`.
    names: of files, or addresses that begin with http:// or https://, as
      `images.find_images` gives them.
    batch: images at a time.
    fit: a key of `images.FITS`: how an image becomes the model's size.
      Evaluations squash.

  Raises:
    ConfigError: the model has no head, or `batch` or `fit` can't be.
  """
  _check(opened, batch, fit)
  return _predictions(opened, list(names), min(batch, len(names)), fit)


def _check(opened: trained.Trained, batch: int, fit: str) -> None:
  if opened.model.num_classes is None:
    raise errors.ConfigError(
      f'{opened.found.path}: these weights have no head, so there are no '
      'classes to predict. Fine-tune them first, or give others.'
    )
  if batch < 1:
    raise errors.ConfigError(f'batch {batch} is not at least 1.')
  if fit not in images.FITS:
    raise errors.ConfigError(errors.unknown_name('fit', fit, images.FITS))


def _predictions(
  opened: trained.Trained, names: list[str], batch: int, fit: str
) -> Generator[Prediction, None, None]:
  model, params = opened.model, jax.device_put(opened.params)

  @jax.jit
  def apply(params: Any, pixels: jax.Array) -> jax.Array:
    logits = model.apply({'params': params}, augment.normalize(pixels))
    return jax.nn.softmax(logits.astype(jnp.float32))

  def read(name: str) -> np.ndarray | str:
    try:
      image = images.read_image(name)
      return images.fit_image(image, opened.image_size, fit)
    except errors.UserError as error:
      return str(error)

  groups = [names[i : i + batch] for i in range(0, len(names), batch or 1)]
  coming = _start_reading(read, groups[0]) if groups else []
  try:
    for number, group in enumerate(groups):
      found = [each.result() for each in coming]
      after = groups[number + 1] if number + 1 < len(groups) else []
      coming = _start_reading(read, after)
      yield from _of_batch(opened, apply, params, group, found, batch)
  finally:
    for each in coming:
      each.cancel()


def _start_reading(
  read: Callable[[str], np.ndarray | str], names: list[str]
) -> list[futures.Future[np.ndarray | str]]:
  """Returns what `read` will give of each name.

  On daemons, unlike those of an executor: the end of a program, such as after
  Ctrl-C, doesn't wait for what is being fetched.
  """
  coming = [futures.Future() for _ in names]
  waiting = iter([*zip(coming, names, strict=True)])  # Each thread takes some.

  def work():
    for future, name in waiting:
      if not future.set_running_or_notify_cancel():
        continue
      try:
        future.set_result(read(name))
      except BaseException as error:  # Whoever waits for it is told.
        future.set_exception(error)

  for _ in range(min(_THREADS, len(names))):
    threading.Thread(target=work, daemon=True).start()
  return coming


def _of_batch(
  opened: trained.Trained,
  apply: Any,
  params: Any,
  names: list[str],
  found: list[np.ndarray | str],
  batch: int,
) -> Iterator[Prediction]:
  """Yields the predictions of a batch whose images are read, or errors are."""
  good = [i for i, each in enumerate(found) if not isinstance(each, str)]
  rows: dict[int, np.ndarray] = {}
  if good:
    # Another size would be compiled afresh.
    filled = [found[i] for i in good] + [found[good[-1]]] * (batch - len(good))
    with trained.memory_told('Lower --batch.'):
      probabilities = np.asarray(apply(params, np.stack(filled)))
    rows = dict(zip(good, probabilities, strict=False))
  for i, name in enumerate(names):
    if i not in rows:
      yield Prediction(name, error=str(found[i]))
    elif not np.isfinite(rows[i]).all():
      yield Prediction(
        name,
        error=f'{decode.shown(name)}: the model makes NaN or infinite values '
        f'of this image. {opened.found.path} may be damaged, or the weights of '
        'a training that failed.',
      )
    else:
      yield Prediction(name, rows[i])
