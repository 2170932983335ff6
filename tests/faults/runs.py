"""Small runs of the command line, in processes that can be ended at will."""

import json
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
# Seconds for whatever a test waits for; on an idle machine it takes ten.
TIMEOUT = 600
TOTAL_STEPS, CHECKPOINT_EVERY, EVAL_EVERY = 60, 3, 10
_CONFIG = {
  'model.hidden_size': 10,
  'model.transformer.num_heads': 2,
  'model.transformer.mlp_dim': 14,
  'model.transformer.num_layers': 1,
  'model.transformer.dropout_rate': 0.1,
  'pp.train': 'train[:101]',
  'pp.test': 'test[:47]',
  'pp.crop': 8,
  'batch': 8,
  'batch_eval': 24,
  'accum_steps': 1,
  'warmup_steps': 2,
  'total_steps': TOTAL_STEPS,
  'checkpoint_every': CHECKPOINT_EVERY,
  'eval_every': EVAL_EVERY,
  'progress_every': 5,
  'best_metric': '',
  'num_threads': 1,
}


class Run:
  """A process that trains; what it prints is in a file.

  Use it as a context manager: leaving it kills what is still there.

  Args:
    workdir: of the run.
    data_dir: where the data set is, or will be prepared.
    args: more arguments of the command.
    env: variables beside this process's own.
    start_new_session: whether it leads a group of processes.
    **config: fields that differ, with '__' for a dot.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    data_dir: pathlib.Path,
    *args: str,
    env: dict[str, str] | None = None,
    start_new_session: bool = False,
    **config: Any,
  ):
    fields = _CONFIG | {'tfds_data_dir': data_dir}
    fields |= {key.replace('__', '.'): value for key, value in config.items()}
    self.workdir = workdir
    self.checkpoints = workdir / 'checkpoints'
    self._path = workdir.with_name(f'{workdir.name}-{time.monotonic_ns()}.log')
    with open(self._path, 'wb') as log:
      self.process = subprocess.Popen(
        [
          sys.executable,
          '-m',
          'vit_jax.main',
          f'--config={ROOT}/configs/vit.py:tiny,digits',
          f'--workdir={workdir}',
          *(f'--config.{key}={value}' for key, value in fields.items()),
          *args,
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={
          **os.environ,
          'PYTHONPATH': str(ROOT),
          'PYTHONUNBUFFERED': '1',
          'JAX_PLATFORMS': 'cpu',
          'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
          **(env or {}),
        },
        start_new_session=start_new_session,
      )

  def __enter__(self) -> 'Run':
    return self

  def __exit__(self, *_) -> None:
    if self.process.poll() is None:
      self.process.kill()
    self.process.wait()

  @property
  def text(self) -> str:
    """What has been printed so far."""
    return self._path.read_text(errors='replace')

  def wait_for(self, is_so: str | Callable[[], bool]) -> bool:
    """Waits until something is so, or printed; returns False if it ends."""
    deadline = time.monotonic() + TIMEOUT
    while not (is_so in self.text if isinstance(is_so, str) else is_so()):
      if self.process.poll() is not None:
        return False
      assert time.monotonic() < deadline, f'{is_so} is not so:\n{self.text}'
      time.sleep(0.005)
    return True

  def end(self) -> int:
    """Waits for the end and returns the status, -N for signal N."""
    return self.process.wait(TIMEOUT)

  def is_saving(self) -> bool:
    """Whether a checkpoint is being written."""
    return any(self.checkpoints.glob('*.orbax-checkpoint-tmp*'))

  def steps(self) -> list[int]:
    """The steps whose checkpoint is whole."""
    names = (path.name for path in self.checkpoints.glob('*'))
    return sorted(int(name) for name in names if name.isdigit())

  def first_step(self) -> int | None:
    """The step that this process began at, None if it has not told."""
    found = re.search(r'Continues after step (\d+)', self.text)
    if found:
      return int(found[1])
    return 0 if 'Compiling the first step' in self.text else None


def evaluations(workdir: pathlib.Path) -> list[dict[str, float]]:
  """Returns the lines of the log that evaluations wrote."""
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return [x for x in map(json.loads, lines) if 'test/loss' in x]


def differences(workdir: pathlib.Path, reference: pathlib.Path) -> list[str]:
  """Returns what of a finished run differs in any bit from another's."""
  with (
    np.load(workdir / 'model.npz') as ours,
    np.load(reference / 'model.npz') as theirs,
  ):
    assert [*ours] == [*theirs]
    differing = [
      name for name in ours if ours[name].tobytes() != theirs[name].tobytes()
    ]
  if evaluations(workdir) != evaluations(reference):
    differing.append('evaluations')
  return differing
