"""Finds the names of a model's classes, in the order of its logits."""

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from vit_jax import errors, workdir
from vit_jax.checkpoints.places import published
from vit_jax.class_names import imagenet
from vit_jax.data import builders, examples, paths, sources

IMAGENET = 'imagenet'  # What a user calls the names that are here.
# Of a repository of timm on Hugging Face, and of those in the cache.
_TUNED_ON_IMAGENET = re.compile(r'_in1k\b')
_MAX_BYTES = 1 << 26


@dataclasses.dataclass(frozen=True)
class Names:
  """The names of all classes.

  Attributes:
    names: in the order of the logits, as data sets have them; `readable` makes
      words of WordNet IDs.
    source: where they are from, as a message can say it.
    is_guess: whether that is told by the name of the weights alone.
  """

  names: list[str]
  source: str
  is_guess: bool = False


def of_weights(
  checkpoint: str, path: str, num_classes: int | None
) -> Names | None:
  """Returns the names that come with weights, None where there are none.

  They are in `labels.json` of a run, or beside a file in the `config.json` of
  transformers ('id2label') or timm ('label_names'). Published weights with
  1,000 classes have ImageNet's.

  Args:
    checkpoint: what the user calls the weights.
    path: the file, or the directory of the run.
    num_classes: of the head; names of another number are of other weights.
  """
  if not num_classes:
    return None
  run = workdir.of_weights(path)
  found = workdir.read_labels(path)
  if found and len(found) == num_classes:
    return Names(found, str(run.labels))
  found = _of_config(run.config)
  if found and len(found) == num_classes:
    return Names(found, str(run.config))
  if num_classes == len(imagenet.wnids()) and _is_published(checkpoint, path):
    return Names([*imagenet.wnids()], 'ImageNet', is_guess=True)
  return None


def of_user(
  asked: str,
  num_classes: int,
  tfds_data_dir: str | None = None,
  label: str = '',
  tfds_manual_dir: str | None = None,
) -> Names:
  """Returns the names that a user asks for.

  Args:
    asked: 'imagenet', a file with a name a line or a JSON list, or a data set:
      a name of tfds, or a folder or list of images.
    num_classes: of the head.
    tfds_data_dir: of the data set; None for tfds's own.
    label: of the data set, as `config.label`.
    tfds_manual_dir: where its archive is, if the user fetched that.

  Raises:
    ConfigError: there are more or fewer names, or there is no such file.
    DataError: the file or the data set can't be read.
  """
  if asked == IMAGENET:
    found = Names([*imagenet.wnids()], 'ImageNet')
  elif os.path.isfile(asked) and not paths.is_manifest(asked):
    found = Names(_of_file(asked), asked)
  elif _is_missing_file(asked):
    raise errors.ConfigError(
      f'{asked}: there is no such file. Class names come from a file with a '
      f"name a line or a JSON list, from a data set, or from '{IMAGENET}'."
    )
  else:
    found = _of_data_set(asked, tfds_data_dir, label, tfds_manual_dir)
  if len(found.names) != num_classes:
    raise errors.ConfigError(
      f'{asked}: {len(found.names):,} class names, and the weights have '
      f'{num_classes:,} classes. Give the names of these classes, in the order '
      'of the labels they were trained on.'
    )
  return found


def _is_missing_file(asked: str) -> bool:
  """Tells files that are not there from names such as 'digits/0_to_4:1.0.0'."""
  is_meant = paths.is_path(asked) or pathlib.Path(asked).suffix[1:].isalpha()
  return is_meant and not os.path.exists(os.path.expanduser(asked))


def _of_file(path: str) -> list[str]:
  try:
    with open(path, 'rb') as file:
      content = file.read(_MAX_BYTES)
    text = content.decode('utf-8-sig')
  except (OSError, UnicodeDecodeError) as error:
    raise errors.DataError(
      f'{path}: class names can not be read from it ({error}). Expected a '
      'text in UTF-8.'
    ) from error
  if text.lstrip().startswith('{'):
    raise errors.DataError(
      f'{path}: a JSON object. Expected a name a line or a JSON list of names, '
      'in the order of the labels.'
    )
  if text.lstrip().startswith('['):
    try:
      found = json.loads(text)
    except ValueError as error:
      raise errors.DataError(
        f'{path}: begins as a JSON list and is none ({error}).'
      ) from error
    if not all(isinstance(name, str) for name in found):
      raise errors.DataError(
        f'{path}: a list with other things than names in it. Expected a JSON '
        'list of strings.'
      )
    return found
  return text.rstrip().splitlines()


def _of_config(path: pathlib.Path) -> list[str] | None:
  """Returns the names in a config of transformers or timm, None for none."""
  try:
    config = json.loads(path.read_text(encoding='utf-8'))
  except (OSError, ValueError):  # Names are an addition: nothing fails.
    return None
  if not isinstance(config, Mapping):
    return None
  found: Any = config.get('label_names')
  by_index = config.get('id2label')
  if isinstance(by_index, Mapping):
    found = [by_index.get(str(i)) for i in range(len(by_index))]
  is_list = isinstance(found, list) and found
  if not is_list or not all(isinstance(name, str) for name in found):
    return None
  # What transformers writes where nobody told it any.
  is_empty = all(name == f'LABEL_{i}' for i, name in enumerate(found))
  return None if is_empty else found


def _of_data_set(
  dataset: str,
  tfds_data_dir: str | None,
  label: str,
  tfds_manual_dir: str | None,
) -> Names:
  config = ConfigDict(
    {
      'dataset': dataset,
      'label': label,
      'tfds_data_dir': tfds_data_dir,
      'tfds_manual_dir': tfds_manual_dir,
    }
  )
  source = f'data set {dataset}'
  if paths.is_path(dataset):
    return Names([*sources.load_source(config, 'train').class_names], source)
  try:
    builder = builders.open_builder(config)
  except errors.ConfigError as error:
    raise errors.ConfigError(
      f'{dataset!r} is no file with class names, and no data set: {error}'
    ) from error
  fields = examples.find_fields(dataset, builder, label)
  return Names([*fields.class_names], source)


def _is_published(checkpoint: str, path: str) -> bool:
  """Tells by the names whether weights are published ones."""
  for text in (checkpoint, path):
    place = text.partition('#')[0].rstrip('/')
    if published.find_address(place) or _TUNED_ON_IMAGENET.search(place):
      return True
    name = os.path.basename(published.without_suffix(place))
    if published.is_name(published.without_suffix(place)) or (
      published.is_name(name)
    ):
      return True
  return False
