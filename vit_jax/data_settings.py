"""Settings to read a data set with, for a model that is only looked at."""

from collections.abc import Mapping

import jax
from ml_collections import ConfigDict

from vit_jax import errors, trained

_BATCH = 64
# Of the data, which a run says for its own.
_DATA = {
  'dataset': '',
  'label': '',
  'tfds_data_dir': None,
  'tfds_manual_dir': None,
  'follow_links': False,
  'on_bad_image': 'fail',
  'num_threads': 16,
  'num_workers': 0,
}


def data_settings(
  opened: trained.Trained,
  dataset: str,
  label: str,
  given: Mapping[str, str | bool | None],
  default_splits: tuple[str, str],
) -> ConfigDict:
  """Returns settings to read a data set with, the run's if it is its own.

  Args:
    opened: the model, perhaps of a run.
    dataset: a name or a path; '' for the data set of the run.
    label: as `config.label`; '' for that of the run, or the data set's own.
    given: fields such as 'tfds_data_dir' and 'follow_links'; what is None or
      False is as in the run, or as by default.
    default_splits: `pp.train` and `pp.test` where the run has none.

  Raises:
    ConfigError: no data set is named, and there is no run.
  """
  train, test = default_splits
  config = ConfigDict({**_DATA, 'pp': {'train': train, 'test': test}})
  run = opened.config
  if not dataset and (run is None or not run.get('dataset')):
    raise errors.ConfigError(
      f'{opened.found.path} is not of a run, so the data set has to be named: '
      '--dataset NAME'
    )
  if run is not None and dataset in ('', run.get('dataset')):
    with config.ignore_type():
      config.update({name: run[name] for name in _DATA if name in run})
      for name in ('train', 'test'):
        config.pp[name] = run.pp.get(name, config.pp[name])
  else:
    config.dataset = dataset
  config.pp.test_resize = _test_resize(opened)
  config.label = label or config.label
  with config.ignore_type():
    config.update({name: value for name, value in given.items() if value})
  return config


def side(opened: trained.Trained) -> int:
  """Returns of how many pixels the images of a data set become squares.

  Args:
    opened: the model.

  Raises:
    ConfigError: it is made for other rectangles.
  """
  height, width = opened.image_size
  if height != width:
    raise errors.ConfigError(
      f'{opened.found.path}: made for images of {height} x {width} pixels, and '
      'those of a data set become squares. Give the side: --image_size N'
    )
  return height


def images_text(opened: trained.Trained) -> str:
  """Returns how images become what the model sees."""
  height, width = opened.image_size
  size, shorter = f'{height} x {width}', _test_resize(opened)
  if shorter:
    return f'shorter side to {shorter}, the middle {size} of that'
  return f'squashed to {size}'


def _test_resize(opened: trained.Trained) -> int:
  """Returns that of the run, if its images had this size; 0 squashes."""
  pp = (opened.config or {}).get('pp', {})
  is_its = opened.image_size == (pp.get('crop'),) * 2
  return pp.get('test_resize', 0) if is_its else 0


def batch_size(asked: int | None, opened: trained.Trained) -> int:
  """Returns how many images at a time, which all devices share.

  Args:
    asked: for; None for the batch of the run's evaluations, or 64.
    opened: the model, perhaps of a run.

  Raises:
    ConfigError: what is asked for can't be divided among the devices.
  """
  num_devices = jax.device_count()
  if asked is None:
    asked = int((opened.config or {}).get('batch_eval', _BATCH))
    return -(-asked // num_devices) * num_devices
  if asked < 1 or asked % num_devices:
    near = max(asked - asked % num_devices, num_devices)
    raise errors.ConfigError(
      f'a batch of {asked} can not be divided among {num_devices} devices. '
      f'Near sizes that can: {near}, {near + num_devices}.'
    )
  return asked
