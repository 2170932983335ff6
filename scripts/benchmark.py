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

from vit_jax import errors
from vit_jax.benchmark import cases, rows

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))  # `configs`


def main() -> int:
  """Prints a table and writes the rows as JSON; returns the exit status."""
  from configs import common

  args = _parse()
  if args.child:
    from vit_jax.benchmark import measure

    case = json.loads(args.child)
    config = cases.configure(case, common.get_config())
    print(json.dumps(measure.measure(case, config)))
    return 0
  todo = make_cases(args)
  try:
    cases.check_cases(todo, common.get_config(), rows.count_devices())
  except errors.UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  done = []
  for case in todo:
    done.append(case | rows.run_case(__file__, case, args.timeout))
    print(rows.line(done[-1]), file=sys.stderr, flush=True)
    if args.out:  # After each, for the next one may take the machine down.
      args.out.write_text(json.dumps(done, indent=2) + '\n')
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


def _parse() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add('--models', type=_names, default='b16', help='such as b16,mixer_b16')
  add('--batches', type=_numbers, default='64', help='such as 64,256')
  add('--dtypes', type=_names, default='float32')
  add('--meshes', nargs='+', default=['data=-1'], help='data=2,fsdp=4 tensor=8')
  add('--kinds', type=_kinds, default=','.join(cases.KINDS))
  add(
    '--set',
    nargs='+',
    action='append',
    metavar='FIELD=VALUE',
    help='of the config, such as remat=full; each --set is a row',
  )
  add('--image_size', type=_positive, default=224)
  add('--num_classes', type=_positive, default=1_000)
  add('--rounds', type=_positive, default=5)
  add('--steps', type=_positive, default=10, help='of a round')
  add('--compile_only', action='store_true', help='takes no memory for weights')
  add('--accelerator', default='', help='whose peak it is')
  add('--timeout', type=float, default=1_800, help='seconds, of a row')
  add('--out', type=_out_file, help='JSON file')
  add('--child', help=argparse.SUPPRESS)
  return parser.parse_args()


def _names(text: str) -> list[str]:
  return text.split(',')


def _kinds(text: str) -> list[str]:
  for name in _names(text):
    if name not in cases.KINDS:
      raise argparse.ArgumentTypeError(
        errors.unknown_name('kind', name, cases.KINDS)
      )
  return _names(text)


def _numbers(text: str) -> list[int]:
  return [_positive(number) for number in _names(text)]


def _positive(text: str) -> int:
  if not text.isdecimal() or not 0 < int(text) < 2**31:
    raise argparse.ArgumentTypeError(
      f'{text!r} should be a whole number from 1 to 2**31 - 1.'
    )
  return int(text)


def _out_file(text: str) -> pathlib.Path:
  path = pathlib.Path(text)
  if path.is_dir() or not path.parent.is_dir():
    raise argparse.ArgumentTypeError(
      f'{text!r} should be a file in a directory that is there.'
    )
  return path


if __name__ == '__main__':
  sys.exit(main())
