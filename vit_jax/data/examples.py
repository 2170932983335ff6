"""Finds image and label among the features of tfds examples, and reads them."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vit_jax import errors
from vit_jax.data import labels as derived


@dataclasses.dataclass(frozen=True)
class Fields:
  """What of an example is read.

  Attributes:
    image: name of the feature.
    size: its (height, width) in pixels, None where it varies.
    label: name of the feature, or what `config.label` says if that is not ''.
    is_derived: whether it is `config.label`.
    class_names: the name of each label.
    max_labels: where an image may have several labels, or none, how many there
      is room for; None where each has one.
  """

  image: str
  size: tuple[int, int] | None
  label: str
  is_derived: bool
  class_names: tuple[str, ...]
  max_labels: int | None


def find_fields(dataset: str, builder: Any, label_name: str = '') -> Fields:
  """Returns which features are the image and its label.

  That is 'image' with 'label', or with a sequence of classes, 'real_label'. For
  what isn't there stands what the set's `supervised_keys` name; where it has
  none, its only image and its only class.

  Args:
    dataset: its name, for errors.
    builder: tfds's.
    label_name: of `labels.LABELS`; '' for the set's own.

  Raises:
    ConfigError: there is no label of that name.
    DataError: there are no such features; the text has those that there are.
  """
  import tensorflow_datasets as tfds

  features: Any = builder.info.features
  is_dict = isinstance(features, tfds.features.FeaturesDict)
  found = dict(features.items()) if is_dict else {}
  # Input and target; maybe with the weight of an example, maybe nothing.
  image_key, label_key, *_ = *(builder.info.supervised_keys or ()), None, None
  image = _choose(('image',), found, image_key, _is_image, tfds.features.Image)
  if label_name:
    label, class_names = label_name, derived.find(label_name).class_names
    needs = derived.find(label_name).needs
    is_there = all(_is_among(found, key) for key in needs)
    wants = f'config.label={label_name!r}, which is made of {", ".join(needs)}'
  else:
    names = ('label', 'real_label')
    label = _choose(names, found, label_key, _classes, tfds.features.ClassLabel)
    class_names = tuple(_classes(found[label]).names) if label else ()
    is_there, wants = bool(label), "'label'"
  if not image or not is_there:
    raise errors.DataError(_text(dataset, builder, wants, label_name))
  height, width = found[image].shape[:2]
  has_several = not label_name and _is_sequence(found[label])
  return Fields(
    image=image,
    size=(height, width) if height and width else None,
    label=label,
    is_derived=bool(label_name),
    class_names=class_names,
    # Room for all: no image can have more, and a thousand numbers are little
    # beside its pixels.
    max_labels=len(class_names) if has_several else None,
  )


def parse(record: bytes, fields: Fields) -> tuple[bytes, Any]:
  """Returns the encoded image and the label(s) of a serialised tf.Example.

  What the features are called and hold is read by tfds (`find_fields`), the
  record by protobuf, to the same result as by tfds's own `ExampleParserNp`.
  That parses all features, and takes 28 microseconds for a JPEG of 67 kB with a
  label, where this takes 5.6; with a mask and boxes as well, 95 and 8.

  Returns:
    Bytes, and a number or int32 [max_labels].

  Raises:
    DataError: the example is of no class of `config.label`.
    ValueError: it has another number of images or labels, or labels that are
      out of range.
  """
  from tensorflow_datasets.proto import tf_example_pb2

  features = tf_example_pb2.Example.FromString(record).features.feature
  (image,) = features[fields.image].bytes_list.value
  if fields.is_derived:
    needs = derived.find(fields.label).needs
    needed = {key: numbers(features[key]) for key in needs}
    return image, derived.label_of(fields.label, needed)
  values = features[fields.label].int64_list.value
  if fields.max_labels is None:
    (label,) = values
    return image, label
  found = sorted({*values})
  if found and not 0 <= found[0] <= found[-1] < fields.max_labels:
    raise ValueError(
      f'found {found}, expected labels in [0, {fields.max_labels})'
    )
  labels = np.full(fields.max_labels, -1, np.int32)
  labels[: len(found)] = found
  return image, labels


def numbers(feature: Any) -> Sequence[float]:
  """Returns all numbers of a `tf.train.Feature`, one after the other."""
  kind = feature.WhichOneof('kind')  # None where there are no numbers.
  return getattr(feature, kind).value if kind else ()


def _choose(
  names: Sequence[str],
  found: dict[str, Any],
  key: Any,
  is_fit: Callable[[Any], Any],
  kind: type,
) -> str:
  """Returns the name of a feature, '' for none.

  Args:
    names: what it is called as a rule.
    found: the features by name.
    key: what the set itself says it is called, None if it says nothing.
    is_fit: tells whether a feature will do.
    kind: of what there must be one alone, where nothing says what it is called.
  """
  # A key may be nested, which is several features.
  for name in (*names, *([key] if isinstance(key, str) else [])):
    if name in found and is_fit(found[name]):
      return name
  if key or any(name in found for name in names):
    return ''  # The set says what it is: another would be a guess.
  fit = [name for name, feature in found.items() if is_fit(feature)]
  return fit[0] if len(fit) == 1 and _count(found, kind) == 1 else ''


def _count(feature: Any, kind: type) -> int:
  """Returns how many features of a kind there are, those in others too."""
  import tensorflow_datasets as tfds

  if isinstance(feature, tfds.features.Sequence):
    return _count(feature.feature, kind)
  if isinstance(feature, dict | tfds.features.FeaturesDict):
    return sum(_count(each, kind) for each in feature.values())
  return isinstance(feature, kind)


def _is_image(feature: Any) -> bool:
  import tensorflow_datasets as tfds

  return (
    isinstance(feature, tfds.features.Image)
    and len(feature.shape) == 3
    and feature.np_dtype == np.uint8
  )


def _classes(feature: Any) -> Any:
  """Returns the ClassLabel that a feature is, or is a sequence of; or None."""
  import tensorflow_datasets as tfds

  inner = feature.feature if _is_sequence(feature) else feature
  return inner if isinstance(inner, tfds.features.ClassLabel) else None


def _is_sequence(feature: Any) -> bool:
  import tensorflow_datasets as tfds

  return isinstance(feature, tfds.features.Sequence)


def _is_among(features: dict[str, Any], key: str) -> bool:
  """Tells whether there is a feature, 'objects/type' being of each object."""
  outer, _, inner = key.partition('/')
  found = features.get(outer)
  return found is not None and (
    not inner or inner in getattr(found, 'feature', ())
  )


def _text(dataset: str, builder: Any, wants: str, label_name: str) -> str:
  features, keys = builder.info.features, builder.info.supervised_keys
  other = f' Nor are its supervised_keys, {keys}, an image and its class.'
  if not keys:
    other = ' Nor has it one image alone and one class alone of other names.'
  listing = '\n'.join(
    f'  {key}: {value}' for key, value in getattr(features, 'items', dict)()
  )
  return (
    f"Data set {dataset!r} in {builder.data_dir} has no 8-bit feature 'image' "
    f'with a class in {wants}.{"" if label_name else other} Its features are:\n'
    f'{listing or features}\nChoose a data set for classification'
    + (', or pass --config.label=' if label_name else '.')
  )
