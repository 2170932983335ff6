"""Finds the local weight file that a path, directory or name stands for."""

import os
import pathlib

from vit_jax import errors

_BUCKET = 'https://storage.googleapis.com/vit_models'


def locate(name_or_path: str | os.PathLike, directory: str = '.') -> str:
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
  name = os.fspath(name_or_path)
  file_name = name if name.endswith('.npz') else f'{name}.npz'
  given = pathlib.Path(name).expanduser()
  looked = [given, given / 'model.npz']
  if not is_address(directory):
    place = pathlib.Path(directory).expanduser()
    looked += [place / file_name, place / 'model.npz']
    if place.suffix == '.npz':
      looked = [given, place]
  looked.append(cache_dir() / file_name)
  for path in looked:
    if path.is_file():
      return str(path)
  raise errors.CheckpointNotFoundError(
    _not_found_text(name, pathlib.Path(file_name).name, looked, directory)
  )


def is_address(directory: str) -> bool:
  """Whether `directory` is a remote address, such as `gs://...`."""
  return '://' in directory


def cache_dir() -> pathlib.Path:
  """Returns the directory for what is downloaded or compiled once."""
  default = '~/.cache/vit_jax'
  return pathlib.Path(os.environ.get('VIT_JAX_CACHE') or default).expanduser()


def _not_found_text(name, file_name, looked, directory) -> str:
  address = f'{_BUCKET}/imagenet21k'
  if directory.startswith('gs://'):
    address = 'https://storage.googleapis.com/' + directory[len('gs://') :]
  elif is_address(directory):
    address = directory
  address = f'{address.rstrip("/")}/{file_name}'
  target = cache_dir() / file_name
  places = '\n'.join(f'  {path}' for path in looked)
  return (
    f'No weights for {name!r}. Looked at:\n{places}\n'
    f'Fetch the published file with\n'
    f"  curl -fL --create-dirs -o '{target}' '{address}'\n"
    'or name the directory that has it: --config.pretrained_dir=DIR.'
  )
