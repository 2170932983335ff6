"""One of two processes that restore a sharded state; a test starts both.

Its arguments: the process, the port of the first, the directory of the
checkpoints, and 'save', 'restore' or 'signal'. It prints what it ended with.
"""

import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vit_jax import errors, preemption
from vit_jax.checkpoints.state import (
  Standing,
  StateCheckpoints,
  abstract_state,
)

STEPS = (3, 5)
SIGNAL_AT = 11  # Of the questions whether there was one.


def make_state(step: int):
  """Returns a state, of whose kernel each process holds a half."""
  mesh = jax.make_mesh((2,), ('fsdp',), axis_types=(AxisType.Auto,))
  rng = np.random.default_rng(step)

  def place(value, *axes):
    return jax.make_array_from_callback(
      value.shape,
      NamedSharding(mesh, PartitionSpec(*axes)),
      lambda index: value[index],
    )

  return {
    'kernel': place(rng.normal(size=(64, 31)).astype('f4'), 'fsdp'),
    # In both: one that is packed, and one that is too large for it.
    'bias': place(rng.normal(size=31).astype('f4')),
    'embedding': place(rng.normal(size=(521, 523)).astype('f4')),
  }


def questions_until_interrupted(process: int, meet: Callable[[], None]) -> int:
  """Returns how often one asks while a signal comes to process 1 alone."""
  with preemption.Preemption() as signals:
    meet()
    signals.share()
    signals.reached(1)
    for number in range(1, 50):
      if process == 1 and number == SIGNAL_AT:
        os.kill(os.getpid(), signal.SIGTERM)
        while not signals.has_come:
          time.sleep(0.001)
      if signals.interrupted():
        return number
  return 0


def main() -> str:
  """Returns what it found, in a line."""
  process, port, directory, action = sys.argv[1:]

  def meet():
    jax.distributed.initialize(f'127.0.0.1:{port}', 2, int(process))

  if action == 'signal':
    return f'question {questions_until_interrupted(int(process), meet)}'
  meet()
  with StateCheckpoints(pathlib.Path(directory), 2, None) as saved:
    if action == 'save':
      for step in STEPS:
        saved.save(step, make_state(step), Standing(), None)
      return 'saved'
    target = make_state(0)
    shardings = jax.tree.map(lambda x: x.sharding, target)
    try:
      found = saved.restore_newest(abstract_state(target, shardings))
    except errors.CheckpointError as error:
      return str(error).replace('\n', ' ')
    assert found is not None
    wanted = make_state(found[0])
    for name, array in found[1].items():
      assert array.sharding == wanted[name].sharding
      ours, theirs = (
        each.addressable_shards[0].data for each in (array, wanted[name])
      )
      assert np.array_equal(ours, theirs)
    saved.save(STEPS[-1] + 2, make_state(7), Standing(), None)
    return f'step {found[0]}'


if __name__ == '__main__':
  print(main(), flush=True)
