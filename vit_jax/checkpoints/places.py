"""The places, in order, where the weights of a name and a directory can be."""

import dataclasses
import hashlib
import pathlib
import re
import urllib.parse

from vit_jax import errors
from vit_jax.checkpoints import published
from vit_jax.checkpoints.remote import bucket, hub

_SUFFIXES = ('.npz', '.safetensors')
_BUCKETS = re.compile(r'gs://(vit|mixer)_models/?')
_SHA256 = re.compile(r'(?P<rest>.*)#sha256=(?P<hex>[0-9a-fA-F]*)')


@dataclasses.dataclass
class Places:
  """Where to look.

  Attributes:
    paths: local files, run directories' `checkpoints` among them.
    addresses: whence to fetch the weights where there is no such file.
    names: of the file, in a directory that has others too.
    unknown: what is wrong with a name that was never published, or ''.
    stand_ins: addresses of weights that are not the best that the name has.
  """

  paths: list[pathlib.Path]
  addresses: list[str]
  names: tuple[str, ...]
  unknown: str = ''
  stand_ins: tuple[str, ...] = ()


def of(name: str, directory: str, cache: pathlib.Path) -> Places:
  """Returns the places for a name, path or address and a directory.

  Args:
    name: see `locate.locate`.
    directory: see `locate.locate`.
    cache: directory of earlier downloads.
  """
  if is_address(name):
    return Places([], [name, *_copies(name)], ())
  upstream, plain = published.split_upstream(name)
  names = _file_names(plain)
  places = Places([*_run(name), *_in_directory(directory, name)], [], names)
  group = published.upstream_of(directory)
  if upstream and not _is_foreign(directory):
    _add_published(places, plain, upstream)
  elif group:
    _add_published(places, plain, group)
  elif is_address(directory):
    places.addresses = _in_remote(directory, _file_names(name))
  elif '/' not in name:
    _add_published(places, plain, None)
  # What the user put there says nothing of its upstream: the usual one's, then.
  is_usual = group is None or group in published.DEFAULT_UPSTREAMS
  if is_usual and not _is_foreign(directory):
    places.paths += [cache / each for each in _file_names(name)]
  return places


def of_file(file: str, directory: str, cache: pathlib.Path) -> Places:
  """Returns the places for a file beside the AugReg weights, 'index.csv'."""
  places = Places([], [], (file,))
  if _is_foreign(directory):
    place = directory.rstrip('/')
    places.addresses = [f'{place}/{file}']
  else:
    if not is_address(directory):
      places.paths.append(pathlib.Path(directory).expanduser() / file)
    places.paths.append(cache / file)
    places.addresses = [f'gs://vit_models/augreg/{file}']
  return places


def is_address(name: str) -> bool:
  """Whether `name` is a remote address, such as `gs://...`."""
  return '://' in name


def split_hash(name: str) -> tuple[str, str]:
  """Returns a name without its `#sha256=HEX`, and HEX or ''.

  Raises:
    CheckpointNotFoundError: HEX is no SHA-256.
  """
  found = _SHA256.fullmatch(name)
  if not found:
    return name, ''
  if len(found['hex']) != 64:
    raise errors.CheckpointNotFoundError(
      f'{name!r} states a SHA-256 of {len(found["hex"])} hexadecimal digits; '
      'expected 64, as sha256sum prints them.'
    )
  return found['rest'], found['hex'].lower()


def cache_path(address: str, cache: pathlib.Path) -> pathlib.Path:
  """Returns where in the cache the file of an address is.

  The path says where it came from: `ViT-B_16.npz` is the name of many files.
  """
  if address.startswith('hf://'):
    return hub.cache_path(address, cache)
  parts = _split(address.replace('gs://', f'//{bucket.HOST}/'))
  path = urllib.parse.unquote(parts.path)
  steps = [each for each in path.split('/') if each not in ('', '.', '..')]
  host = parts.netloc.rsplit('@')[-1].replace(':', '_')
  target = cache.joinpath(host or 'unknown', *(steps or ['file']))
  if parts.query:
    mark = hashlib.sha256(parts.query.encode()).hexdigest()[:8]
    target = target.with_name(f'{target.stem}-{mark}{target.suffix}')
  return target


def _split(address: str) -> urllib.parse.SplitResult:
  try:
    return urllib.parse.urlsplit(address)
  except ValueError as error:
    raise errors.CheckpointNotFoundError(
      f'{address!r} is no address: {error}.'
    ) from error


def _run(path: str) -> list[pathlib.Path]:
  given = pathlib.Path(path).expanduser()
  return [given, given / 'model.npz', given / 'checkpoints']


def _in_directory(directory: str, name: str) -> list[pathlib.Path]:
  if is_address(directory):
    return []
  place = pathlib.Path(directory).expanduser()
  if place.suffix in _SUFFIXES:
    return [place]
  paths = [
    place / pathlib.Path(each).expanduser() for each in _file_names(name)
  ]
  # The working directory is nobody's choice of weights.
  return paths + (_run(directory)[1:] if directory not in ('', '.') else [])


def _in_remote(directory: str, names: tuple[str, ...]) -> list[str]:
  path = _split(directory).path
  if directory.startswith('hf://') or path.endswith(_SUFFIXES):
    return [directory]
  return [f'{directory.rstrip("/")}/{each}' for each in names]


def _file_names(name: str) -> tuple[str, ...]:
  if name.endswith(_SUFFIXES):
    return (name,)
  return tuple(f'{name}{suffix}' for suffix in _SUFFIXES)


def _is_foreign(directory: str) -> bool:
  """Whether a directory is remote and not of the buckets in the table."""
  is_ours = published.upstream_of(directory) or _BUCKETS.fullmatch(directory)
  return is_address(directory) and not is_ours


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
