"""What Orbax leaves behind is dropped, and what others leave is told."""

import asyncio
import gc
import logging
import sys

import pytest
import tensorstore as ts

from vit_jax.checkpoints import leftovers

_READ = """
async def read(pause):
  try:
    await pause
  finally:
    raise ValueError('half way')
"""
ORBAX = '/packages/orbax/checkpoint/read.py'
OTHER = '/packages/other/read.py'


class Pause:
  def __await__(self):
    yield


@pytest.fixture
def told(monkeypatch):
  """Gives the errors that are told of, of those that nobody can catch."""
  found = []
  monkeypatch.setattr(
    sys,
    'unraisablehook',
    lambda unraisable: leftovers._report(found.append, unraisable),
  )
  return found


def drop_half_way(path):
  """Lets a coroutine of that file be collected before it has ended."""
  names = {}
  exec(compile(_READ, path, 'exec'), names)
  coroutine = names['read'](Pause())
  coroutine.send(None)
  del coroutine
  gc.collect()


@pytest.mark.parametrize(('path', 'count'), [(ORBAX, 0), (OTHER, 1)])
def test_coroutines_of_orbax_alone_are_dropped(path, count, told):
  drop_half_way(path)
  assert len(told) == count


@pytest.mark.parametrize(
  ('text', 'count'), [('Event loop is closed', 0), ('of another kind', 1)]
)
def test_late_answers_are_dropped(text, count, told):
  class Thing:
    def __del__(self):
      raise RuntimeError(text)

  Thing()
  gc.collect()
  assert len(told) == count


@pytest.mark.parametrize(('path', 'count'), [(ORBAX, 0), (OTHER, 1)])
def test_asyncio_does_not_tell_of_tasks_of_orbax(path, count, caplog):
  text = f'Task was destroyed but it is pending!\ntask: <Task coro={path}:7>'
  logging.getLogger('asyncio').error(text)
  assert len(caplog.records) == count


def test_asyncio_does_not_tell_of_errors_that_come_from_orbax(caplog):
  names = {}
  exec(compile("def fail():\n  raise ValueError('x')", ORBAX, 'exec'), names)
  try:
    names['fail']()
  except ValueError as error:
    logging.getLogger('asyncio').error('of a future', exc_info=error)
  assert not caplog.records


def test_asyncio_does_not_tell_of_arrays_that_nobody_waits_for(
  tmp_path, caplog
):
  """As Orbax leaves them where its loop ends as soon as one can't be opened."""
  store = {'driver': 'file', 'path': str(tmp_path)}

  async def open_arrays():
    opened = [
      asyncio.ensure_future(ts.open({'driver': 'zarr', 'kvstore': store}))
      for _ in range(3)
    ]
    await asyncio.wait(opened)
    assert 'Error opening "zarr" driver' in str(opened[0].exception())

  asyncio.run(open_arrays())
  gc.collect()
  assert not caplog.records


def test_once_is_enough():
  hook = sys.unraisablehook
  leftovers.drop()
  assert sys.unraisablehook is hook
