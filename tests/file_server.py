"""A web server on loopback that can misbehave in the ways that servers do."""

import contextlib
import dataclasses
import hashlib
import http.server
import pathlib
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

import pytest

from vit_jax.checkpoints.remote import patience

# Begins as an .npz does, and as a .safetensors file with a header of 0x4b50
# bytes does.
CONTENT = b'PK\0\0\0\0\0\0{' + bytes(range(11)) * 1753
# Where the table has ViT-B_16 of ImageNet-21k on Hugging Face.
ON_HUB = 'timm/vit_base_patch16_224.orig_in21k'
COMMIT = '0123456789abcdef0123456789abcdef01234567'


@dataclasses.dataclass
class Answer:
  """What the server gives for a path, and how."""

  content: bytes = b''
  status: int = 200
  has_ranges: bool = True
  heeds_if_range: bool = True
  etag: str | None = None  # None: from the content; '': none is sent.
  length: int | None = None  # What Content-Length says, if not the truth.
  has_length: bool = True
  cut_after: int | None = None  # Bytes of the body, then the connection breaks.
  is_silent: bool = False  # Never answers.
  delay: float = 0.0  # Seconds before the answer.
  pause: float = 0.0  # Seconds after each of the body's bytes.
  headers: dict[str, str] = dataclasses.field(default_factory=dict)


class FileServer:
  """Serves `answers`, a list for each path; the last one is given for ever.

  Attributes:
    answers: path, decoded -> what each request for it gets in turn.
    requests: (method, path, fields) of every request, in order.
    urls: of every request, with the query, as it was sent.
    address: such as 'http://127.0.0.1:43210'.
  """

  def __init__(self, port: int):
    self.answers: dict[str, list[Answer]] = {}
    self.requests: list[tuple[str, str, Any]] = []
    self.urls: list[str] = []
    self.address = f'http://127.0.0.1:{port}'
    self.closing = threading.Event()

  def give(self, path: str, *answers: Answer) -> str:
    """Sets what a path gives and returns its address."""
    self.answers[path] = list(answers)
    return self.address + urllib.parse.quote(path)

  def asked(self, method: str = 'GET') -> list[str]:
    return [path for each, path, _ in self.requests if each == method]

  def next_answer(self, path: str, is_head: bool) -> Answer:
    answers = self.answers.get(path, [Answer(status=404)])
    return answers[0] if is_head or len(answers) == 1 else answers.pop(0)


@contextlib.contextmanager
def serve() -> Iterator[FileServer]:
  """Runs a server as long as the block."""

  class Handler(_Handler):
    pass

  server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
  server.daemon_threads, server.block_on_close = True, False
  Handler.files = files = FileServer(server.server_port)
  thread = threading.Thread(target=server.serve_forever, args=(0.01,))
  thread.start()
  try:
    yield files
  finally:
    files.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()


def isolate(tmp_path: pathlib.Path, patch: pytest.MonkeyPatch) -> pathlib.Path:
  """Gives a test an empty cache, whose path it returns, and no network."""
  patch.setenv('VIT_JAX_CACHE', str(tmp_path / 'cache'))
  patch.setenv('HF_HUB_CACHE', str(tmp_path / 'theirs'))
  patch.setenv('VIT_JAX_OFFLINE', '1')
  patch.delenv('HF_HUB_OFFLINE', raising=False)
  patch.setitem(sys.modules, 'gcsfs.core', None)
  (tmp_path / 'work').mkdir()
  patch.chdir(tmp_path / 'work')
  return tmp_path / 'cache'


@contextlib.contextmanager
def stand_in(patch: pytest.MonkeyPatch) -> Iterator[FileServer]:
  """Runs a server in place of Google's storage and, at /hub, Hugging Face."""
  patch.delenv('VIT_JAX_OFFLINE', raising=False)
  patch.setenv('NO_PROXY', '127.0.0.1')
  patch.setattr(patience, '_useless_hosts', {})
  with serve() as running:
    patch.setenv('STORAGE_EMULATOR_HOST', running.address)
    patch.setenv('HF_ENDPOINT', f'{running.address}/hub')
    yield running


def give_on_hub(
  server: FileServer, repo: str, content: bytes = CONTENT
) -> None:
  """Publishes a repository's `model.safetensors`."""
  tag = hashlib.sha256(content).hexdigest()
  server.give(
    f'/hub/{repo}/resolve/main/model.safetensors',
    Answer(content, etag=f'"{tag}"', headers={'X-Repo-Commit': COMMIT}),
  )


class _Handler(http.server.BaseHTTPRequestHandler):
  files: FileServer
  protocol_version = 'HTTP/1.1'

  def do_GET(self) -> None:
    self._answer(is_head=False)

  def do_HEAD(self) -> None:
    self._answer(is_head=True)

  def _answer(self, is_head: bool) -> None:
    path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
    self.files.urls.append(self.path)
    self.files.requests.append((self.command, path, self.headers))
    answer = self.files.next_answer(path, is_head)
    self.close_connection = True
    if answer.is_silent:
      self.files.closing.wait(30)
      return
    if self.files.closing.wait(answer.delay):
      return
    content = answer.content
    etag = answer.etag
    if etag is None:
      etag = f'"{hashlib.md5(content).hexdigest()}"'
    self.send_response(*self._status(answer, etag))
    start, end = self._range(answer, etag)
    body = content[start:end]
    if (start, end) != (0, None):
      last = start + len(body) - 1
      self.send_header('Content-Range', f'bytes {start}-{last}/{len(content)}')
    length = len(body) if answer.length is None else answer.length
    if answer.has_length:
      self.send_header('Content-Length', str(length))
    self.send_header('Connection', 'close')
    if etag:
      self.send_header('ETag', etag)
    for name, value in answer.headers.items():
      self.send_header(name, value)
    self.end_headers()
    if not is_head:
      with contextlib.suppress(ConnectionError):
        self._send(body[: answer.cut_after], answer.pause)

  def _range(self, answer: Answer, etag: str) -> tuple[int, int | None]:
    """Returns the part of the content that is asked for; (0, None) is all."""
    wanted = self.headers.get('Range', '')
    versions = (None, etag, answer.headers.get('Last-Modified'))
    is_same = self.headers.get('If-Range') in versions
    is_same = is_same or not answer.heeds_if_range
    if not (answer.status == 200 and wanted and answer.has_ranges and is_same):
      return 0, None
    first, last = wanted.removeprefix('bytes=').split('-')
    return int(first), int(last) + 1 if last else None

  def _status(self, answer: Answer, etag: str) -> tuple[int, str | None]:
    is_part = self._range(answer, etag) != (0, None)
    return (206, None) if is_part else (answer.status, None)

  def _send(self, body: bytes, pause: float) -> None:
    if not pause:
      self.wfile.write(body)
      return
    for byte in body:
      self.wfile.write(bytes([byte]))
      self.wfile.flush()
      if self.files.closing.wait(pause):
        return

  def log_message(self, format: str, *args: Any) -> None:
    """Says nothing."""


def touch(path: pathlib.Path) -> str:
  """Makes an empty file, with the directories above it."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.touch()
  return str(path)
