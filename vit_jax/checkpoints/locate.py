"""Finds the local weight file that a path, directory, name or address means."""

import contextlib
import os
import pathlib
import re

from absl import logging

from vit_jax import errors
from vit_jax.checkpoints import places
from vit_jax.checkpoints.digest import file_digest
from vit_jax.checkpoints.places import addresses, directories, not_found
from vit_jax.checkpoints.remote import bucket, download, hub, patience
from vit_jax.checkpoints.remote.reasons import UnavailableError
from vit_jax.environment import cache_dir, is_offline

# How long servers are waited for in vain, in seconds. An index and the weights
# that it names are asked for one after the other, and the user has half a
# minute.
SEARCH_SECONDS, INDEX_SECONDS = 18.0, 7.0
# What `pathlib` makes of an address.
_FLATTENED = re.compile(r'^(gs|hf|https?):/(?=[^/])')


def locate(
  name_or_path: str | os.PathLike,
  directory: str | os.PathLike = '.',
  *,
  offline: bool | None = None,
) -> str:
  """Returns the path of a weight file, which is downloaded if need be.

  Looks, in this order, at `name_or_path` itself, at `directory`, in the cache
  (`~/.cache/vit_jax` or what `VIT_JAX_CACHE` names), in Google's storage, and
  on Hugging Face.

  Args:
    name_or_path: a file; a run directory, of which `model.npz` is taken; an
      address: `https://...`, `gs://...` or `hf://OWNER/REPO[/FILE][@REVISION]`;
      the name of a model or file of `published`, such as 'ViT-B_16', which
      means ImageNet-21k, or 'sam/ViT-B_16'. An address may end in
      `#sha256=HEX`, and only a file with that sum is taken.
    directory: a directory that has the file by its name, as `model.npz`, as
      `model.safetensors` or as its only weight file; a run directory; the file
      itself; the address of one of these; the name of an upstream, 'sam', or of
      published weights, 'sam/ViT-B_16', which are then taken whatever the name.
      A `name_or_path` that is relative is a path only where this is '.' or ''.
    offline: whether to use only what is on this machine. By default that is so
      where the environment variable `VIT_JAX_OFFLINE` or `HF_HUB_OFFLINE` is 1.

  Returns:
    The path of a file, or of a run directory that has no `model.npz` but
    `checkpoints`.

  Raises:
    CheckpointNotFoundError: with every place looked at, why it gave nothing,
      and what to do about it.
  """
  name, sha256 = addresses.split_hash(_text_of(name_or_path))
  directory, other = addresses.split_hash(_text_of(directory))
  found = places.of(name, directory, cache_dir())
  if sha256 := sha256 or other:  # A conversion has another one.
    found.addresses = found.addresses[: found.num_same]
  with patience.limit(SEARCH_SECONDS):
    return _Search(found, sha256, offline).run()


def locate_file(
  file_name: str,
  directory: str | os.PathLike = '.',
  *,
  offline: bool | None = None,
) -> str:
  """Returns the path of the file of that very name beside the weights.

  Args:
    file_name: such as 'index.csv'.
    directory: as in `locate`; after it come the cache and AugReg's bucket.
    offline: as in `locate`.

  Raises:
    CheckpointNotFoundError: as in `locate`.
  """
  place, _ = addresses.split_hash(_text_of(directory))
  found = places.of_file(file_name, place, cache_dir())
  with patience.limit(INDEX_SECONDS):
    return _Search(found, '', offline).run()


def find_local(name: str, directory: str | os.PathLike = '.') -> str:
  """Returns the path that `locate` finds without a download, or ''."""
  place, _ = addresses.split_hash(_text_of(directory))
  found = places.of(name, place, cache_dir())
  return _Search(found, '', True).local()


def _text_of(path: str | os.PathLike) -> str:
  return _FLATTENED.sub(r'\1://', os.fspath(path), count=1)


def _has_checkpoints(path: pathlib.Path) -> bool:
  # Unlike those of `pathlib`, these tests don't raise for names of any length.
  with contextlib.suppress(OSError):
    is_directory = path.name == 'checkpoints' and os.path.isdir(path)
    return is_directory and bool(os.listdir(path))
  return False


class _Search:
  """One walk over the places, with what was found wrong on the way."""

  def __init__(self, found: places.Places, sha256: str, offline: bool | None):
    self.places, self.sha256 = found, sha256
    self.is_offline = is_offline(offline)
    self.report = not_found.Report(
      found.name, cache_dir(), found.unknown, found.directory, sha256
    )

  def run(self) -> str:
    if path := self.local():
      return path
    for address in self.places.addresses:
      try:
        path = self._fetch(address)
      except UnavailableError as error:
        self.report.addresses[address] = error
        continue
      self._tell(path, address)
      return path
    raise errors.CheckpointNotFoundError(self.report.text())

  def local(self) -> str:
    """Returns a path that needs no download, or ''."""
    for path in self.places.paths:
      if _has_checkpoints(path):
        return str(path.parent)  # Of a run that has written no model.npz.
      if os.path.isfile(path) and self._is_right(path):
        return str(path)
      self.report.paths.setdefault(str(path), '')
    for address in self.places.addresses:
      path = self._cached(address)
      if os.path.isfile(path) and self._is_right(path):
        self._tell(str(path), address)
        return str(path)
      self.report.paths.setdefault(str(path), '')
    return ''

  def _cached(self, address: str) -> pathlib.Path:
    if address.startswith('hf://'):
      names = self.places.names
      path = hub.cached(address, cache_dir(), names, self.is_offline)
      if path:
        return pathlib.Path(path)
    return addresses.cache_path(address, cache_dir())

  def _is_right(self, path: pathlib.Path) -> bool:
    if not self.sha256 or (found := file_digest(path)) == self.sha256:
      return True
    self.report.paths[str(path)] = f': wrong sha256: it has {found}'
    return False

  def _fetch(self, address: str) -> str:
    scheme = address.partition('://')[0]
    if scheme not in ('hf', 'gs', 'https', 'http'):
      reason = 'not an https://, gs:// or hf:// address'
      raise UnavailableError(reason, is_final=True)
    if self.is_offline:
      raise UnavailableError('offline')
    if address.startswith('hf://'):
      names = self.places.names
      return hub.fetch(address, cache_dir(), names, self.sha256)
    target = addresses.cache_path(address, cache_dir())
    if address.startswith('gs://'):
      bucket.fetch(address, target, self.sha256)
    else:
      download.fetch(address, target, sha256=self.sha256)
    return str(target)

  def _tell(self, path: str, address: str) -> None:
    """Logs where the weights are from."""
    logging.info('%s is %s, from %s', self.places.name, path, address)
    if self.places.directory:
      logging.warning(
        '%s is not in the directory; %s is taken. %s',
        self.places.name,
        address,
        directories.describe(self.places.directory),
      )
    if address in self.places.stand_ins:
      logging.warning(
        '%s: the weights with the best upstream accuracy, %s, are not to be '
        'had. Others of that model are used: %s',
        self.places.name,
        self.places.addresses[0],
        address,
      )
