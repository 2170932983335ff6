"""What `hf://` addresses give, asked of a stand-in for Hugging Face."""

import hashlib
import json
import pathlib
import sys

import file_server
import pytest
from file_server import COMMIT, CONTENT, Answer

from vit_jax import errors
from vit_jax.checkpoints.remote import hub, patience
from vit_jax.checkpoints.remote.reasons import UnavailableError

SHA256 = hashlib.sha256(CONTENT).hexdigest()
REPO = 'timm/vit_mini.orig'


@pytest.fixture
def server(tmp_path, monkeypatch):
  """A server in place of Hugging Face, and no cache or token of the user's."""
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path / 'theirs'))
  monkeypatch.setenv('HF_TOKEN', 'hf_secret')
  monkeypatch.setattr(patience, '_useless_hosts', {})
  with file_server.serve() as running:
    monkeypatch.setenv('HF_ENDPOINT', running.address)
    yield running


@pytest.fixture
def cache(tmp_path) -> pathlib.Path:
  return tmp_path / 'ours'


def publish(
  server, file: str, revision: str = 'main', tag: str = SHA256
) -> None:
  fields = {'X-Repo-Commit': COMMIT}
  server.give(
    f'/{REPO}/resolve/{revision}/{file}',
    Answer(CONTENT, etag=f'"{tag}"', headers=fields),
  )


def list_files(server, *files: str, revision: str = 'main') -> None:
  siblings = [{'rfilename': file} for file in files]
  info = {'id': REPO, 'sha': COMMIT, 'siblings': siblings}
  server.give(
    f'/api/models/{REPO}/revision/{revision}',
    Answer(
      json.dumps(info).encode(), headers={'Content-Type': 'application/json'}
    ),
  )


def missing(server, code: str) -> Answer:
  return Answer(status=404, headers={'X-Error-Code': code})


@pytest.mark.parametrize(('address', 'parts'), [
  ('hf://a/b', ('a/b', '', 'main')),
  ('hf://a/b/', ('a/b', '', 'main')),
  ('hf://a/b/w.npz', ('a/b', 'w.npz', 'main')),
  ('hf://a/b/c/w.npz@v1', ('a/b', 'c/w.npz', 'v1')),
  ('hf://a/b@refs/pr/3', ('a/b', '', 'refs/pr/3')),
  ('hf://a/b/w.npz@refs/pr/3', ('a/b', 'w.npz', 'refs/pr/3')),
  ('hf://a/b@refs/pr/3/c/w.npz', ('a/b', 'c/w.npz', 'refs/pr/3')),
  ('hf://a/b@v1/w.npz', ('a/b', 'w.npz', 'v1')),
  ('hf://timm/vit.orig_in21k@abc', ('timm/vit.orig_in21k', '', 'abc')),
])  # fmt: skip
def test_address(address, parts):
  assert hub.Address.of(address) == hub.Address(*parts)


@pytest.mark.parametrize(
  'address', ['hf://', 'hf://a', 'hf://a//b', 'hf://a/b/../../c', 'hf://@/b']
)
def test_address_that_is_none(address):
  with pytest.raises(errors.CheckpointNotFoundError, match='hf://OWNER/REPO'):
    hub.Address.of(address)


def test_file_of_a_repository(server, cache):
  publish(server, 'w.npz', 'v1', tag='a' * 40)
  path = hub.fetch(f'hf://{REPO}/w.npz@v1', cache, ())
  assert path == f'{cache}/huggingface.co/{REPO}/v1/w.npz'
  assert pathlib.Path(path).read_bytes() == CONTENT
  assert hub.cached(f'hf://{REPO}/w.npz@v1', cache, (), False) == path
  assert hub.cached(f'hf://{REPO}/w.npz', cache, (), False) == ''


def test_token_goes_along(server, cache):
  publish(server, 'model.safetensors')
  hub.fetch(f'hf://{REPO}', cache, ())
  for _, _, fields in server.requests:
    assert fields['authorization'] == 'Bearer hf_secret'


def test_weights_that_are_not_named(server, cache):
  publish(server, 'model.safetensors')
  path = hub.fetch(f'hf://{REPO}', cache, ())
  assert path == f'{cache}/huggingface.co/{REPO}/main/model.safetensors'
  assert hub.cached(f'hf://{REPO}', cache, (), False) == path
  assert not any('api' in path for _, path, _ in server.requests)


@pytest.mark.parametrize('name', ['weights.npz', 'w.safetensors'])
def test_only_weight_file(server, cache, name):
  list_files(server, 'README.md', 'config.json', name, 'pytorch_model.bin')
  server.give(
    f'/{REPO}/resolve/main/model.safetensors', missing(server, 'EntryNotFound')
  )
  publish(server, name)
  path = hub.fetch(f'hf://{REPO}', cache, ())
  assert pathlib.Path(path).name == name
  assert hub.cached(f'hf://{REPO}', cache, (), False) == path


def test_several_weight_files_are_listed(server, cache):
  list_files(server, 'b.npz', 'a.safetensors')
  server.give(
    f'/{REPO}/resolve/main/model.safetensors', missing(server, 'EntryNotFound')
  )
  with pytest.raises(UnavailableError, match=r'/FILE: a\.safetensors, b\.npz'):
    hub.fetch(f'hf://{REPO}', cache, ())
  publish(server, 'b.npz')
  path = hub.fetch(f'hf://{REPO}', cache, ('b.npz', 'b.safetensors'))
  assert pathlib.Path(path).name == 'b.npz'


def test_name_chooses_among_the_files_of_the_cache(cache):
  folder = cache / 'huggingface.co' / REPO / 'main'
  folder.mkdir(parents=True)
  for name in ('a.npz', 'b.npz'):
    (folder / name).touch()
  assert hub.cached(f'hf://{REPO}', cache, (), True) == ''
  names = ('b.npz', 'b.safetensors')
  assert hub.cached(f'hf://{REPO}', cache, names, True) == str(folder / 'b.npz')


def test_file_that_was_named_is_not_taken_for_the_one_that_is_not(
  server, cache
):
  list_files(server, 'head.npz', 'model.safetensors')
  publish(server, 'head.npz')
  publish(server, 'model.safetensors')
  address = f'hf://{REPO}'
  head = hub.fetch(f'{address}/head.npz', cache, ())
  assert hub.cached(address, cache, (), False) == ''
  assert hub.cached(address, cache, ('head.npz',), False) == ''
  assert hub.cached(address, cache, (), True) == head
  path = hub.fetch(address, cache, ())
  assert path.endswith('/model.safetensors')
  assert hub.cached(address, cache, (), False) == path


def test_choice_among_the_files_is_remembered(server, cache):
  list_files(server, 'b.npz', 'a.npz')
  server.give(
    f'/{REPO}/resolve/main/model.safetensors', missing(server, 'EntryNotFound')
  )
  publish(server, 'a.npz')
  publish(server, 'b.npz')
  address = f'hf://{REPO}'
  a, b = (hub.fetch(address, cache, (f'{each}.npz',)) for each in 'ab')
  assert hub.cached(address, cache, ('a.npz',), False) == a
  assert hub.cached(address, cache, ('b.npz',), False) == b
  assert hub.cached(address, cache, (), False) == ''
  (pathlib.Path(a).parent / '.choices.json').write_text('[1]')
  assert hub.cached(address, cache, ('a.npz',), False) == ''
  assert hub.fetch(address, cache, ('a.npz',)) == a


@pytest.mark.parametrize(('code', 'reason'), [
  ('RepoNotFound', 'no such repository'),
  ('RevisionNotFound', 'no such revision'),
  ('EntryNotFound', 'no such file'),
  ('GatedRepo', 'gated'),
  ('', 'HTTP 404'),
])  # fmt: skip
def test_what_is_missing_is_said(server, cache, code, reason):
  server.give(f'/{REPO}/resolve/main/w.npz', missing(server, code))
  with pytest.raises(UnavailableError, match=reason):
    hub.fetch(f'hf://{REPO}/w.npz', cache, ())


def test_content_is_checked_against_the_sum_that_is_stated(server, cache):
  publish(server, 'w.npz', tag='0' * 64)
  with pytest.raises(UnavailableError, match='wrong sha256: expected 000'):
    hub.fetch(f'hf://{REPO}/w.npz', cache, ())
  assert not hub.cached(f'hf://{REPO}/w.npz', cache, (), False)


def test_silent_hub_is_given_up(server, cache, monkeypatch):
  monkeypatch.setattr(patience, 'FIRST_BYTE_SECONDS', 0.1)
  server.give(f'/{REPO}/resolve/main/w.npz', Answer(is_silent=True))
  with pytest.raises(UnavailableError, match='no answer within'):
    hub.fetch(f'hf://{REPO}/w.npz', cache, ())


def test_what_the_user_has_from_the_hub_is_used(cache, tmp_path, server):
  repo = tmp_path / 'theirs' / f'models--{REPO.replace("/", "--")}'
  snapshot = repo / 'snapshots' / COMMIT
  snapshot.mkdir(parents=True)
  (repo / 'refs').mkdir()
  (repo / 'refs' / 'main').write_text(COMMIT)
  (snapshot / 'model.safetensors').write_bytes(CONTENT)
  expected = str(snapshot / 'model.safetensors')
  # The directory is read from the environment as huggingface_hub starts.
  import huggingface_hub

  look = huggingface_hub.try_to_load_from_cache
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(
      huggingface_hub, 'try_to_load_from_cache',
      lambda *args, **kw: look(*args, cache_dir=tmp_path / 'theirs', **kw),
    )  # fmt: skip
    assert hub.cached(f'hf://{REPO}', cache, (), False) == expected
    assert hub.cached(f'hf://{REPO}@{COMMIT}', cache, (), False) == expected
    assert hub.cached(f'hf://{REPO}@v2', cache, (), False) == ''
  assert not server.requests


def test_looking_into_our_cache_imports_nothing(cache, monkeypatch, tmp_path):
  monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path / 'none'))
  monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
  assert hub.cached(f'hf://{REPO}', cache, (), False) == ''


def test_address_for_a_browser():
  assert hub.page_address('hf://a/b/c d.npz@refs/pr/3') == (
    'https://huggingface.co/a/b/resolve/refs%2Fpr%2F3/c%20d.npz'
  )
  assert hub.page_address('hf://a/b').endswith(
    '/resolve/main/model.safetensors'
  )
