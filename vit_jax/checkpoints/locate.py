"""Finds the local weight file that a path, directory or name stands for."""

import os
import pathlib
import re
import shlex

from vit_jax import errors

_BUCKET = 'https://storage.googleapis.com/vit_models'
# Such as 'S_16-i21k-300ep-lr_0.001-...npz', and the list of them.
_AUGREG_NAME = re.compile(r'-i(21|1)k[-_]|^index\.csv$')


def locate(
  name_or_path: str | os.PathLike, directory: str | os.PathLike = '.'
) -> str:
  """Returns the path of a weight file.

  Looks, in this order, at `name_or_path` itself, which may be a file or a run
  directory with its `model.npz`; at `directory`, which may be the file, a run
  directory, or hold `NAME.npz`; and for `NAME.npz` in the cache,
  `~/.cache/vit_jax` or what `VIT_JAX_CACHE` names.

  Args:
    name_or_path: such as 'weights/ViT-B_16.npz', 'runs/vit/tiny,digits' or
      'ViT-B_16'.
    directory: see above. If it is a `gs://` or `https://` address, that is
      where the text of the error says to fetch the file from.

  Raises:
    CheckpointNotFoundError: with every place looked at and how to fetch it.
  """
  name, directory = os.fspath(name_or_path), os.fspath(directory)
  if is_address(name):  # Nothing is fetched from here, but it can be cached.
    directory, name = name.rsplit('/', 1)
  file_name = name if name.endswith('.npz') else f'{name}.npz'
  given = pathlib.Path(name).expanduser()
  looked = [given, given / 'model.npz']
  if not is_address(directory):
    place = pathlib.Path(directory).expanduser()
    if place.suffix == '.npz':
      looked.append(place)
    else:
      looked.append(place / pathlib.Path(file_name).expanduser())
      # The working directory is nobody's choice of weights.
      looked += [place / 'model.npz'] if directory != '.' else []
  looked.append(cache_dir() / pathlib.Path(file_name).expanduser())
  return _first_file(name, file_name, looked, directory)


def locate_file(file_name: str, directory: str | os.PathLike = '.') -> str:
  """Returns the path of the file of that very name beside the weights.

  Args:
    file_name: such as 'index.csv'.
    directory: as in `locate`; after it, the cache is looked at.

  Raises:
    CheckpointNotFoundError: with every place looked at and how to fetch it.
  """
  directory = os.fspath(directory)
  looked = [cache_dir() / file_name]
  if not is_address(directory):
    looked.insert(0, pathlib.Path(directory).expanduser() / file_name)
  return _first_file(file_name, file_name, looked, directory)


def is_address(directory: str) -> bool:
  """Whether `directory` is a remote address, such as `gs://...`."""
  return '://' in directory


def cache_dir() -> pathlib.Path:
  """Returns the directory for what is downloaded or compiled once."""
  default = '~/.cache/vit_jax'
  return pathlib.Path(os.environ.get('VIT_JAX_CACHE') or default).expanduser()


def _first_file(name, file_name, looked, directory) -> str:
  for path in looked:
    if path.is_file():
      return str(path)
  raise errors.CheckpointNotFoundError(
    _not_found_text(name, file_name, looked, directory)
  )


def _not_found_text(name, file_name, looked, directory) -> str:
  if is_address(directory):
    address = f'{directory.rstrip("/")}/{file_name}'
    if address.startswith('gs://'):
      address = 'https://storage.googleapis.com/' + address[len('gs://') :]
  else:  # The local part of a path says nothing about the bucket.
    published = pathlib.Path(file_name).name
    folder = 'augreg' if _AUGREG_NAME.search(published) else 'imagenet21k'
    address = f'{_BUCKET}/{folder}/{published}'
  # The last place looked at is the one in the cache.
  command = ['curl', '-fL', '--create-dirs', '-o', str(looked[-1]), address]
  places = '\n'.join(f'  {path}' for path in dict.fromkeys(looked))
  return (
    f'No weights for {name!r}. Looked at:\n{places}\n'
    f'Fetch the published file with\n  {shlex.join(command)}\n'
    'or name the directory that has it: --config.pretrained_dir=DIR.'
  )
