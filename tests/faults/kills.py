"""SIGKILL at chosen moments of a run, and what they were when it came."""

import dataclasses
import pathlib
import random
import re
import time

import runs

MOMENTS = ('starting', 'compiling', 'between steps', 'saving', 'evaluating')
# Saves above all: most of what can be lost is lost there.
WEIGHTS = (1, 2, 2, 6, 2)


@dataclasses.dataclass(frozen=True)
class Kill:
  """One of them.

  Attributes:
    moment: one of MOMENTS, by what the process had printed and left.
    continued_from: the step that the killed process began at, None if it had
      not got that far.
    num_steps: the last step that it printed.
    found: the newest whole checkpoint that it left, 0 for none.
  """

  moment: str
  continued_from: int | None
  num_steps: int
  found: int


def kill(run: runs.Run, moment: str, rng: random.Random) -> Kill | None:
  """Kills a run at a moment; None if it has come to its end by itself."""
  if moment == 'starting':
    is_there = run.wait_for(lambda: time.sleep(rng.uniform(0, 2)) is None)
  elif moment == 'compiling':
    is_there = run.wait_for('Compiling the first step')
    time.sleep(rng.uniform(0, 0.3))
  else:
    is_there = run.wait_for(lambda: _last_step(run.text) > 0)
    goal = len(run.steps()) and run.steps()[-1]
    goal += runs.CHECKPOINT_EVERY * rng.randrange(3)
    if moment == 'saving':
      is_there = is_there and run.wait_for(
        lambda: run.is_saving() and (run.steps() or [0])[-1] >= goal
      )
      time.sleep(rng.uniform(0, 0.03))
    elif moment == 'evaluating':
      is_there = is_there and run.wait_for(lambda: _is_evaluating(run.text))
      time.sleep(rng.uniform(0, 0.01))
    else:
      time.sleep(rng.uniform(0, 0.3))
  if not is_there:
    return None
  run.process.kill()
  if run.process.wait() != -9:
    return None
  return Kill(
    _moment_of(run), run.first_step(), _last_step(run.text), _newest(run)
  )


def finish(workdir: pathlib.Path, data_dir: pathlib.Path) -> runs.Run:
  """Lets a run come to its end."""
  with runs.Run(workdir, data_dir) as run:
    assert run.end() == 0, run.text
  return run


def _newest(run: runs.Run) -> int:
  return max(run.steps(), default=0)


def _last_step(text: str) -> int:
  steps = re.findall(rf'^ *(\d+)/{runs.TOTAL_STEPS} ', text, re.MULTILINE)
  return int(steps[-1]) if steps else 0


def _is_evaluating(text: str) -> bool:
  """Whether an evaluation has begun of which nothing is printed."""
  last = _last_step(text)
  is_due = last > 0 and last % runs.EVAL_EVERY == 0
  return is_due and f'step {last}: test/' not in text


def _moment_of(run: runs.Run) -> str:
  if run.is_saving():
    return 'saving'
  if 'Compiling the first step' not in run.text:
    return 'starting'
  if not _last_step(run.text):
    return 'compiling'
  return 'evaluating' if _is_evaluating(run.text) else 'between steps'
