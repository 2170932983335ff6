"""Trained models, opened to be used: the module, its weights, its classes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from vit_jax import checkpoints, errors, models, workdir
from vit_jax.checkpoints import locate
from vit_jax.class_names import Names, of_weights, readable
from vit_jax.inspection import Description, describe


@dataclasses.dataclass(frozen=True)
class Trained:
  """A model with its weights, and what is known of where they come from.

  Attributes:
    found: what the weight file is; `found.path` is where.
    model: the module.
    params: of the model.
    image_size: (height, width) in pixels that the parameters are made for.
    class_names: in the order of the logits, as data sets have them, so that of
      ImageNet they are WordNet IDs; None where they are not known, or there is
      no head.
    config: settings of the run that the weights are of, None for others.
    names: the same class names with where they are from.
  """

  found: Description
  model: Any
  params: Any
  image_size: tuple[int, int]
  class_names: list[str] | None
  config: ConfigDict | None
  names: Names | None = None

  @property
  def name(self) -> str:
    """Returns the models that the weights fit, or the one they come near."""
    if not self.found.models:
      return f'a model like {self.found.nearest_model}'
    return ' or '.join(self.found.models)

  def class_name(self, index: int) -> str:
    """Returns what to call a class: by its number if nothing else is known.

    WordNet IDs of ImageNet's classes are made readable.
    """
    name = self.class_names[index].strip() if self.class_names else ''
    name = readable(name)
    return f'class {index}' if name in ('', str(index)) else name


def load(
  checkpoint: str,
  image_size: int | tuple[int, int] | None = None,
  num_heads: int | None = None,
) -> Trained:
  """Reads weights and makes the module that they are of.

  Args:
    checkpoint: a weight file, a run directory, a name or an address.
    image_size: side in pixels, or (height, width), that position embeddings are
      resized to; None for what the weights were made for.
    num_heads: attention heads, for a file that doesn't say it and a width that
      no published model has.

  Raises:
    ConfigError: the size of the images is not known, or needs more memory than
      there is.
    CheckpointError, CheckpointNotFoundError: weights that can't be used.
  """
  path = locate.locate(checkpoint)
  found = describe(path, num_heads)
  if found.num_heads is None and found.family in ('ViT', 'hybrid'):
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
  config = run_config(path)
  size = _image_size(found, config, image_size)
  names = of_weights(checkpoint, path, found.num_classes)
  with memory_told('Give a smaller --image_size, or free memory.'):
    params = checkpoints.load_pretrained(path, model, size, fresh_head=False)
  return Trained(
    found,
    model,
    params,
    size,
    names.names if names else None,
    config,
    names,
  )


@contextlib.contextmanager
def memory_told(remedy: str) -> Iterator[None]:
  """Raises ConfigError where what is inside runs out of memory.

  Args:
    remedy: what to do about it, a sentence.
  """
  try:
    yield
  except (MemoryError, RuntimeError) as error:  # XLA raises the latter.
    if isinstance(error, RuntimeError) and 'RESOURCE_EXHAU' not in str(error):
      raise
    text = errors.first_line(error)
    raise errors.ConfigError(f'Out of memory ({text}). {remedy}') from error


def _image_size(
  found: Description,
  config: ConfigDict | None,
  asked: int | tuple[int, int] | None,
) -> tuple[int, int]:
  size = asked or found.image_size
  if size is None and config is not None:
    size = config.pp.crop
  if size is None:
    raise errors.ConfigError(
      f'{found.path}: the file does not say for images of what size it was '
      'made. Give --image_size HEIGHTxWIDTH.'
    )
  return (size, size) if isinstance(size, int) else size


def run_config(path: str) -> ConfigDict | None:
  """Returns the settings of the run that weights are of, None for others.

  Args:
    path: a weight file, or the directory of a run.
  """
  run = workdir.of_weights(path)
  if os.path.isfile(path) and os.path.basename(path) != run.model.name:
    return None  # Other weights that lie there.
  try:
    return ConfigDict(json.loads(run.config.read_text('utf-8')))
  except (OSError, ValueError, TypeError):  # An addition, as labels are.
    return None
