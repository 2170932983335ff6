"""Fetches an image from the web, in ten seconds or not at all."""

import threading
import time

from vit_jax import environment, errors
from vit_jax.data import decode

_FETCH_SECONDS = 10.0
# How long a host that did not answer is not asked again: there may be many
# more images to fetch from it, and the user waits.
_SILENCE_SECONDS = 60.0

_silent_hosts: dict[str, float] = {}  # Since when, of `time.monotonic`.


def fetch(url: str, max_bytes: int) -> bytes:
  """Returns what is at an address.

  Args:
    url: begins with http:// or https://.
    max_bytes: of an image; what sends more is given up.

  Raises:
    DataError: it can not be fetched, or comes not within ten seconds.
  """
  host = url.split('/')[2]
  if environment.is_offline():
    raise _unfetched(url, 'VIT_JAX_OFFLINE or HF_HUB_OFFLINE forbids it')
  silent = time.monotonic() - _silent_hosts.get(host, -float('inf'))
  if silent < _SILENCE_SECONDS:
    raise _unfetched(url, f'{host} did not answer {silent:.0f} seconds ago')
  # No timeout of requests' is one for looking up a name, nor for the whole of
  # an answer that trickles. A daemon is not waited for at exit.
  download = _Download(url, max_bytes)
  thread = threading.Thread(target=download.run, daemon=True)
  thread.start()
  start = time.monotonic()
  thread.join(_FETCH_SECONDS)
  # What fails at once, such as a refused connection, costs nothing to repeat.
  if not download.is_answered and time.monotonic() - start > _FETCH_SECONDS / 4:
    _silent_hosts[host] = time.monotonic()
  if download.content is None:
    error = download.error or TimeoutError(
      f'not all of it came in {_FETCH_SECONDS:g} seconds'
    )
    raise _unfetched(url, _reason(error)) from error
  return download.content


class _Download:
  """One try to fetch what is at an address.

  Attributes:
    is_answered: whether the host has said anything.
    content: if all went well.
    error: if not.
  """

  def __init__(self, url: str, max_bytes: int):
    self.url = url
    self.max_bytes = max_bytes
    self.is_answered = False
    self.content: bytes | None = None
    self.error: Exception | None = None

  def run(self) -> None:
    try:
      self.content = self._get()
    # It is told in the thread that waits; an address can fail in many ways.
    except Exception as error:
      self.error = error

  def _get(self) -> bytes:
    import requests

    response = requests.get(self.url, stream=True, timeout=_FETCH_SECONDS)
    with response:
      self.is_answered = True
      if not response.ok:
        raise ValueError(f'{response.status_code} {response.reason}')
      content = bytearray()
      for chunk in response.iter_content(1 << 16):
        content += chunk
        if len(content) > self.max_bytes:
          raise ValueError(f'more than {self.max_bytes:,} bytes')
      return bytes(content)


def _unfetched(url: str, reason: str) -> errors.DataError:
  return errors.DataError(
    f'{decode.shown(url)}: can not be fetched ({reason}). Download the image '
    'by other means and give the file.'
  )


def _reason(error: Exception) -> str:
  """Returns what is wrong, without what was tried how often to reach it."""
  inner = error.args[0] if error.args else error
  text = errors.first_line(getattr(inner, 'reason', None) or error)
  return text.rpartition('): ')[2]  # "HTTPSConnection(host=...): Failed to".
