"""Batches come in order, ahead of their use, and errors at their place."""

import itertools

import pytest

from vit_jax.data.prefetch import prefetch


@pytest.mark.parametrize('size', [0, 1, 2, 5])
@pytest.mark.parametrize('count', [0, 1, 3, 7])
def test_all_come_in_order(size, count):
  found = prefetch(iter(range(count)), lambda x: x * x, size)
  assert list(found) == [x * x for x in range(count)]


@pytest.mark.parametrize('size', [0, 1, 2])
def test_so_many_are_put_ahead(size):
  put = []
  batches = prefetch(itertools.count(), put.append, size)
  for i in range(5):
    next(batches)
    assert put == list(range(i + 1 + size))


@pytest.mark.parametrize('size', [0, 1, 3])
def test_error_comes_after_what_was_whole(size):
  def broken():
    yield from range(4)
    raise ValueError('the fifth')

  batches = prefetch(broken(), str, size)
  assert [next(batches) for _ in range(4)] == ['0', '1', '2', '3']
  with pytest.raises(ValueError, match='the fifth'):
    next(batches)
