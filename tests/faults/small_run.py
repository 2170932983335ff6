"""A run that takes a second once it is compiled, and ways to disturb it."""

import contextlib
import json
import pathlib
import resource
import sys
from collections.abc import Callable, Iterator
from typing import Any

from configs import vit
from vit_jax import step_window, train

STEPS = 11
CHECKPOINT_EVERY = 4
EVAL_EVERY = 5

_FLAGS = (
  '--config=configs/vit.py:tiny,digits',
  '--config.model.hidden_size=10',
  '--config.model.transformer.mlp_dim=14',
  '--config.model.transformer.num_heads=2',
  '--config.model.transformer.num_layers=1',
  '--config.pp.train=train[:101]',
  '--config.pp.test=test[:47]',
  '--config.pp.crop=8',
  f'--config.total_steps={STEPS}',
  '--config.warmup_steps=2',
  '--config.batch=6',
  '--config.batch_eval=24',
  '--config.progress_every=3',
  f'--config.eval_every={EVAL_EVERY}',
  f'--config.checkpoint_every={CHECKPOINT_EVERY}',
  '--config.num_threads=1',
  '--config.best_metric=',
)


def make_config() -> Any:
  """Returns the config of the run."""
  config = vit.get_config('tiny,digits')
  config.model.hidden_size = 10
  config.model.transformer.update(mlp_dim=14, num_heads=2, num_layers=1)
  config.pp.update(train='train[:101]', test='test[:47]', crop=8)
  config.update(
    total_steps=STEPS,
    warmup_steps=2,
    batch=6,
    batch_eval=24,
    progress_every=3,
    eval_every=EVAL_EVERY,
    checkpoint_every=CHECKPOINT_EVERY,
    num_threads=1,
    best_metric='',  # Which saves at steps of its own.
  )
  return config


def command(workdir: pathlib.Path, *flags: str) -> list[str]:
  """Returns the command line of the run."""
  main = (sys.executable, '-m', 'vit_jax.main')
  return [*main, *_FLAGS, f'--workdir={workdir}', *flags]


class Stopped(Exception):
  """Stands for whatever ends a process."""


def stop() -> None:
  """Ends a run, as an event of `train_with`."""
  raise Stopped


def train_with(
  workdir: pathlib.Path,
  events: dict[int, Callable[[], None]],
  monkeypatch: Any,
  config: Any = None,
  signals: Any = None,
) -> None:
  """Trains; `events` happen before the step that is their key begins."""
  next_batch = step_window.StepWindow.next_batch
  step = max((s for s in steps_in(workdir)), default=0)

  def next_or_event(self, batches):
    nonlocal step
    step += 1
    events.get(step, lambda: None)()
    return next_batch(self, batches)

  with monkeypatch.context() as patch:
    patch.setattr(step_window.StepWindow, 'next_batch', next_or_event)
    train.train_and_evaluate(config or make_config(), workdir, signals)


def steps_in(workdir: pathlib.Path) -> list[int]:
  """Returns the steps of the checkpoints that are there."""
  paths = (workdir / 'checkpoints').glob('*')
  return sorted(int(path.name) for path in paths if path.name.isdigit())


def metrics_of(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the lines of the log, without times and means over windows."""
  lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
  return [
    {k: v for k, v in x.items() if not k.startswith('train/')} for x in lines
  ]


@contextlib.contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
  """Lets this process write no larger files, as if the disk was full then."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
