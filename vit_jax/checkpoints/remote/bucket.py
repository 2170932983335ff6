"""Fetches `gs://` addresses, with the user's credentials if there are any."""

import base64
import contextlib
import functools
import importlib
import os
import pathlib
import time
import urllib.parse
from typing import Any

from vit_jax.checkpoints.remote import download, patience
from vit_jax.checkpoints.remote.partial import (
  Partial,
  disk_errors,
  is_there,
  only_one,
)
from vit_jax.checkpoints.remote.reasons import UnavailableError

HOST = 'storage.googleapis.com'
# The first piece must come within the patience of `download`; later ones are
# larger on faster lines.
_FIRST_BYTES, _MOST_BYTES = 1 << 16, 1 << 23


def public_address(address: str) -> str:
  """Returns the `https://` address of a `gs://` one.

  The environment variable STORAGE_EMULATOR_HOST stands for Google's host, as
  it does for Google's own libraries.
  """
  host = os.environ.get('STORAGE_EMULATOR_HOST') or f'https://{HOST}'
  host = host if '://' in host else f'http://{host}'
  path = urllib.parse.quote(address.removeprefix('gs://'))
  return f'{host.rstrip("/")}/{path}'


def fetch(address: str, target: pathlib.Path, sha256: str = '') -> None:
  """Downloads a `gs://` address to `target`.

  Goes through `gcsfs` if that is installed (the extra `gcs`), and where that
  gives nothing, through the public address.

  Raises:
    UnavailableError: neither gives the file.
  """
  refused = ''
  try:
    # An extra; the tests lack it. The class that `gcsfs` itself offers asks
    # about the bucket first, by another protocol, and warns if it may not.
    gcsfs = importlib.import_module('gcsfs.core')
  except ImportError:
    gcsfs = None
  if gcsfs:
    try:
      _fetch_with_credentials(gcsfs, address, target, sha256)
      return
    except UnavailableError as error:
      refused = f'through gcsfs: {error}; without: '
  try:
    download.fetch(public_address(address), target, sha256=sha256)
  except UnavailableError as error:
    raise UnavailableError(
      f'{refused}{error}', error.status, is_final=error.is_final
    ) from error


def _fetch_with_credentials(
  gcsfs: Any, address: str, target: pathlib.Path, sha256: str
) -> None:
  path = address.removeprefix('gs://')
  with disk_errors(target), only_one(target):
    if is_there(target, sha256):
      return
    info, files = _ask('gcsfs', lambda: _open(gcsfs, path))
    partial = Partial.of(target)
    md5 = base64.b64decode(info.get('md5Hash', '')).hex()
    # The public address calls a version by its MD5, so either way can go on
    # where the other stopped.
    version = f'"{md5 or info.get("etag", "")}"'
    if version != partial.version:
      partial.begin(version, int(info['size']), md5)
    with download.progress(address, partial) as advance:
      _copy(files, path, partial, advance)
    partial.finish(target, sha256)


def _open(gcsfs: Any, path: str) -> tuple[dict[str, Any], Any]:
  files = gcsfs.GCSFileSystem()
  return files.info(path), files


def _copy(files: Any, path: str, partial: Partial, advance: Any) -> None:
  piece, size = _FIRST_BYTES, partial.size
  assert partial.num_bytes is not None
  with open(partial.path, 'ab') as file:
    while size < partial.num_bytes:
      end, start = min(size + piece, partial.num_bytes), time.monotonic()
      read = functools.partial(files.cat_file, path, start=size, end=end)
      content = _ask('gcsfs', read)
      if len(content) != end - size:
        raise UnavailableError(f'{len(content)} bytes came of {end - size}')
      file.write(content)
      file.flush()
      size = end
      advance(size)
      elapsed = time.monotonic() - start
      if not patience.is_slow(len(content), elapsed):
        patience.spend(-elapsed)
      if elapsed < patience.FIRST_BYTE_SECONDS / 8:
        piece = min(2 * piece, _MOST_BYTES)


def _ask(host: str, ask: Any) -> Any:
  try:
    return patience.first_answer(host, ask)
  except UnavailableError:
    raise
  except Exception as error:
    # What its many layers raise has no common ancestor.
    status = None
    with contextlib.suppress(TypeError, ValueError):
      status = int(getattr(error, 'code', None) or 0) or None
    first_line = next(iter(str(error).splitlines()), '')[:200]
    reason = f'{type(error).__name__}: {first_line}'.removesuffix(': ')
    raise UnavailableError(reason, status) from error
