"""How long servers that are silent, stall or trickle are waited for."""

import pathlib
import time

import pytest
from file_server import CONTENT, Answer

from vit_jax.checkpoints.remote import download, patience
from vit_jax.checkpoints.remote.reasons import UnavailableError


@pytest.fixture
def target(tmp_path) -> pathlib.Path:
  return tmp_path / 'cache' / 'ViT-B_16.npz'


def fetch(server, target, answer) -> None:
  download.fetch(server.give('/w.npz', answer), target)


def reason_of(server, target, answer) -> str:
  with pytest.raises(UnavailableError) as caught:
    fetch(server, target, answer)
  assert not target.exists()
  return str(caught.value)


def test_server_that_never_answers_is_asked_once(server, target, monkeypatch):
  monkeypatch.setattr(patience, 'FIRST_BYTE_SECONDS', 0.1)
  start = time.monotonic()
  assert 'no answer within' in reason_of(server, target, Answer(is_silent=True))
  text = reason_of(server, target, Answer(is_silent=True))
  assert 'not asked, because it gave no answer' in text
  assert time.monotonic() - start < 5
  assert len(server.requests) == 1
  monkeypatch.setattr(patience, 'SILENCE_SECONDS', 0.0)
  fetch(server, target, Answer(CONTENT))


def test_server_that_stops_sending(server, target, monkeypatch):
  monkeypatch.setattr(patience, 'STALL_SECONDS', 0.4)
  text = reason_of(server, target, Answer(CONTENT[:3], length=99, pause=0.9))
  assert 'no bytes for' in text
  assert '1 of 99 bytes are kept' in text
  text = reason_of(server, target, Answer(CONTENT))
  assert 'not asked, because it stopped sending 0 seconds ago' in text


def test_server_that_trickles(server, target, monkeypatch):
  monkeypatch.setattr(patience, 'SLOW_SECONDS', 0.1)
  text = reason_of(server, target, Answer(CONTENT, pause=0.01))
  assert 'bytes in' in text and 'are kept' in text
  again = reason_of(server, target, Answer(CONTENT))
  assert 'not asked, because it was too slow 0 seconds ago' in again
  assert (target.parent / 'ViT-B_16.npz.partial').stat().st_size < 100


def test_blocked_read_is_ended_with_the_patience(server, target):
  start = time.monotonic()
  with patience.limit(1.0):
    text = reason_of(server, target, Answer(CONTENT[:3], length=99, pause=9.0))
    assert patience.left() <= 0
    again = reason_of(server, target, Answer(CONTENT))
  assert 1 < time.monotonic() - start < 4
  assert '1 bytes in ' in text and '; 1 of 99 bytes are kept' in text
  assert 'not asked' in again
  assert patience.left() == float('inf')


def test_body_without_a_length_that_is_given_up_is_not_whole(server, target):
  with patience.limit(1.0):
    reason_of(server, target, Answer(CONTENT, pause=9.0, has_length=False))


def test_useful_download_takes_its_time(server, target, monkeypatch):
  monkeypatch.setattr(patience, 'SLOW_BYTES', 3)
  monkeypatch.setattr(patience, 'SLOW_SECONDS', 0.1)
  with patience.limit(0.3):
    fetch(server, target, Answer(CONTENT[:60], pause=0.01))
    assert patience.left() > 0.1


def test_outer_limit_counts():
  with patience.limit(3.0), patience.limit(9.0):
    patience.spend(1.0)
    assert patience.left() == 2.0
