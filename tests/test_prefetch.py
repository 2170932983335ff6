"""Batches come in order, ahead of their use, and errors at their place."""

import contextlib
import itertools
import threading
import time

import pytest

from vit_jax.data.prefetch import Prefetch

SECONDS = 20  # More than any machine needs for what is waited for here.


def wait_until(condition):
  end = time.monotonic() + SECONDS
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.001)


@pytest.mark.parametrize('size', [1, 2, 5])
@pytest.mark.parametrize('count', [0, 1, 3, 7])
def test_all_come_in_order_and_the_end_stays(size, count):
  found = Prefetch(iter(range(count)), lambda x: x * x, size)
  assert list(found) == [x * x for x in range(count)]
  assert list(found) == []


@pytest.mark.parametrize('size', [1, 2, 3])
def test_so_many_are_put_ahead_and_no_more(size):
  put = []
  batches = Prefetch(itertools.count(), put.append, size)
  with contextlib.closing(batches):
    for i in range(5):
      wait_until(lambda i=i: len(put) == i + size)
      time.sleep(0.01)
      assert put == list(range(i + size))
      next(batches)


def test_is_ready_tells_whether_a_batch_is_there():
  release = threading.Semaphore(0)

  def slow():
    for i in range(2):
      release.acquire()
      yield i

  batches = Prefetch(slow(), str)
  assert not batches.is_ready()
  release.release()
  wait_until(batches.is_ready)
  assert next(batches) == '0'
  assert not batches.is_ready()
  release.release()
  assert next(batches) == '1'


@pytest.mark.parametrize('size', [1, 3])
def test_error_comes_after_what_was_whole(size):
  def broken():
    yield from range(4)
    raise ValueError('the fifth')

  batches = Prefetch(broken(), str, size)
  assert [next(batches) for _ in range(4)] == ['0', '1', '2', '3']
  for _ in range(2):
    with pytest.raises(ValueError, match='the fifth'):
      next(batches)


def test_closing_ends_the_thread():
  before = threading.active_count()
  batches = Prefetch(itertools.count(), str)
  next(batches)
  assert threading.active_count() == before + 1
  batches.close()
  assert threading.active_count() == before
