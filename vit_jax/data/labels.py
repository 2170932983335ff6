"""Labels that are worked out from other features, as VTAB's tasks want them.

What they mean is what google-research/task_adaptation (the code of VTAB, arXiv
1910.04867) makes of the same data sets.
"""

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from vit_jax import errors

# Features of one example by the name that tfds stores them under, in which
# 'objects/location' is what all objects have as 'location', one after the
# other.
Features = Mapping[str, Sequence[float]]

# Of the nearest object, in CLEVR's units; and of the nearest vehicle, in
# metres. A class is what is above its bound and not above the next one.
_CLEVR_BOUNDS = (0.0, 8.0, 8.5, 9.0, 9.5, 10.0)
_KITTI_BOUNDS = (-100.0, 8.0, 20.0, 999.0)
_NO_VEHICLE = 1000.0
# Cars, vans and trucks are the first kinds of 'objects/type'.
_NUM_VEHICLES = 3


class Label(NamedTuple):
  """A way to label the examples of a data set.

  Attributes:
    of: gives the index of the class, out of range where there is none.
    class_names: the name of each class.
    needs: the features that `of` looks at.
    gain: what 8-bit pixels are multiplied by, 255 where they are 0 and 1.
  """

  of: Callable[[Features], int]
  class_names: tuple[str, ...]
  needs: tuple[str, ...]
  gain: int = 1


def _clevr_count(features: Features) -> int:
  return len(features['objects/size']) - 3  # A scene has three to ten.


def _clevr_distance(features: Features) -> int:
  depths = features['objects/pixel_coords'][2::3]  # Of x, y and depth.
  if not depths or min(depths) > 100:
    return -1
  return _bin(min(depths), _CLEVR_BOUNDS)


def _kitti_distance(features: Features) -> int:
  depths = features['objects/location'][2::3]  # Of x, y and z.
  kinds = features['objects/type']
  of_vehicles = [
    depth
    for kind, depth in zip(kinds, depths, strict=True)
    if kind < _NUM_VEHICLES
  ]
  return _bin(min(of_vehicles, default=_NO_VEHICLE), _KITTI_BOUNDS)


def _bin(value: float, bounds: Sequence[float]) -> int:
  """Returns the index of the last bound below the value, -1 if none is."""
  return bisect.bisect_left(bounds, value) - 1


def _merged(name: str, num_values: int, num_classes: int) -> Label:
  """Returns a label of neighbouring values of the feature `name`."""

  def of(features: Features) -> int:
    (value,) = features[name]
    return int(value) * num_classes // num_values

  starts = [math.ceil(i * num_values / num_classes) for i in range(num_classes)]
  ends = [start - 1 for start in [*starts[1:], num_values]]
  names = tuple(f'{i} to {j}' for i, j in zip(starts, ends, strict=True))
  return Label(of, names, (name,), gain=255)


def _as_is(name: str, class_names: Sequence[str]) -> Label:
  def of(features: Features) -> int:
    (value,) = features[name]
    return int(value)

  return Label(of, tuple(class_names), (name,))


# What config.label may be. Degrees are those of smallNORB's own description.
LABELS = {
  'clevr_count': Label(
    _clevr_count,
    tuple(f'{i} objects' for i in range(3, 11)),
    ('objects/size',),
  ),
  'clevr_distance': Label(
    _clevr_distance,
    ('up to 8', '8 to 8.5', '8.5 to 9', '9 to 9.5', '9.5 to 10', 'over 10'),
    ('objects/pixel_coords',),
  ),
  'dsprites_location': _merged('label_x_position', 32, 16),
  'dsprites_orientation': _merged('label_orientation', 40, 16),
  'kitti_distance': Label(
    _kitti_distance,
    ('up to 8 m', '8 to 20 m', 'over 20 m', 'no vehicle'),
    ('objects/type', 'objects/location'),
  ),
  'smallnorb_azimuth': _as_is(
    'label_azimuth', [f'{20 * i} degrees' for i in range(18)]
  ),
  'smallnorb_elevation': _as_is(
    'label_elevation', [f'{30 + 5 * i} degrees' for i in range(9)]
  ),
}


def find(name: str) -> Label:
  """Returns the entry of `LABELS`.

  Raises:
    ConfigError: there is none of that name.
  """
  if name not in LABELS:
    text = errors.unknown_name('config.label', name, LABELS)
    raise errors.ConfigError(f"{text} '' is for the data set's own 'label'.")
  return LABELS[name]


def label_of(name: str, features: Features) -> int:
  """Returns the class of an example by the entry `name` of `LABELS`.

  Args:
    name: of the label.
    features: of the example, those that the label `needs`.

  Raises:
    DataError: the features are of no class, such as of CLEVR's test split,
      which has no objects.
  """
  label = find(name)
  try:
    index = label.of(features)
  except ValueError:  # One number too many, or too few.
    index = -1
  if 0 <= index < len(label.class_names):
    return index
  found = ', '.join(f'{key}={[*features[key]][:9]}' for key in label.needs)
  raise errors.DataError(
    f'config.label={name!r} has no class for an example with {found}. Choose a '
    'split whose examples are annotated.'
  )
