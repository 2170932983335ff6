r"""Measures steps: images/s, time, compilation, share of peak, memory.

  python scripts/benchmark.py --models=b16,l16 --batches=64,256 \
    --dtypes=float32,bfloat16 --out=benchmark.json
  python scripts/benchmark.py --models=h14 --meshes data=8 fsdp=8 \
    --set scan_layers=True remat=full --set remat=none

Every combination of models, batches, dtypes, meshes, settings and kinds
('train' and 'inference') is a row. All are checked first. Each is measured in a
process of its own, so that its memory is its own; one that fails, for want of
memory say, is a row too, and the exit status is 1. Images and weights are
random, and the images are on the device: nothing waits for data. What is
trained is what `python -m vit_jax.main` trains.

A row's time is the median over rounds of several steps each, its spread the
range of them. The share of peak (MFU) counts what the model takes, see
`vit_jax.plan`; its peak is of --accelerator, or of the device that is found.
"""

import argparse
import json
import pathlib
import sys

from vit_jax import command_line, errors, whole_files
from vit_jax.benchmark import cases, rows

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))  # `configs`


def main() -> int:
  """Prints a table and writes the rows as JSON; returns the exit status."""
  stopped = 'stopped; the rows that are done are written'
  return command_line.run(_benchmark, _parser, stopped)


def _benchmark(args: argparse.Namespace) -> int:
  from configs import common

  if args.child:
    from vit_jax.benchmark import measure

    case = json.loads(args.child)
    config = cases.configure(case, common.get_config())
    print(json.dumps(measure.measure(case, config)))
    return 0
  todo = make_cases(args)
  cases.check_cases(todo, common.get_config(), rows.count_devices())
  done = []
  for case in todo:
    done.append(case | rows.run_case(__file__, case, args.timeout))
    print(rows.line(done[-1]), file=sys.stderr, flush=True)
    if args.out:  # After each, for the next one may take the machine down.
      whole_files.write_text(args.out, json.dumps(done, indent=2) + '\n')
  print(rows.table(done))
  return 1 if any('error' in row for row in done) else 0


def make_cases(args: argparse.Namespace) -> list[dict]:
  """Returns what is to be measured, a dict for each row."""
  names = ('image_size', 'num_classes', 'rounds', 'steps', 'accelerator')
  shared = {name: getattr(args, name) for name in (*names, 'compile_only')}
  return cases.make_cases(
    args.models,
    args.batches,
    args.dtypes,
    args.meshes,
    args.set or [[]],
    args.kinds,
    shared,
  )


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__doc__)
  add = parser.add_argument
  add(
    '--models',
    type=command_line.names,
    default='b16',
    help='such as b16,mixer_b16',
  )
  add('--batches', type=_numbers, default='64', help='such as 64,256')
  add('--dtypes', type=command_line.names, default='float32')
  add('--meshes', nargs='+', default=['data=-1'], help='data=2,fsdp=4 tensor=8')
  add('--kinds', type=_kinds, default=','.join(cases.KINDS))
  add(
    '--set',
    nargs='+',
    action='append',
    metavar='FIELD=VALUE',
    help='of the config, such as remat=full; each --set is a row',
  )
  add('--image_size', type=command_line.positive_int, default=224)
  add('--num_classes', type=command_line.positive_int, default=1_000)
  add('--rounds', type=command_line.positive_int, default=5)
  add('--steps', type=command_line.positive_int, default=10, help='of a round')
  add('--compile_only', action='store_true', help='takes no memory for weights')
  add('--accelerator', default='', help='whose peak it is')
  add('--timeout', type=float, default=1_800, help='seconds, of a row')
  add('--out', type=command_line.out_file, help='JSON file')
  add('--child', help=argparse.SUPPRESS)
  return parser


def _kinds(text: str) -> list[str]:
  names = command_line.names(text)
  for name in names:
    if name not in cases.KINDS:
      raise argparse.ArgumentTypeError(
        errors.unknown_name('kind', name, cases.KINDS)
      )
  return names


def _numbers(text: str) -> list[int]:
  return [command_line.positive_int(each) for each in command_line.names(text)]


if __name__ == '__main__':
  command_line.start(main)
