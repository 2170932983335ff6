"""tfds builders by name, prepared first where that can be done here."""

import contextlib
import difflib
import fnmatch
import glob
import importlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from vit_jax import errors

# The builders that prepare themselves here: name -> (module, class).
_BUILDERS = {
  'digits': ('vit_jax.data.digits', 'Digits'),
  'cifar10': ('vit_jax.data.cifar', 'Cifar10'),
  'cifar100': ('vit_jax.data.cifar', 'Cifar100'),
}
# What can be read of what tfds writes, the fastest first.
_FORMATS = ('array_record', 'tfrecord', 'parquet')
# What tfds can't download: data set -> what is to be put where it looks.
_IMAGENET = '(from https://image-net.org, after registration)'
_MANUAL = {
  'diabetic_retinopathy_detection': (
    'sample/, test/ and trainLabels.csv, unpacked (from '
    'https://www.kaggle.com/c/diabetic-retinopathy-detection/data)'
  ),
  'imagenet2012': (
    f'ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar {_IMAGENET}'
  ),
  'imagenet2012_real': f'ILSVRC2012_img_val.tar {_IMAGENET}',
  'imagenet2012_subset': (
    f'ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar {_IMAGENET}'
  ),
  'resisc45': (
    'NWPU-RESISC45/, unpacked (from '
    'https://1drv.ms/u/s!AmgKYzARBl5ca3HNaHIlzp_IXjs)'
  ),
}


def open_builder(config: Any) -> Any:
  """Returns a tfds builder whose data is on disk in one of `_FORMATS`.

  Args:
    config: with the fields `dataset`, `tfds_data_dir` and `tfds_manual_dir`
      (see `sources.load_source`).

  Raises:
    ConfigError: there is no such data set, config or version.
    DataNotFoundError: the data set is not prepared and can't be.
    DataError: its archive, its description or its format is not readable.
  """
  dataset = config.dataset
  if not dataset:
    raise errors.ConfigError(
      'config.dataset is empty. Name a data set, such as '
      '--config.dataset=digits'
    )
  name, arguments = _parse_name(dataset)
  if config.tfds_data_dir:
    arguments['data_dir'] = os.path.expanduser(config.tfds_data_dir)
  if name in _BUILDERS:
    builder = _open_ours(name, arguments, config.tfds_manual_dir)
  else:
    builder = _open_prepared(name, arguments)
  _choose_format(dataset, builder)
  return builder


def _choose_format(dataset: str, builder: Any) -> None:
  """Sets `info.file_format`, which the files' names are made from."""
  info = builder.info
  formats = {found.value for found in info.available_file_formats()}
  for readable in _FORMATS:
    if readable in formats:
      if info.file_format.value != readable:
        info.set_file_format(
          readable, override=True, override_if_initialized=True
        )
      return
  raise errors.DataError(
    f'Data set {dataset!r} in {builder.data_dir} is stored as '
    f'{", ".join(sorted(formats)) or "an unknown format"}; what can be read is '
    f'{", ".join(_FORMATS)}. On a machine that has TensorFlow, prepare it once '
    f'more by\n{_prepare_command(dataset)}\nand name the place by '
    '--config.tfds_data_dir=DIR'
  )


def _parse_name(dataset: str) -> tuple[str, dict[str, Any]]:
  """Splits 'name/config:version' into the name and a builder's arguments."""
  from tensorflow_datasets.core import naming

  with contextlib.suppress(ValueError):
    name, arguments = naming.parse_builder_name_kwargs(dataset)
    if not arguments.keys() - {'config', 'version'}:
      return str(name), arguments
  raise errors.ConfigError(
    f'config.dataset is {dataset!r}, expected NAME, NAME/CONFIG or '
    'NAME/CONFIG:VERSION.'
  )


def _open_ours(
  name: str, arguments: dict[str, Any], manual_dir: str | None
) -> Any:
  """Returns one of `_BUILDERS`, prepared."""
  module, class_name = _BUILDERS[name]
  builder_class = getattr(importlib.import_module(module), class_name)
  variants = list(builder_class.builder_configs)
  variant = arguments.get('config')
  if variant is not None and variant not in variants:
    valid = [name, *(f'{name}/{known}' for known in variants)]
    raise errors.ConfigError(
      errors.unknown_name('data set', f'{name}/{variant}', valid)
    )
  try:
    with _readable_description(name):
      builder = builder_class(**arguments)
  except AssertionError as error:  # tfds's answer to an unknown version.
    raise errors.ConfigError(f'config.dataset: {error}') from error
  if _is_prepared(builder):
    return builder
  _prepare(builder, manual_dir and os.path.expanduser(manual_dir))
  # What another process prepared in the meantime is only known to a new one.
  builder = builder_class(**arguments)
  if not _is_prepared(builder):
    raise errors.DataError(
      f'{builder.data_dir} has no dataset_info.json, so it is not a whole data '
      'set. Remove the directory, and it will be prepared anew.'
    )
  return builder


def _is_prepared(builder: Any) -> bool:
  # tfds's own check logs a warning for what is merely not there yet.
  return os.path.isfile(os.path.join(builder.data_dir, 'dataset_info.json'))


def _prepare(builder: Any, manual_dir: str | None):
  """Writes the data set to disk, whole or not at all (tfds renames last)."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core.download import download_manager

  if builder.name != 'digits':
    from vit_jax.data import cifar

    cifar.check_archive(builder, manual_dir)
  # Digits take a tenth of a second, too short for bars.
  tfds.display_progress_bar(builder.name != 'digits')
  try:
    builder.download_and_prepare(
      file_format='array_record',
      download_config=tfds.download.DownloadConfig(
        manual_dir=manual_dir, try_download_gcs=False
      ),
    )
  except download_manager.NonMatchingChecksumError as error:
    raise errors.DataError(
      f'{error}\nRemove the archive and fetch it again.'
    ) from error
  except (OSError, tfds.download.DownloadError) as error:
    # Of two processes that prepare at once the later can't rename; never mind.
    if not _is_prepared(builder):
      raise errors.DataNotFoundError(
        f'Data set {builder.name!r} could not be prepared in '
        f'{builder.data_dir}: {error}. Another directory is set by '
        '--config.tfds_data_dir=DIR'
      ) from error
  finally:
    tfds.display_progress_bar(True)


def _open_prepared(name: str, arguments: dict[str, Any]) -> Any:
  """Returns a builder for what is on disk, without the code that made it."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import read_only_builder
  from tensorflow_datasets.core.utils import file_utils

  with (
    contextlib.suppress(tfds.core.DatasetNotFoundError),
    _readable_description(name),
  ):
    return read_only_builder.builder_from_files(name, **arguments)
  roots = [
    os.fspath(root)
    for root in file_utils.list_data_dirs(arguments.get('data_dir'))
  ]
  variants = {
    os.path.relpath(os.path.dirname(path), root): os.path.dirname(path)
    for root in roots
    for path in glob.glob(f'{root}/{name}/**/dataset_info.json', recursive=True)
  }
  _check_features_are_there(name, arguments, variants)
  known = tfds.list_builders(with_community_datasets=False)
  if name not in known and not variants:
    close = difflib.get_close_matches(name, known, n=3)
    text = errors.unknown_name('data set', name, [*_BUILDERS, *close])
    raise errors.ConfigError(
      f'{text} Any other name is one of a tfds data set that is prepared in '
      f'{" or ".join(roots)}.'
    )
  config = '/'.join([name, *filter(None, [arguments.get('config')])])
  version = arguments.get('version')
  wanted = f'{config}:{version}' if version else config
  raise errors.DataNotFoundError(
    f'Data set {wanted!r} is not prepared in {" or ".join(roots)} '
    f'(of this name there is: {", ".join(sorted(variants)) or "nothing"}). '
    'Most sets are prepared with TensorFlow, which is used nowhere here: on '
    f'any machine that has it, {_manual_text(name)}run once\n'
    f'{_prepare_command(config)}\n'
    f'and copy its directory ~/tensorflow_datasets/{name}/ into {roots[0]}, or '
    'name the place by --config.tfds_data_dir=DIR'
  )


def _check_features_are_there(
  name: str, arguments: dict[str, Any], variants: Mapping[str, str]
) -> None:
  """Raises DataError if what is asked for is there, but for its features.json.

  Without that, tfds takes it for a set that isn't prepared.

  Args:
    name: of the data set.
    arguments: of its builder: 'config' and 'version', if they are given.
    variants: {'NAME/CONFIG/VERSION' or 'NAME/VERSION': its directory}.
  """
  config, version = arguments.get('config'), arguments.get('version', '*')
  for variant, directory in variants.items():
    found, number = os.path.split(variant)
    if (
      config in (None, found.removeprefix(name).strip('/'))
      and fnmatch.fnmatchcase(number, str(version))
      # Others are of a preparation that was broken off.
      and re.fullmatch(r'\d+\.\d+\.\d+', number)
      and not os.path.isfile(os.path.join(directory, 'features.json'))
    ):
      raise errors.DataError(
        f'Data set {name!r}: {directory} has a dataset_info.json, but no '
        'features.json, without which its records are not understood. Copy it '
        'from where the set was prepared. If that has none either, as sets of '
        'tfds before version 4, prepare the set again on a machine that has '
        f'TensorFlow:\n{_prepare_command(found)}'
      )


def _manual_text(name: str) -> str:
  """Returns what is to be done by hand before `name` can be prepared."""
  if name not in _MANUAL:
    return ''
  return (
    f'put {_MANUAL[name]} into ~/tensorflow_datasets/downloads/manual/ and '
  )


@contextlib.contextmanager
def _readable_description(name: str) -> Iterator[None]:
  """Turns what tfds raises for a damaged dataset_info.json into DataError."""
  import tensorflow_datasets as tfds
  from google.protobuf import json_format

  try:
    yield
  except tfds.core.DatasetNotFoundError:
    raise
  except (ValueError, OSError, json_format.ParseError) as error:
    raise errors.DataError(
      f"Data set {name!r}: its dataset_info.json or features.json can't be "
      f'read ({error}). Prepare or copy the data set again.'
    ) from error


def _prepare_command(dataset: str) -> str:
  return (
    '  python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder('{dataset}').download_and_prepare()\""
  )
