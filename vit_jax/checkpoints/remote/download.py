"""Fetches a file over HTTP: resumed, checked, and whole or not there at all."""

from __future__ import annotations

import base64
import contextlib
import pathlib
import re
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from vit_jax.checkpoints.remote.partial import (
  Partial,
  UnavailableError,
  disk_errors,
  only_one,
)

# How long, in seconds, a server may take to begin its answer; name look-up,
# connection and redirects are part of it.
FIRST_BYTE_SECONDS = 7.0
# How long it may then send nothing.
STALL_SECONDS = 8.0
# A server that sends fewer bytes than this in that time is given up.
SLOW_SECONDS, SLOW_BYTES = 10.0, 10_000
# How often a connection that breaks is made again, as long as bytes came.
MAX_RESUMES = 5
# A host that kept silent isn't asked again for so long: there may be more to
# ask it for, and the user waits.
SILENCE_SECONDS = 20.0
_CHUNK_BYTES = 1 << 20

_silent_hosts: dict[str, float] = {}
_Result = TypeVar('_Result')


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
    target: the directories above it are made.
    sha256: of the file, in hexadecimal; '' if unknown.
    headers: more fields of the request, such as the authorization.

  Raises:
    UnavailableError: the server doesn't give the file.
    CheckpointNotFoundError: the disk is full or can't be written to.
  """
  with disk_errors(target), only_one(target):
    if target.is_file():  # Another process has brought it meanwhile.
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
      num_bytes = partial.size - size
      if is_slow(num_bytes, time.monotonic() - start) or num_bytes <= 0:
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
  timeout = (FIRST_BYTE_SECONDS, STALL_SECONDS)
  try:
    response = first_answer(
      host,
      lambda: requests.get(url, headers=headers, stream=True, timeout=timeout),
    )
    with response:
      _begin(response, partial)
      _copy(response.raw, partial, url)
  except requests.Timeout as error:
    raise UnavailableError(keeps_silent(host)) from error
  except urllib3.exceptions.ReadTimeoutError as error:
    reason = f'no bytes for {STALL_SECONDS:.0f} seconds'
    raise UnavailableError(_kept(reason, partial)) from error
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
  if status == 206:
    span = re.fullmatch(
      r'bytes (\d+)-\d+/(\d+|\*)', fields.get('Content-Range', '')
    )
    is_next = span and (int(span[1]), span[2]) == (
      partial.size,
      str(partial.num_bytes),
    )
    if is_next and fields.get('ETag', partial.version) == partial.version:
      return
    partial.remove()
    raise _ChangedError
  version = fields.get('ETag', '')
  num_bytes = fields.get('Content-Length', '')
  partial.begin(
    '' if version.startswith('W/') else version,  # Weak ones can't be resumed.
    int(num_bytes) if num_bytes.isdecimal() else None,
    _md5(fields),
  )


def _copy(body: Any, partial: Partial, url: str) -> None:
  """Appends the body to `partial`."""
  offset = size = partial.size
  mark = time.monotonic(), size
  with progress(url, partial) as advance, open(partial.path, 'ab') as file:
    while chunk := body.read1(_CHUNK_BYTES):
      if not size and chunk.lstrip(b'\xef\xbb\xbf \r\n')[:1] == b'<':
        partial.remove()
        raise UnavailableError('a web page came in place of the file')
      file.write(chunk)
      file.flush()
      size += len(chunk)
      advance(size)
      elapsed = time.monotonic() - mark[0]
      if elapsed >= SLOW_SECONDS:
        if is_slow(size - mark[1], elapsed):
          reason = f'{size - mark[1]} bytes in {elapsed:.0f} seconds'
          raise UnavailableError(_kept(reason, partial))
        mark = time.monotonic(), size
  if partial.num_bytes is not None and size < partial.num_bytes:
    raise _CutError(f'the connection was cut after {size - offset} bytes')
  if not size:
    partial.remove()
    raise UnavailableError('an empty file')


def first_answer(host: str, ask: Callable[[], _Result]) -> _Result:
  """Returns `ask()`, or gives up when it takes too long.

  Name look-ups and slow headers obey no timeout of a socket, so it is asked in
  a thread, which is left to itself if it doesn't come back.
  """
  since = time.monotonic() - _silent_hosts.get(host, -SILENCE_SECONDS)
  if since < SILENCE_SECONDS:
    raise UnavailableError(
      f'not asked, because it gave no answer {since:.0f} seconds ago'
    )
  results: list[_Result] = []
  failures: list[Exception] = []
  is_late = threading.Event()

  def run() -> None:
    try:
      results.append(ask())
      if is_late.is_set() and hasattr(results[0], 'close'):
        results[0].close()  # type: ignore[attr-defined]
    except Exception as error:
      failures.append(error)

  thread = threading.Thread(target=run, daemon=True)
  thread.start()
  thread.join(FIRST_BYTE_SECONDS)
  if failures:
    raise failures[0]
  if not results:
    is_late.set()
    raise UnavailableError(keeps_silent(host))
  return results[0]


def keeps_silent(host: str) -> str:
  """Notes that a host gave no answer in time, and returns that as a reason."""
  _silent_hosts[host] = time.monotonic()
  return f'no answer within {FIRST_BYTE_SECONDS:.0f} seconds'


def is_slow(num_bytes: int, seconds: float) -> bool:
  """Whether that is too little to wait for the rest."""
  return num_bytes * SLOW_SECONDS < SLOW_BYTES * seconds


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


def reason_of(error: Exception) -> str:
  """Returns what went wrong on the way to a server, in one line."""
  text = str(error)
  if 'Name or service not known' in text or 'NameResolution' in text:
    return "the host's name is unknown (is there a network?)"
  if 'Connection refused' in text:
    return 'connection refused'
  if 'CERTIFICATE_VERIFY_FAILED' in text:
    return 'its certificate could not be verified'
  return f'{type(error).__name__}: {text[:200]}'


def _md5(fields: Any) -> str:
  """Returns the sum that Google's storage states, in hexadecimal, or ''."""
  if fields.get('x-goog-stored-content-encoding', 'identity') != 'identity':
    return ''  # It is of the compressed bytes.
  found = re.search(r'md5=([A-Za-z0-9+/=]{24})', fields.get('x-goog-hash', ''))
  return base64.b64decode(found[1]).hex() if found else ''
