r"""Runs the paper's fine-tuning table, or part of it, beside published figures.

  python scripts/reproduce.py --models b16,l32 --datasets cifar10
  python scripts/reproduce.py --models b16 --datasets cifar10,cifar100 \
    --dropout 0.0 --schedules 500,1000
  python scripts/reproduce.py --plan --accelerator a100-80
  python scripts/reproduce.py --stand_in

The table is {R50+ViT-B/16, ViT-B/16, B/32, L/16, L/32} x {cifar10, cifar100,
imagenet2012} x dropout {0.0, 0.1}, 30 cells, and the short schedules. Each cell
is a run of configs/vit.py in a directory of its own below --out. Finished cells
are skipped, broken ones continued: the same command goes on after anything. A
cell that fails does not stop the others; the exit status is 1 then, and they
are named. OUT/table.md and OUT/table.csv are written after each cell.

--stand_in is the same with 30 minute models on scikit-learn's digits, to try it
out: its results are in OUT/stand_in.md, and nothing is published of them.
"""

import argparse
import pathlib
import sys

from vit_jax import command_line, errors

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))  # `configs`


def main() -> int:
  """Returns the exit status."""
  stopped = 'Interrupted. The same command goes on.'
  return command_line.run(_reproduce, _parser, stopped)


def _reproduce(args: argparse.Namespace) -> int:
  from configs import vit
  from vit_jax.reproduction import cells, records, running, writing

  if args.accelerator and not args.plan:
    raise errors.ConfigError(
      '--accelerator is what --plan is for; runs take what is here.'
    )
  table = cells.STAND_IN if args.stand_in else cells.PAPER
  chosen = cells.select(
    table, args.models, args.datasets, args.dropout, args.schedules
  )
  settings = [pair for pairs in args.set for pair in pairs]
  if args.plan:
    from vit_jax.reproduction import planning

    rows = planning.plan_cells(
      chosen, settings, vit.get_config, args.accelerator
    )
    print(planning.as_text(rows))
    return 0
  running.check(chosen, args.out, settings, vit.get_config)
  unfinished = running.run_cells(chosen, args.out, settings, say=_say)
  print(writing.markdown(table, writing.collect(chosen, args.out)))
  for cell in unfinished:
    error = records.Record(cell, args.out).result().error
    reason = error.partition('\n')[0]  # All of it was told when it failed.
    print(f'error: {cell.name}: {reason}', file=sys.stderr)
  return 1 if unfinished else 0


def _parser() -> argparse.ArgumentParser:
  from vit_jax.reproduction import cells

  parser = command_line.make_parser(__doc__)
  add = parser.add_argument
  paper = cells.PAPER
  for name, valid in (
    ('--models', paper.models),
    ('--datasets', paper.datasets),
    ('--dropout', map(str, paper.dropouts)),
  ):
    add(
      name,
      type=command_line.names,
      default=[],
      help=f'some of {",".join(valid)}',
    )
  add(
    '--schedules',
    type=command_line.names,
    default=[],
    help=f'some of {",".join(paper.schedules)}, which is steps; with '
    f'--stand_in of {",".join(cells.STAND_IN.schedules)}; by default the first',
  )
  add(
    '--set',
    nargs='+',
    action='append',
    default=[],
    metavar='FIELD=VALUE',
    help='of the config of each cell, such as base_lr=0.01; is noted in the '
    'table',
  )
  add(
    '--out',
    type=pathlib.Path,
    default=pathlib.Path('runs/reproduce'),
    help='directory of the cells and the table',
  )
  add('--plan', action='store_true', help='print steps, hours and memory only')
  add('--accelerator', default='', help='to plan for, such as h100')
  add('--stand_in', action='store_true', help='minute models on the digits')
  return parser


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


if __name__ == '__main__':
  sys.exit(main())
