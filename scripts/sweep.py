r"""Trains with many settings, and writes a table and a plot of what came of it.

  python scripts/sweep.py --config configs/vit.py:tiny,digits \
    --grid base_lr=0.003,0.01,0.03 --grid model.transformer.dropout_rate=0,0.1
  python scripts/sweep.py --config configs/vit.py:tiny,digits --trials 20 \
    --range base_lr=1e-4..1e-1:log --pruner median --set total_steps=200

Every trial is a run in a directory of its own. The same command continues a
sweep that was broken off, the trial that ran included; docs/sweeps.md. Exit
status 1 says that no trial has finished.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from vit_jax import command_line


def main() -> int:
  """Returns the exit status."""
  stopped = 'Stopped. The same command continues.'
  return command_line.run(_sweep, _parser, stopped)


def _sweep(args: argparse.Namespace) -> int:
  from vit_jax import sweep

  out = args.out or default_out(args.config)
  settings = sweep.make(
    args.config,
    grids=tuple(args.grid),
    ranges=tuple(args.range),
    fixed=tuple(args.set),
    sampler=args.sampler or '',
    trials=args.trials,
    metric=args.metric,
    seeds=args.seeds,
    pruner=args.pruner,
    prune_after=args.prune_after,
    sampler_seed=args.sampler_seed,
  )
  trials = sweep.run_sweep(
    settings,
    out,
    jobs=args.jobs,
    devices=args.devices,
    retry_failed=args.retry_failed,
    tell=lambda line: print(line, flush=True),
  )
  print((out / 'table.md').read_text(encoding='utf-8'))
  print(f'{out}: table.md, table.csv, sweep.png')
  return 0 if sweep.best(trials, settings) else 1


def default_out(config: str) -> pathlib.Path:
  """Returns 'sweeps/vit/tiny,digits' for 'configs/vit.py:tiny,digits'."""
  file, _, rest = config.partition(':')
  rest = rest.strip('/').replace('/', '_')
  return pathlib.Path('sweeps', pathlib.Path(file).stem, rest)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__doc__)
  add = parser.add_argument
  add(
    '--config',
    required=True,
    metavar='FILE.py:ARGS',
    help='what is trained, as in vit_jax.main',
  )
  add(
    '--grid',
    action='append',
    default=[],
    metavar='FIELD=VALUE,VALUE',
    help='values of a field; again for another field',
  )
  add(
    '--range',
    action='append',
    default=[],
    metavar='FIELD=LOW..HIGH[:log]',
    help='for random and tpe: from where to where a field goes',
  )
  add(
    '--set',
    action='append',
    default=[],
    metavar='FIELD=VALUE',
    help='a field of all trials',
  )
  _add_trials(add)
  _add_running(add)
  return parser


def _add_trials(add: Callable[..., Any]) -> None:
  from vit_jax.sweep import PRUNERS, SAMPLERS

  add(
    '--sampler',
    choices=SAMPLERS,
    help='grid (all combinations), random, or tpe, which learns from the '
    'trials so far (default: grid; tpe with a --range)',
  )
  add(
    '--trials',
    type=command_line.positive_int,
    metavar='N',
    help='how many at most; of a grid, all by default',
  )
  add(
    '--sampler_seed',
    type=int,
    default=0,
    metavar='N',
    help='of random and tpe (default: 0)',
  )
  add(
    '--metric',
    default='test/accuracy',
    metavar='SET/NAME',
    help='what is compared, at the last evaluation (default: test/accuracy)',
  )
  add(
    '--seeds',
    type=_seeds,
    default=(),
    metavar='N,N',
    help='each trial is so many runs; mean and standard deviation are told',
  )
  add(
    '--pruner',
    choices=PRUNERS,
    default='none',
    help='median ends a trial that is worse at an evaluation than half of '
    'the finished ones were there (default: none)',
  )
  add(
    '--prune_after',
    type=command_line.positive_int,
    default=4,
    metavar='N',
    help='trials that finish before any is pruned (default: 4)',
  )


def _add_running(add: Callable[..., Any]) -> None:
  add(
    '--jobs',
    type=command_line.positive_int,
    default=1,
    metavar='N',
    help='trials at once (default: 1)',
  )
  add(
    '--devices',
    type=command_line.names,
    default=[],
    metavar='N,N',
    help='CUDA devices, shared out to the jobs',
  )
  add(
    '--retry_failed',
    action='store_true',
    help='run those again that failed in an earlier call',
  )
  add(
    '--out',
    type=pathlib.Path,
    metavar='DIR',
    help='of the sweep (default: sweeps/CONFIG_FILE/ARGS)',
  )


def _seeds(text: str) -> tuple[int, ...]:
  try:
    return tuple(int(each) for each in text.split(','))
  except ValueError:
    raise argparse.ArgumentTypeError(
      f'{text!r} should be numbers with commas between, such as 0,1,2'
    ) from None


if __name__ == '__main__':
  sys.exit(main())
