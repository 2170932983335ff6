"""Downloads of `gs://` addresses, with credentials and without."""

import base64
import hashlib
import pathlib
import sys
import types

import pytest
from file_server import CONTENT, Answer

from vit_jax import errors
from vit_jax.checkpoints.locate import locate
from vit_jax.checkpoints.remote import bucket, download

# Nothing is contacted but the server.
pytestmark = pytest.mark.usefixtures('empty_cache')


def error_of(*args, **kwargs) -> str:
  with pytest.raises(errors.CheckpointNotFoundError) as caught:
    locate(*args, **kwargs)
  return str(caught.value)


class FakeGcsfs(types.ModuleType):
  """Serves `content` as the user's credentials would; or raises `error`."""

  def __init__(self, content: bytes, error: Exception | None = None):
    super().__init__('gcsfs.core')
    self.content, self.error = content, error
    self.reads: list[tuple[int, int]] = []
    self.GCSFileSystem = lambda: self

  def info(self, path: str) -> dict:
    if self.error:
      raise self.error
    assert path == 'mine/w.npz'
    md5 = hashlib.md5(self.content).digest()
    sum_of_it = base64.b64encode(md5).decode()
    return {'size': len(self.content), 'etag': 'CJ/x', 'md5Hash': sum_of_it}

  def cat_file(self, path: str, start: int, end: int) -> bytes:
    self.reads.append((start, end))
    return self.content[start:end]


def test_credentials(server, monkeypatch):
  content = CONTENT * 5000
  fake = FakeGcsfs(content)
  monkeypatch.setitem(sys.modules, 'gcsfs.core', fake)
  path = locate('gs://mine/w.npz')
  assert pathlib.Path(path).read_bytes() == content
  assert not server.requests
  sizes = [end - start for start, end in fake.reads]
  assert sizes[1] == 2 * sizes[0] and sum(sizes) == len(content)


def test_piece_that_is_too_short(server, monkeypatch):
  fake = FakeGcsfs(CONTENT)
  fake.cat_file = lambda path, start, end: CONTENT[start : end - 1]
  monkeypatch.setitem(sys.modules, 'gcsfs.core', fake)
  text = error_of('gs://mine/w.npz')
  assert 'gcsfs: 19291 bytes came of 19292; without: HTTP 404' in text


def test_download_that_begins_in_public_goes_on_with_credentials(
  server, monkeypatch
):
  monkeypatch.setattr(download, 'MAX_RESUMES', 1)
  server.give('/mine/w.npz', Answer(CONTENT, cut_after=17))
  assert '17 of 19,292 bytes are kept' in error_of('gs://mine/w.npz')
  fake = FakeGcsfs(CONTENT)
  monkeypatch.setitem(sys.modules, 'gcsfs.core', fake)
  assert pathlib.Path(locate('gs://mine/w.npz')).read_bytes() == CONTENT
  assert fake.reads == [(17, len(CONTENT))]


def test_without_credentials_that_work_the_public_address_is_asked(
  server, monkeypatch
):
  fake = FakeGcsfs(b'', PermissionError('Forbidden: mine/w.npz\nmore'))
  monkeypatch.setitem(sys.modules, 'gcsfs.core', fake)
  text = error_of('gs://mine/w.npz')
  assert (
    'through gcsfs: PermissionError: Forbidden: mine/w.npz; without: HTTP 404'
  ) in text
  server.give('/mine/w.npz', Answer(CONTENT))
  assert pathlib.Path(locate('gs://mine/w.npz')).read_bytes() == CONTENT


def test_public_address(monkeypatch):
  address = 'gs://vit_models/imagenet21k+imagenet2012/ViT-B_16.npz'
  path = 'vit_models/imagenet21k%2Bimagenet2012/ViT-B_16.npz'
  assert bucket.public_address(address) == f'https://{bucket.HOST}/{path}'
  monkeypatch.setenv('STORAGE_EMULATOR_HOST', 'localhost:9')
  assert bucket.public_address(address) == f'http://localhost:9/{path}'
