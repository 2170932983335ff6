"""Remote addresses: what they say of a file, and where the cache has it."""

import hashlib
import os
import pathlib
import re
import urllib.parse

from vit_jax import errors
from vit_jax.checkpoints.remote import bucket, hub

SUFFIXES = ('.npz', '.safetensors')
_SHA256 = re.compile(r'sha256=([0-9a-fA-F]{64})')
# What was meant to be one, in the name of what need not be an address.
_LIKE_A_SHA256 = re.compile(r'sha-?256', re.IGNORECASE)
# In the cache these are files, and nothing else is.
_FILES = (*SUFFIXES, '.csv', '.file')


def is_address(name: str) -> bool:
  """Whether `name` is a remote address, such as `gs://...`."""
  return '://' in name


def split_hash(name: str) -> tuple[str, str]:
  """Returns a name without its `#sha256=HEX`, and HEX or ''.

  Raises:
    CheckpointNotFoundError: what comes after the '#' of an address is anything
      else.
  """
  rest, mark, fragment = name.partition('#')
  if not is_address(name):  # A file may be called '#1.npz'.
    rest, mark, fragment = name.rpartition('#')
  if mark and (found := _SHA256.fullmatch(fragment)):
    return rest, found[1].lower()
  is_meant = is_address(name) or _LIKE_A_SHA256.match(fragment)
  if mark and is_meant and not os.path.lexists(name):
    raise errors.CheckpointNotFoundError(
      f"{name!r} ends in '#{fragment}'. Expected #sha256=HEX, where HEX is the "
      "file's SHA-256 in 64 hexadecimal digits, as sha256sum prints it; or no "
      '#, which an address writes as %23.'
    )
  return name, ''


def in_folder(address: str, names: tuple[str, ...]) -> list[str]:
  """Returns the addresses that files can have if they lie at an address.

  Args:
    address: of a folder, of a repository on Hugging Face, or of a file: the
      last one returned where it doesn't say which of the two.
    names: of the files that are wanted.
  """
  parts = split(address)
  if address.startswith('hf://') or parts.path.endswith(SUFFIXES):
    return [address]
  folder = parts.path.rstrip('/')
  inside = [
    parts._replace(path=f'{folder}/{_quoted(each, address)}').geturl()
    for each in names
  ]
  return [*inside, address] if folder == parts.path != '' else inside


def _quoted(name: str, address: str) -> str:
  if address.startswith('gs://'):
    return name
  return urllib.parse.quote(name, safe="/%+=,:@!$&'()*;~")


def cache_path(address: str, cache: pathlib.Path) -> pathlib.Path:
  """Returns where in the cache the file of an address is.

  The path says where it came from: `ViT-B_16.npz` is the name of many files.
  """
  if address.startswith('hf://'):
    return hub.cache_path(address, cache)
  parts = split(address.replace('gs://', f'//{bucket.HOST}/'))
  path = urllib.parse.unquote(parts.path)
  steps = [each for each in path.split('/') if each not in ('', '.', '..')]
  *folders, file = steps or ['file']
  # 'w' may be the address of a file although 'w/b16.npz' is one too, and on a
  # disk only one of them can be a directory.
  folders = [f'{each}.d' if each.endswith(_FILES) else each for each in folders]
  file = file if file.endswith((*SUFFIXES, '.csv')) else f'{file}.file'
  host = parts.netloc.rsplit('@')[-1].replace(':', '_')
  target = cache.joinpath(host or 'unknown', *folders, file)
  if parts.query:
    mark = hashlib.sha256(parts.query.encode()).hexdigest()[:8]
    target = target.with_name(f'{target.stem}-{mark}{target.suffix}')
  return target


def split(address: str) -> urllib.parse.SplitResult:
  """Returns the parts of an address.

  Raises:
    CheckpointNotFoundError: it is none.
  """
  try:
    return urllib.parse.urlsplit(address)
  except ValueError as error:
    raise errors.CheckpointNotFoundError(
      f'{address!r} is no address: {error}.'
    ) from error
