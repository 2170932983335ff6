"""Damages saved checkpoints on purpose and tells what a restart makes of it.

  PYTHONPATH=. python tests/faults/corruption.py --flips=300

damages copies of a run's newest checkpoint, one at a time, and prints what a
restart made of them, and in brackets how many of them Orbax alone gives back
with other bits and no error.
"""

import argparse
import collections
import contextlib
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from vit_jax import errors, sharding
from vit_jax.checkpoints import packing
from vit_jax.checkpoints.state import (
  Standing,
  StateCheckpoints,
  abstract_state,
)

STEPS = (3, 5, 7)
STANDING = Standing(0.1 + 0.2, 3, 2)

# What can happen to a file: (content, generator) -> content, None for no file.
KINDS: dict[str, Callable[[bytes, np.random.Generator], bytes | None]] = {
  'flip': lambda data, rng: _flipped(data, rng, 1),
  'flips': lambda data, rng: _flipped(data, rng, 7),
  'zeros': lambda data, rng: _zeroed(data, rng),
  'cut': lambda data, rng: data[: rng.integers(len(data))],
  'empty': lambda data, rng: b'',
  'longer': lambda data, rng: data + rng.bytes(13),
  'removed': lambda data, rng: None,
}


def _flipped(data: bytes, rng: np.random.Generator, count: int) -> bytes:
  bits = np.unpackbits(np.frombuffer(data, np.uint8))
  bits[rng.choice(bits.size, min(count, bits.size), replace=False)] ^= 1
  return np.packbits(bits).tobytes()


def _zeroed(data: bytes, rng: np.random.Generator) -> bytes:
  """Returns it with a block that was never written."""
  start = rng.integers(len(data))
  block = data[start : start + 64]
  return data[:start] + bytes(len(block)) + data[start + len(block) :]


def make_state(step: int) -> Any:
  """Returns a state with the dtypes of a real one, another at each step."""
  rng = np.random.default_rng(step)
  kernels = {
    f'block{i}': rng.normal(size=shape).astype('f4')
    for i, shape in enumerate([(53, 47), (43, 41)])
  }
  # Too large to be packed with others; nor can its bits be compressed.
  kernels['block2'] = rng.integers(-(2**31), 2**31, (521, 523), np.int32)
  tree = {
    'step': np.int32(step),
    'params': {**kernels, 'bias': rng.normal(size=59).astype('f4')},
    'opt_state': [
      {name: x.astype(jax.numpy.bfloat16) for name, x in kernels.items()},
      {'count': np.int32(step), 'zeros': np.zeros((31, 37), 'f4')},
    ],
  }
  return jax.device_put(tree, sharding.replicated(sharding.make_mesh()))


def target_of(state: Any) -> Any:
  """Returns what to restore a state into."""
  return abstract_state(state, jax.tree.map(lambda x: x.sharding, state))


def save_run(directory: pathlib.Path) -> None:
  """Saves a checkpoint at each of `STEPS`."""
  with StateCheckpoints(directory, len(STEPS), None) as saved:
    for step in STEPS:
      saved.save(step, make_state(step), STANDING, {'test/loss': 0.25})


def same_bits(one: Any, other: Any) -> bool:
  """Whether two states are the same."""
  return all(
    a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True)
  )


def files_of(directory: pathlib.Path, step: int) -> list[str]:
  """Returns the paths of a checkpoint's files below its directory, sorted."""
  root = directory / str(step)
  return sorted(
    str(path.relative_to(root)) for path in root.rglob('*') if path.is_file()
  )


@contextlib.contextmanager
def damaged_copy(
  run: pathlib.Path, file: str, kind: str, rng: np.random.Generator
) -> Iterator[pathlib.Path]:
  """Gives a copy of a run with a damaged file in its newest checkpoint."""
  with tempfile.TemporaryDirectory() as scratch:
    copy = pathlib.Path(scratch, 'checkpoints')
    shutil.copytree(run, copy)
    path = copy / str(STEPS[-1]) / file
    data = KINDS[kind](path.read_bytes(), rng)
    if data is None:
      path.unlink()
    else:
      path.write_bytes(data)
    yield copy


def orbax_alone(directory: pathlib.Path) -> str:
  """Restores the newest state of a run without any comparison.

  Returns:
    'an error', 'the same' or 'OTHER BITS'.
  """
  path = directory / str(STEPS[-1]) / 'state'
  wanted, contents = packing.pack(make_state(STEPS[-1]))
  target = packing.packed_target(target_of(make_state(0)), contents)
  args = ocp.args.StandardRestore(target)
  try:
    found = ocp.StandardCheckpointHandler().restore(path, args=args)
  except Exception:  # Orbax raises whatever it meets.
    return 'an error'
  return 'the same' if same_bits(found, wanted) else 'OTHER BITS'


def outcome(directory: pathlib.Path) -> str:
  """Restores the newest state of a run whose newest checkpoint is damaged.

  Returns:
    'stepped back' to the checkpoint before, whole, the bad one moved aside, and
    the next save succeeds; 'harmless' where nothing of it was read; 'stopped'
    by an error that says why; else what went wrong.
  """
  newest = str(STEPS[-1])
  damaged = contents(directory / newest)
  with StateCheckpoints(directory, len(STEPS), None) as saved:
    try:
      restored = saved.restore_newest(target_of(make_state(0)))
    except errors.CheckpointError:
      return 'stopped' if contents(directory / newest) == damaged else 'LOST'
    assert restored is not None
    step, state, standing = restored
    if not same_bits(state, make_state(step)) or standing != STANDING:
      return 'UNDETECTED'
    if step == STEPS[-1]:
      return 'harmless'
    if contents(directory / f'{newest}.corrupt') != damaged:
      return 'LOST'
    saved.save(STEPS[-1], make_state(STEPS[-1]), STANDING, None)
  with StateCheckpoints(directory, len(STEPS), None) as saved:
    again = saved.restore_newest(target_of(make_state(0)))
  if step != STEPS[-2] or again is None or again[0] != STEPS[-1]:
    return 'WRONG STEP'
  return 'stepped back'


def contents(directory: pathlib.Path) -> dict[str, bytes]:
  """Returns the content of each file by its path below a directory."""
  return {
    str(path.relative_to(directory)): path.read_bytes()
    for path in directory.rglob('*')
    if path.is_file()
  }


def _main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--flips', type=int, default=300)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  logging.set_verbosity(logging.FATAL)
  counts: dict[str, collections.Counter] = collections.defaultdict(
    collections.Counter
  )
  silent: collections.Counter = collections.Counter()
  rng = np.random.default_rng(args.seed)
  with tempfile.TemporaryDirectory() as scratch:
    run = pathlib.Path(scratch, 'checkpoints')
    save_run(run)
    files = files_of(run, STEPS[-1])
    single = [files[i % len(files)] for i in range(args.flips)]
    cases = [(file, 'flip') for file in single]
    cases += [
      (file, kind) for file in files for kind in KINDS if kind != 'flip'
    ]
    for file, kind in cases:
      with damaged_copy(run, file, kind, rng) as copy:
        name = f'{kind:8} {_role(file)}'
        silent[name] += orbax_alone(copy) == 'OTHER BITS'
        counts[name][outcome(copy)] += 1
  total = sum(counts.values(), collections.Counter())
  silent['all'] = silent.total()
  for name, row in [*sorted(counts.items()), ('all', total)]:
    text = ', '.join(f'{n} {found}' for found, n in sorted(row.items()))
    print(f'{name:45} {row.total():4}: {text} ({silent[name]})')


def _role(file: str) -> str:
  """Returns the path without the random names of data files."""
  parent, _, name = file.rpartition('/')
  return f'{parent}/*' if parent.endswith('/d') else f'{parent}/{name}'


if __name__ == '__main__':
  _main()
