"""Fetches a file over HTTP: resumed, checked, and whole or not there at all."""

from __future__ import annotations

import base64
import contextlib
import os
import pathlib
import re
import socket
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

from vit_jax.checkpoints.remote import patience
from vit_jax.checkpoints.remote.partial import (
  Partial,
  disk_errors,
  is_there,
  only_one,
)
from vit_jax.checkpoints.remote.reasons import UnavailableError, reason_of

# How often a connection that breaks is made again, as long as bytes came.
MAX_RESUMES = 5
_CHUNK_BYTES = 1 << 20


class _CutError(Exception):
  """The connection broke in the middle of the file."""


class _ChangedError(Exception):
  """What came before is of no use: the file has to be begun anew."""


def fetch(
  url: str,
  target: pathlib.Path,
  *,
  sha256: str = '',
  headers: dict[str, str] | None = None,
) -> None:
  """Downloads `url` to `target`, which is whole and checked or not there.

  Args:
    url: 'https://...' or 'http://...'.
    target: the directories above it are made. A file that is there is kept,
      until another one has come if it has not the sum `sha256`.
    sha256: of the file, in hexadecimal; '' if unknown.
    headers: more fields of the request, such as the authorization.

  Raises:
    UnavailableError: the server doesn't give the file.
    CheckpointNotFoundError: the disk is full or can't be written to.
  """
  with disk_errors(target), only_one(target):
    if is_there(target, sha256):  # Another process has brought it meanwhile.
      return
    partial = Partial.of(target)
    if not partial.is_whole:
      _pull(url, partial, headers or {})
    partial.finish(target, sha256)


def _pull(url: str, partial: Partial, headers: dict[str, str]) -> None:
  """Fills `partial`, over as many connections as it takes."""
  for _ in range(MAX_RESUMES):
    size, start = partial.size, time.monotonic()
    try:
      _pull_once(url, partial, headers)
      return
    except _ChangedError:
      continue
    except _CutError as error:
      # A restart that got less far than the attempt before is no progress.
      num_bytes, elapsed = partial.size - size, time.monotonic() - start
      if patience.is_slow(num_bytes, elapsed) or num_bytes <= 0:
        raise UnavailableError(_kept(str(error), partial)) from error
  raise UnavailableError(
    _kept(f'the connection broke {MAX_RESUMES} times', partial)
  )


def _pull_once(url: str, partial: Partial, headers: dict[str, str]) -> None:
  import requests
  import urllib3

  headers = {'Accept-Encoding': 'identity', **headers}
  if not partial.version:
    partial.remove()
  elif size := partial.size:
    headers |= {'Range': f'bytes={size}-', 'If-Range': partial.version}
  host = urllib.parse.urlsplit(url).netloc
  timeout = (patience.FIRST_BYTE_SECONDS, patience.STALL_SECONDS)
  try:
    response = patience.first_answer(
      host,
      lambda: requests.get(url, headers=headers, stream=True, timeout=timeout),
    )
    with response:
      _begin(response, partial)
      with patience.Watch(host, lambda: _hang_up(response)) as watch:
        _copy(response.raw, partial, url, watch)
  except requests.Timeout as error:
    raise UnavailableError(patience.keeps_silent(host)) from error
  except patience.SlowError as error:
    raise UnavailableError(_kept(str(error), partial)) from error
  except urllib3.exceptions.ReadTimeoutError as error:
    reason = _kept(patience.stalls(host), partial)
    raise UnavailableError(reason) from error
  except urllib3.exceptions.HTTPError as error:
    raise _CutError(f'the connection broke ({type(error).__name__})') from error
  except requests.RequestException as error:
    raise UnavailableError(reason_of(error)) from error


def _begin(response: Any, partial: Partial) -> None:
  """Readies `partial` for the body, which may begin at its end or at zero."""
  status, fields = response.status_code, response.headers
  if status == 416:  # There is nothing after what we have: it changed.
    partial.remove()
    raise _ChangedError
  if status not in (200, 206):
    reason = f'HTTP {status} {response.reason or ""}'.strip()
    raise UnavailableError(reason, status)
  encoding = fields.get('Content-Encoding') or 'identity'
  if encoding != 'identity':
    reason = f'it sends the file as {encoding} (Content-Encoding)'
    raise UnavailableError(reason, is_final=True)
  if status == 206:
    span = re.fullmatch(
      r'bytes (\d+)-\d+/(\d+|\*)', fields.get('Content-Range', '')
    )
    is_next = span and (int(span[1]), span[2]) == (
      partial.size,
      str(partial.num_bytes),
    )
    kind = 'Last-Modified' if partial.version.endswith(' GMT') else 'ETag'
    if is_next and fields.get(kind, partial.version) == partial.version:
      return
    partial.remove()
    raise _ChangedError
  num_bytes = fields.get('Content-Length', '')
  partial.begin(
    _version(fields),
    int(num_bytes) if num_bytes.isdecimal() else None,
    _md5(fields),
  )


def _version(fields: Any) -> str:
  """Returns by what to ask for the rest of this version, or ''."""
  etag, date = fields.get('ETag', ''), fields.get('Last-Modified', '')
  if etag and not etag.startswith('W/'):  # Weak ones can't be resumed.
    return etag
  # What was changed in this very second may change in it again.
  is_date = date.endswith(' GMT') and date != fields.get('Date')
  return date if is_date else ''


def _copy(body: Any, partial: Partial, url: str, watch: patience.Watch) -> None:
  """Appends the body to `partial`."""
  offset = size = partial.size
  with progress(url, partial) as advance, open(partial.path, 'ab') as file:
    while chunk := body.read1(_CHUNK_BYTES):
      if not size and chunk.lstrip(b'\xef\xbb\xbf \r\n')[:1] == b'<':
        partial.remove()
        raise UnavailableError('a web page came in place of the file')
      file.write(chunk)
      file.flush()
      size += len(chunk)
      advance(size)
      watch.see(len(chunk))
  if partial.num_bytes is not None and size < partial.num_bytes:
    raise _CutError(f'the connection was cut after {size - offset} bytes')
  if not size:
    partial.remove()
    raise UnavailableError('an empty file')


def _hang_up(response: Any) -> None:
  """Ends the reading of a response, from another thread."""
  # `close` would wait for the read to end.
  with contextlib.suppress(OSError, ValueError, AttributeError):
    descriptor = os.dup(response.raw.fileno())
    with socket.socket(fileno=descriptor) as line:
      line.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def progress(source: str, partial: Partial) -> Iterator[Callable[[int], None]]:
  """Shows how far a download is: a bar on a terminal, else a line."""
  import rich.progress
  from rich.console import Console

  console = Console(stderr=True)
  if not console.is_terminal:
    size = f' ({partial.num_bytes:,} bytes)' if partial.num_bytes else ''
    verb = 'Resuming' if partial.size else 'Downloading'
    print(f'{verb} {source}{size}', file=sys.stderr, flush=True)
    yield lambda size: None
    return
  columns = (
    rich.progress.TextColumn('{task.description}'),
    rich.progress.BarColumn(),
    rich.progress.DownloadColumn(),
    rich.progress.TransferSpeedColumn(),
    rich.progress.TimeRemainingColumn(),
  )
  with rich.progress.Progress(*columns, console=console) as bar:
    name = urllib.parse.urlsplit(source).path.rsplit('/', 1)[-1]
    task = bar.add_task(name, total=partial.num_bytes, completed=partial.size)
    yield lambda size: bar.update(task, completed=size)


def _kept(reason: str, partial: Partial) -> str:
  """Returns a reason with what becomes of the part that came."""
  if not partial.size or not partial.version:
    return reason
  total = f' of {partial.num_bytes:,}' if partial.num_bytes else ''
  return f'{reason}; {partial.size:,}{total} bytes are kept for the next try'


def _md5(fields: Any) -> str:
  """Returns the sum that Google's storage states, in hexadecimal, or ''."""
  if fields.get('x-goog-stored-content-encoding', 'identity') != 'identity':
    return ''  # It is of the compressed bytes.
  found = re.search(r'md5=([A-Za-z0-9+/=]{24})', fields.get('x-goog-hash', ''))
  return base64.b64decode(found[1]).hex() if found else ''
