"""tfds builders by name, prepared first where that can be done here."""

import contextlib
import difflib
import glob
import importlib
import os
from collections.abc import Iterator
from typing import Any

from vit_jax import errors

# The builders that prepare themselves here: name -> (module, class).
_BUILDERS = {
  'digits': ('vit_jax.data.digits', 'Digits'),
  'cifar10': ('vit_jax.data.cifar', 'Cifar10'),
  'cifar100': ('vit_jax.data.cifar', 'Cifar100'),
}


def open_builder(config: Any) -> Any:
  """Returns a tfds builder whose data is on disk as array_record.

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
  formats = {found.value for found in builder.info.available_file_formats()}
  if 'array_record' not in formats:
    raise errors.DataError(
      f'Data set {dataset!r} in {builder.data_dir} is stored as '
      f'{", ".join(sorted(formats)) or "an unknown format"}; only array_record '
      'can be read. In another directory (--config.tfds_data_dir=DIR), prepare '
      f'it by\n{_prepare_command(dataset)}'
    )
  return builder


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
  variants = [
    os.path.relpath(os.path.dirname(path), root)
    for root in roots
    for path in glob.glob(f'{root}/{name}/**/dataset_info.json', recursive=True)
  ]
  known = tfds.list_builders(with_community_datasets=False)
  if name not in known and not variants:
    close = difflib.get_close_matches(name, known, n=3)
    text = errors.unknown_name('data set', name, [*_BUILDERS, *close])
    raise errors.ConfigError(
      f'{text} Any other name is one of a tfds data set that is prepared in '
      f'{" or ".join(roots)}.'
    )
  wanted = '/'.join(
    [
      name,
      *(str(arguments[k]) for k in ('config', 'version') if k in arguments),
    ]
  )
  raise errors.DataNotFoundError(
    f'Data set {wanted!r} is not prepared in {" or ".join(roots)} '
    f'(of this name there is: {", ".join(sorted(variants)) or "nothing"}). '
    'Where tfds can prepare it, which for most sets takes TensorFlow, run\n'
    f'{_prepare_command(name)}\nand copy its directory {name}/ into '
    f'{roots[0]}, or name the place by --config.tfds_data_dir=DIR'
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
    f"tfds.builder('{dataset}')"
    ".download_and_prepare(file_format='array_record')\""
  )
