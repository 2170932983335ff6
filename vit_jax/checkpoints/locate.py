"""Finds the local weight file that a path, directory, name or address means."""

import contextlib
import os
import pathlib
import re
import shlex

from absl import logging

from vit_jax import errors
from vit_jax.checkpoints import places
from vit_jax.checkpoints.remote import bucket, download, hub
from vit_jax.checkpoints.remote.partial import UnavailableError, file_hash

_BUCKETS = re.compile(r'(gs://|googleapis\.com/)(vit|mixer)_models/')
_REFUSED = (
  ' (Google is reported to refuse anonymous reads since February 2026: issue '
  '321 of google-research/vision_transformer)'
)
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
    directory: a directory that has the file by its name, a run directory, the
      file itself, the address of either, or the name of an upstream, 'sam'.
    offline: whether to use only what is on this machine. By default that is so
      where the environment variable `VIT_JAX_OFFLINE` or `HF_HUB_OFFLINE` is 1.

  Returns:
    The path of a file, or of a run directory that has no `model.npz` but
    `checkpoints`.

  Raises:
    CheckpointNotFoundError: with every place looked at, why it gave nothing,
      and what to do about it.
  """
  name, sha256 = places.split_hash(_text_of(name_or_path))
  directory, other = places.split_hash(_text_of(directory))
  found = places.of(name, directory, cache_dir())
  if sha256 := sha256 or other:  # A conversion has another one.
    found.addresses = found.addresses[:1]
  return _Search(name, found, sha256, offline).run()


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
  found = places.of_file(file_name, _text_of(directory), cache_dir())
  return _Search(file_name, found, '', offline).run()


def find_local(name: str, directory: str | os.PathLike = '.') -> str:
  """Returns the path that `locate` finds without a download, or ''."""
  found = places.of(name, _text_of(directory), cache_dir())
  return _Search(name, found, '', True).local()


def is_address(directory: str) -> bool:
  """Whether `directory` is a remote address, such as `gs://...`."""
  return places.is_address(directory)


def cache_dir() -> pathlib.Path:
  """Returns the directory for what is downloaded or compiled once."""
  default = '~/.cache/vit_jax'
  return pathlib.Path(os.environ.get('VIT_JAX_CACHE') or default).expanduser()


def is_offline(offline: bool | None = None) -> bool:
  """Whether nothing may be contacted; an argument goes before the variables."""
  if offline is not None:
    return offline
  variables = ('VIT_JAX_OFFLINE', 'HF_HUB_OFFLINE')
  texts = [os.environ.get(each, '').lower() for each in variables]
  return any(text in ('1', 'true', 'yes', 'on') for text in texts)


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

  def __init__(
    self, name: str, found: places.Places, sha256: str, offline: bool | None
  ):
    self.name, self.places, self.sha256 = name, found, sha256
    self.is_offline = is_offline(offline)
    self.paths: dict[str, str] = {}  # Path -> why not, or ''.
    self.addresses: dict[str, UnavailableError] = {}

  def run(self) -> str:
    if path := self.local():
      return path
    for address in self.places.addresses:
      try:
        path = self._fetch(address)
      except UnavailableError as error:
        self.addresses[address] = error
        continue
      self._tell(path, address)
      return path
    raise errors.CheckpointNotFoundError(self._text())

  def local(self) -> str:
    """Returns a path that needs no download, or ''."""
    for path in self.places.paths:
      if _has_checkpoints(path):
        return str(path.parent)  # Of a run that has written no model.npz.
      if os.path.isfile(path) and self._is_right(path):
        return str(path)
      self.paths.setdefault(str(path), '')
    for address in self.places.addresses:
      path = self._cached(address)
      if os.path.isfile(path):
        if self._is_right(path):
          self._tell(str(path), address)
          return str(path)
        if path.is_relative_to(cache_dir()):
          path.unlink()  # It is ours; another one is fetched.
      self.paths.setdefault(str(path), '')
    return ''

  def _cached(self, address: str) -> pathlib.Path:
    if address.startswith('hf://'):
      path = hub.cached(address, cache_dir(), self.places.names)
      if path:
        return pathlib.Path(path)
    return places.cache_path(address, cache_dir())

  def _is_right(self, path: pathlib.Path) -> bool:
    if not self.sha256 or (found := file_hash(path, 'sha256')) == self.sha256:
      return True
    self.paths[str(path)] = f': wrong sha256: it has {found}'
    return False

  def _fetch(self, address: str) -> str:
    if self.is_offline:
      raise UnavailableError('offline')
    if address.startswith('hf://'):
      names = self.places.names
      return hub.fetch(address, cache_dir(), names, self.sha256)
    target = places.cache_path(address, cache_dir())
    if address.startswith('gs://'):
      bucket.fetch(address, target, self.sha256)
    elif address.startswith(('https://', 'http://')):
      download.fetch(address, target, sha256=self.sha256)
    else:
      raise UnavailableError('not an https://, gs:// or hf:// address')
    return str(target)

  def _tell(self, path: str, address: str) -> None:
    """Logs where the weights are from."""
    logging.info('%s is %s, from %s', self.name, path, address)
    if address in self.places.stand_ins:
      logging.warning(
        '%s: the weights with the best upstream accuracy, %s, are not to be '
        'had. Others of that model are used: %s',
        self.name,
        self.places.addresses[0],
        address,
      )

  def _text(self) -> str:
    lines = [f'No weights for {self.name!r}. Looked at:']
    lines += [f'  {path}{reason}' for path, reason in self.paths.items()]
    for address, error in self.addresses.items():
      is_refused = error.status == 403 and _BUCKETS.search(address)
      lines.append(f'  {address}: {error}{_REFUSED if is_refused else ""}')
    return '\n'.join([*lines, *self._advice()])

  def _advice(self) -> list[str]:
    lines = [self.places.unknown] if self.places.unknown else []
    if self.places.unknown:
      lines.append(
        'AugReg weights have a config of their own: --config '
        'configs/augreg.py:Ti_16 and the like.'
      )
    if any(str(error) == 'offline' for error in self.addresses.values()):
      lines.append(
        'To download, allow it: offline=False, and VIT_JAX_OFFLINE and '
        'HF_HUB_OFFLINE unset.'
      )
    if any(
      address.startswith('gs://') and error.status == 403
      for address, error in self.addresses.items()
    ):
      lines.append(
        'If your Google account may read the bucket, use it:\n'
        '  pip install gcsfs && gcloud auth application-default login'
      )
    if address := self._best_address():
      lines.append(f'Fetch the published file with\n  {self._command(address)}')
    lines.append(
      'Or name the directory or address that has it by '
      '--config.pretrained_dir=DIR (or hf://OWNER/REPO); empty '
      '(--config.pretrained_dir=) starts from random weights.'
    )
    return lines

  def _best_address(self) -> str:
    """Returns the address of which a second try is the least hopeless."""
    statuses = {each: error.status for each, error in self.addresses.items()}
    open_ones = [each for each in statuses if statuses[each] is None]
    return next(iter([*open_ones, *statuses]), '')

  def _command(self, address: str) -> str:
    target = places.cache_path(address, cache_dir())
    url = address
    if address.startswith('gs://'):
      url = bucket.public_address(address)
    elif address.startswith('hf://'):
      url = hub.page_address(address)
    return shlex.join(['curl', '-fL', '--create-dirs', '-o', str(target), url])
