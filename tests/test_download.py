"""Downloads from a server that breaks off, stalls, lies and changes files."""

import base64
import dataclasses
import errno
import hashlib
import multiprocessing
import pathlib
import threading

import file_server
import filelock
import pytest
from file_server import Answer

from vit_jax import errors
from vit_jax.checkpoints.remote import download, partial, patience
from vit_jax.checkpoints.remote.reasons import UnavailableError

CONTENT = b'PK' + bytes(range(251)) * 1009  # Longer than a socket's buffer.
OTHER = b'PK' + CONTENT[:1:-1]
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(scope='module')
def running():
  with file_server.serve() as server:
    yield server


@pytest.fixture
def server(running, monkeypatch):
  """The server, with nothing on it, and no proxy before it."""
  running.answers.clear()
  running.requests.clear()
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  monkeypatch.setattr(patience, '_useless_hosts', {})
  return running


@pytest.fixture
def target(tmp_path) -> pathlib.Path:
  return tmp_path / 'cache' / 'ViT-B_16.npz'


def fetch(server, target, *answers, **kwargs) -> None:
  download.fetch(server.give('/w.npz', *answers), target, **kwargs)


def reason_of(server, target, *answers, **kwargs) -> str:
  with pytest.raises(UnavailableError) as caught:
    fetch(server, target, *answers, **kwargs)
  assert not target.exists()
  return str(caught.value)


def part_of(target: pathlib.Path) -> pathlib.Path:
  return target.with_name(f'{target.name}.partial')


def left(target: pathlib.Path) -> set[str]:
  """Returns the names of what is visible beside `target`."""
  return {p.name for p in target.parent.iterdir() if p.name[0] != '.'}


def ranges(server) -> list[str | None]:
  return [fields.get('Range') for _, _, fields in server.requests]


def test_whole_file(server, target):
  fetch(server, target, Answer(CONTENT), sha256=SHA256)
  assert target.read_bytes() == CONTENT
  assert left(target) == {target.name}
  assert ranges(server) == [None]


def test_one_line_tells_of_a_download(server, target, capfd):
  fetch(server, target, Answer(CONTENT))
  url = f'{server.address}/w.npz'
  assert capfd.readouterr() == (
    '', f'Downloading {url} ({len(CONTENT):,} bytes)\n'
  )  # fmt: skip


def test_bar_on_a_terminal(server, target, capfd, monkeypatch):
  monkeypatch.setenv('FORCE_COLOR', '1')
  fetch(server, target, Answer(CONTENT))
  text = capfd.readouterr().err
  assert 'w.npz' in text and 'Downloading' not in text


def test_cut_connections_are_resumed(server, target):
  cut = Answer(CONTENT, cut_after=100_003)
  fetch(server, target, cut, cut, Answer(CONTENT), sha256=SHA256)
  assert target.read_bytes() == CONTENT
  assert ranges(server) == [None, 'bytes=100003-', 'bytes=200006-']
  assert left(target) == {target.name}


def test_server_without_ranges_begins_anew(server, target):
  cut = Answer(CONTENT, cut_after=100_003, has_ranges=False)
  fetch(server, target, cut, Answer(CONTENT, has_ranges=False))
  assert target.read_bytes() == CONTENT


def test_server_without_versions_begins_anew(server, target):
  fetch(
    server, target,
    Answer(CONTENT, cut_after=100_003, etag=''), Answer(CONTENT, etag=''),
  )  # fmt: skip
  assert target.read_bytes() == CONTENT
  assert ranges(server) == [None, None]


def test_content_that_changes_between_the_attempts_is_not_mixed(server, target):
  fetch(server, target, Answer(CONTENT, cut_after=100_003), Answer(OTHER))
  assert target.read_bytes() == OTHER


def test_version_is_asked_for_and_looked_at(server, target):
  fetch(
    server, target,
    Answer(CONTENT, cut_after=100_003),
    Answer(OTHER, heeds_if_range=False),
    Answer(OTHER),
  )  # fmt: skip
  assert target.read_bytes() == OTHER
  etag = f'"{hashlib.md5(CONTENT).hexdigest()}"'
  assert server.requests[1][2]['If-Range'] == etag
  assert ranges(server) == [None, 'bytes=100003-', None]


def test_weak_versions_are_not_resumed(server, target):
  cut = Answer(CONTENT, cut_after=100_003, etag='W/"1"')
  fetch(server, target, cut, Answer(CONTENT, etag='W/"1"'))
  assert target.read_bytes() == CONTENT
  assert ranges(server) == [None, None]


DATE = 'Wed, 21 Oct 2015 07:28:00 GMT'


@pytest.mark.parametrize('etag', ['', 'W/"1"'])
def test_date_stands_for_the_version(server, target, etag):
  fields = {'Last-Modified': DATE}
  whole = Answer(CONTENT, etag=etag, headers=fields)
  cut = dataclasses.replace(whole, cut_after=100_003)
  fetch(server, target, cut, whole, sha256=SHA256)
  assert target.read_bytes() == CONTENT
  assert ranges(server) == [None, 'bytes=100003-']
  assert server.requests[1][2]['If-Range'] == DATE


@pytest.mark.parametrize('heeds', [True, False])
def test_other_date_begins_anew(server, target, heeds):
  fields = {'Last-Modified': DATE.replace('2015', '2016')}
  cut = Answer(
    CONTENT, cut_after=100_003, etag='', headers={'Last-Modified': DATE}
  )
  other = Answer(OTHER, etag='', headers=fields, heeds_if_range=heeds)
  fetch(server, target, cut, other)
  assert target.read_bytes() == OTHER


def test_version_goes_before_the_date(server, target):
  whole = Answer(CONTENT, etag='"1"', headers={'Last-Modified': DATE})
  fetch(server, target, dataclasses.replace(whole, cut_after=100_003), whole)
  assert server.requests[1][2]['If-Range'] == '"1"'


def test_date_of_what_is_made_as_it_is_asked_for_is_no_version():
  assert download._version({'Last-Modified': DATE, 'Date': DATE}) == ''
  assert download._version({'Last-Modified': 'yesterday'}) == ''


def test_bytes_are_asked_for_as_they_are(server, target):
  fetch(server, target, Answer(CONTENT))
  assert server.requests[0][2]['Accept-Encoding'] == 'identity'


def test_empty_file_is_refused(server, target):
  assert 'an empty file' in reason_of(server, target, Answer(b''))
  assert not left(target)


def test_server_that_always_cuts_at_the_same_byte_is_given_up(server, target):
  cut = Answer(CONTENT, cut_after=1009, has_ranges=False)
  text = reason_of(server, target, cut)
  assert 'the connection' in text
  assert '1,009 of 253,261 bytes are kept' in text
  assert len(server.requests) == 2


def test_server_that_cuts_again_and_again_is_given_up(server, target):
  text = reason_of(server, target, Answer(CONTENT, cut_after=1009))
  assert f'broke {download.MAX_RESUMES} times' in text
  assert len(server.requests) == download.MAX_RESUMES


def test_next_process_goes_on_where_one_stopped(server, target, monkeypatch):
  monkeypatch.setattr(download, 'MAX_RESUMES', 1)
  reason_of(server, target, Answer(CONTENT, cut_after=100_003))
  assert part_of(target).read_bytes() == CONTENT[:100_003]
  fetch(server, target, Answer(CONTENT), sha256=SHA256)
  assert target.read_bytes() == CONTENT
  assert ranges(server) == [None, 'bytes=100003-']


def test_part_that_is_whole_needs_no_server(server, target):
  part = partial.Partial.of(target)
  target.parent.mkdir()
  part.begin('"x"', len(CONTENT), hashlib.md5(CONTENT).hexdigest())
  part.path.write_bytes(CONTENT)
  fetch(server, target, sha256=SHA256)
  assert target.read_bytes() == CONTENT
  assert not server.requests


@pytest.mark.parametrize('damage', ['longer', 'no notes', 'bad notes'])
def test_part_that_makes_no_sense_is_dropped(server, target, damage):
  part = partial.Partial.of(target)
  target.parent.mkdir()
  part.begin('"x"', len(CONTENT), '')
  notes = target.with_name(f'{target.name}.partial.json')
  part.path.write_bytes(CONTENT[::-1] + b'!')
  if damage != 'longer':
    part.path.write_bytes(CONTENT[:-2:-1])
    notes.write_bytes(b'{"version": 1}')
  if damage == 'no notes':
    notes.unlink()
  fetch(server, target, Answer(CONTENT))
  assert target.read_bytes() == CONTENT
  assert ranges(server) == [None]


@pytest.mark.parametrize('status', [401, 403, 404, 500, 503])
def test_refusals(server, target, status):
  with pytest.raises(UnavailableError, match=f'HTTP {status} ') as caught:
    fetch(server, target, Answer(b'<Error/>', status=status))
  assert caught.value.status == status
  assert not left(target)


def test_range_that_is_not_to_be_had_begins_anew(server, target):
  cut = Answer(CONTENT, cut_after=100_003)
  fetch(server, target, cut, Answer(status=416), Answer(CONTENT))
  assert target.read_bytes() == CONTENT


def test_redirect(server, target):
  url = server.give('/signed/blob', Answer(CONTENT))
  fetch(server, target, Answer(status=302, headers={'Location': url}))
  assert target.read_bytes() == CONTENT


def test_authorization_does_not_follow_to_another_host(server, target):
  with file_server.serve() as other:
    url = other.give('/blob', Answer(CONTENT)).replace('127.0.0.1', 'localhost')
    fetch(
      server, target, Answer(status=302, headers={'Location': url}),
      headers={'authorization': 'Bearer secret'},
    )  # fmt: skip
    assert server.requests[0][2]['authorization'] == 'Bearer secret'
    assert other.requests[0][2]['authorization'] is None


@pytest.mark.parametrize(
  'content', [b'<!DOCTYPE html>', b'\n <html>' + CONTENT]
)
def test_web_page_is_refused(server, target, content):
  text = reason_of(server, target, Answer(content))
  assert 'a web page came' in text


def test_body_shorter_than_promised(server, target):
  text = reason_of(server, target, Answer(CONTENT, length=10**7, etag=''))
  assert 'cut after 253261 bytes' in text or 'broke' in text


def test_wrong_sha256_leaves_nothing(server, target):
  text = reason_of(server, target, Answer(CONTENT), sha256='0' * 64)
  assert f'wrong sha256: expected {"0" * 64}, got {SHA256}' in text
  assert not left(target)


def test_sum_that_the_storage_states_is_checked(server, target):
  def stated(content: bytes) -> Answer:
    md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
    return Answer(
      CONTENT, headers={'x-goog-hash': f'crc32c=n03x6A==,md5={md5}'}
    )

  text = reason_of(server, target, stated(b'other'))
  assert 'wrong md5' in text
  assert not left(target)
  fetch(server, target, stated(CONTENT))
  assert target.read_bytes() == CONTENT


def test_sum_of_compressed_bytes_is_not_that_of_the_file(server, target):
  fields = {
    'x-goog-hash': 'md5=AAAAAAAAAAAAAAAAAAAAAA==',
    'x-goog-stored-content-encoding': 'gzip',
  }
  fetch(server, target, Answer(CONTENT, headers=fields))
  assert target.read_bytes() == CONTENT


def test_host_that_refuses_connections(target, monkeypatch):
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  with file_server.serve() as gone:
    pass
  with pytest.raises(UnavailableError, match='connection refused'):
    download.fetch(f'{gone.address}/w.npz', target)


def test_full_disk_is_told_and_what_came_is_kept(server, target, monkeypatch):
  copy = download._copy

  def fill(body, part, url, watch):
    copy(body, part, url, watch)
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(download, '_copy', fill)
  with pytest.raises(errors.CheckpointNotFoundError) as caught:
    fetch(server, target, Answer(CONTENT))
  assert f'No space left for {target}' in str(caught.value)
  assert 'VIT_JAX_CACHE' in str(caught.value)
  assert part_of(target).exists()


def test_place_that_can_not_be_written(server, tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(errors.CheckpointNotFoundError, match='VIT_JAX_CACHE'):
    fetch(server, tmp_path / 'file' / 'w.npz', Answer(CONTENT))


def fetch_elsewhere(url: str, target: pathlib.Path) -> None:
  download.fetch(url, target)


def test_one_process_downloads_for_all(server, target):
  url = server.give('/w.npz', Answer(CONTENT))
  threads = [
    threading.Thread(target=fetch_elsewhere, args=(url, target))
    for _ in range(3)
  ]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert target.read_bytes() == CONTENT
  assert len(server.requests) == 1


def hold(path: str, ready, done) -> None:
  with filelock.FileLock(path):
    ready.set()
    done.wait(10)


def test_process_that_gets_nowhere_is_not_waited_for(
  server, target, monkeypatch
):
  monkeypatch.setattr(partial, 'LOCK_SECONDS', 0.1)
  context = multiprocessing.get_context('spawn')
  ready, done = context.Event(), context.Event()
  target.parent.mkdir()
  lock = str(target.with_name(f'.{target.name}.lock'))
  holder = context.Process(target=hold, args=(lock, ready, done))
  holder.start()
  try:
    assert ready.wait(20)
    text = reason_of(server, target, Answer(CONTENT))
  finally:
    done.set()
    holder.join()
  assert 'another process' in text
