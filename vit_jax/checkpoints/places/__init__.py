"""The places, in order, where the weights of a name and a directory can be."""

import dataclasses
import os
import pathlib
import re
import urllib.parse

from vit_jax import errors
from vit_jax.checkpoints.places import (
  addresses,
  directories,
  not_found,
  published,
)
from vit_jax.checkpoints.places.addresses import SUFFIXES, is_address
from vit_jax.checkpoints.remote import bucket

_BUCKETS = re.compile(r'gs://(vit|mixer)_models/?')


@dataclasses.dataclass
class Places:
  """Where to look.

  Attributes:
    name: of what is looked for.
    paths: local files, run directories' `checkpoints` among them.
    addresses: whence to fetch the weights where there is no such file.
    names: of the file, in a directory that has others too.
    unknown: what is wrong with a name that was never published, or ''.
    stand_ins: addresses of weights that are not the best that the name has.
    directory: on this machine, named by the user, or None.
    num_same: how many of the addresses, the first ones, can have the very file
      that a SHA-256 is of; later ones have conversions of it.
  """

  name: str
  paths: list[pathlib.Path]
  addresses: list[str]
  names: tuple[str, ...] = ()
  unknown: str = ''
  stand_ins: tuple[str, ...] = ()
  directory: pathlib.Path | None = None
  num_same: int = 1


def of(name: str, directory: str, cache: pathlib.Path) -> Places:
  """Returns the places for a name, path or address and a directory.

  Args:
    name: see `locate.locate`.
    directory: see `locate.locate`.
    cache: directory of earlier downloads.

  Raises:
    CheckpointNotFoundError: the directory is mistyped.
  """
  if is_address(name):
    return Places(name, [], [name, *_copies(name)])
  if _is_here(directory) or os.path.isabs(os.path.expanduser(name)):
    return _published(_on_the_path(name), None, cache)
  if is_address(directory) and not _is_table(directory):
    found = addresses.in_folder(directory, _file_names(name))
    places = Places(name, [], found, _file_names(name), num_same=len(found))
    places.addresses += _copies(directory)
    return places
  place = directories.path_of(directory)
  group = published.upstream_of(directory)
  if not is_address(directory) and os.path.exists(place):
    places = _in_directory(name, place)
    return places if os.path.isfile(place) else _published(places, group, cache)
  if not group and published.is_name(directory):
    return of(directory, '.', cache)  # Those weights, whoever they are for.
  _check(name, directory)
  return _published(Places(name, [], []), group, cache)


def of_file(file: str, directory: str, cache: pathlib.Path) -> Places:
  """Returns the places for a file beside the AugReg weights, 'index.csv'.

  Raises:
    CheckpointNotFoundError: the directory is mistyped.
  """
  if is_address(directory) and not _is_table(directory):
    return Places(file, [], addresses.in_folder(directory, (file,))[:1])
  places = Places(file, [cache / file], [f'gs://vit_models/augreg/{file}'])
  if not is_address(directory):
    _check(file, directory)
    places.paths.insert(0, directories.path_of(directory) / file)
  return places


def has_index(directory: str) -> bool:
  """Whether an index can say which file of a directory is meant.

  It can't where a directory gives the same weights for every name.
  """
  if is_address(directory):
    return not directory.startswith('hf://') and not directory.endswith(
      SUFFIXES
    )
  if _is_here(directory):
    return True
  place = directories.path_of(directory)
  if os.path.isdir(place):
    return not directories.has_one_for_all(place)
  return not os.path.exists(place) and bool(published.upstream_of(directory))


def _is_here(directory: str) -> bool:
  return os.path.normpath(directory) == '.'


def _is_table(directory: str) -> bool:
  """Whether an address is of a bucket in the table of published weights."""
  upstream = published.upstream_of(directory)
  return bool(upstream or _BUCKETS.fullmatch(directory))


def _check(name: str, directory: str) -> None:
  """Raises an error where a directory is nothing that is known."""
  if _is_here(directory) or _is_table(directory):
    return
  if not os.path.exists(directories.path_of(directory)):
    raise errors.CheckpointNotFoundError(
      not_found.text_of_directory(name, directory)
    )


def _on_the_path(name: str) -> Places:
  """Returns where a path, which may be a name too, is on this machine."""
  given = directories.path_of(name)
  here = [directories.path_of(each) for each in _file_names(name)]
  # The working directory's `model.npz` is nobody's choice of weights.
  paths = [given, *directories.without_a_name(given), *here]
  place = given if os.path.isdir(given) else None
  return Places(name, paths, [], directory=place)


def _in_directory(name: str, place: pathlib.Path) -> Places:
  names = _file_names(name)
  if os.path.isfile(place):
    return Places(name, [place], [], names)
  paths = directories.with_a_name(place, names)
  return Places(name, paths, [], names, directory=place)


def _published(
  places: Places, group: str | None, cache: pathlib.Path
) -> Places:
  """Adds where published weights of that name are.

  Args:
    places: to add to.
    group: the upstream that the user's directory says, if any.
    cache: directory of earlier downloads.
  """
  upstream, plain = published.split_upstream(places.name)
  if upstream or group or '/' not in plain:
    _add_published(places, plain, upstream or group)
  # What the user put there says nothing of its upstream: the usual one's, then.
  if group is None or group in published.DEFAULT_UPSTREAMS:
    places.paths += [cache / each for each in _file_names(places.name)]
  return places


def _file_names(name: str) -> tuple[str, ...]:
  if name.endswith(SUFFIXES):
    return (name,)
  return tuple(f'{name}{suffix}' for suffix in SUFFIXES)


def _copies(address: str) -> list[str]:
  """Returns the other places of the weights of a published file."""
  public = f'https://{bucket.HOST}/'
  if address.startswith(public):
    path = urllib.parse.unquote(address.removeprefix(public))
    address = f'gs://{path}'
  return [
    place
    for weights in published.find_address(address)
    for place in weights.places
    if place != address
  ]


def _add_published(places: Places, name: str, upstream: str | None) -> None:
  options = published.find(name, upstream)
  if not options:
    places.unknown = published.unknown(name, upstream)
    return
  places.addresses = [each for option in options for each in option.places]
  places.stand_ins = tuple(
    each for option in options[1:] for each in option.places
  )
