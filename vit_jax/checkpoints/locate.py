"""Finds the local weight file that a path, directory or name stands for."""

import os
import pathlib
import re
import shlex

from vit_jax import errors

_BUCKET = 'https://storage.googleapis.com/vit_models'
# Such as 'S_16-i21k-300ep-lr_0.001-...npz', and the list of them.
_AUGREG_NAME = re.compile(r'-i(21|1)k[-_]|^index\.csv$')
# What `imagenet21k/` of the bucket has. The other sizes were published under
# AugReg's names alone.
_IMAGENET21K = {
  f'{name}.npz'
  for name in (
    'R50+ViT-B_16',
    'ViT-B_16',
    'ViT-B_32',
    'ViT-H_14',
    'ViT-L_16',
    'ViT-L_32',
  )
}


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
  places = '\n'.join(f'  {path}' for path in dict.fromkeys(looked))
  return (
    f'No weights for {name!r}. Looked at:\n{places}\n'
    f'{_how_to_get(file_name, looked[-1], directory)}\n'
    'Name the directory that has it by --config.pretrained_dir=DIR; empty '
    '(--config.pretrained_dir=) starts from random weights.'
  )


def _how_to_get(file_name: str, target: pathlib.Path, directory: str) -> str:
  """Returns the command that fetches a published file, or that none does."""
  published = pathlib.Path(file_name).name
  folder = 'augreg' if _AUGREG_NAME.search(published) else 'imagenet21k'
  if is_address(directory) and not directory.startswith('gs://vit_models'):
    address = f'{directory.rstrip("/")}/{file_name}'
    if address.startswith('gs://'):
      address = 'https://storage.googleapis.com/' + address[len('gs://') :]
  elif is_address(directory) and 'imagenet21k' not in directory.split('/'):
    path = directory.rstrip('/').removeprefix('gs://vit_models').strip('/')
    address = '/'.join(filter(None, (_BUCKET, path, file_name)))
  elif folder == 'augreg' or published in _IMAGENET21K:
    # The local part of a path says nothing about the bucket.
    address = f'{_BUCKET}/{folder}/{published}'
  else:
    return (
      'No file of that name was published. The sizes Ti_16, S_16, S_32, B_8, '
      'R_Ti_16, R26_S_32, R26_B_32 and R50_L_32 have AugReg names: '
      '--config configs/augreg.py:Ti_16 and the like.'
    )
  command = ['curl', '-fL', '--create-dirs', '-o', str(target), address]
  return f'Fetch the published file with\n  {shlex.join(command)}'
