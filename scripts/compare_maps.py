r"""Tells by numbers how good attention maps of trained runs are.

  python scripts/compare_maps.py runs/vit/tiny,digits
  python scripts/compare_maps.py seed0 seed1 seed2 --baseline blur --json FILE

For the predicted class of each test image, patches are deleted and inserted in
the order of each method's map (Petsiuk et al. 2018, RISE). Less deletion area
is better, and more insertion area. Beside each area is what it has more than
that of a map that knows nothing but where the middle is, with the standard
error of this mean over images: a few errors from zero is no chance.
"""

import argparse
import json
import pathlib
from typing import Any

from vit_jax import command_line, whole_files


def main() -> int:
  """Returns the exit status."""
  stopped = 'stopped; the numbers of runs that were done stay'
  return command_line.run(_compare, _parser, stopped)


def _compare(args: argparse.Namespace) -> int:
  from vit_jax.attention_report import comparison

  methods = comparison.choose(
    [name.strip() for name in args.methods.split(',')]
  )
  batch = min(args.batch, args.num_images or args.batch)
  configs = [
    comparison.read_config(run, batch, args.split) for run in args.runs
  ]
  dataset, split = comparison.shared_split(configs)
  areas = []
  summary: dict[str, Any] = {'dataset': dataset, 'split': split}
  summary |= {'num_images': None, 'baseline': args.baseline, 'runs': {}}
  for run, config in zip(args.runs, configs, strict=True):
    measured = comparison.measure(
      run, config, methods, args.baseline, args.num_images
    )
    areas.append(measured.areas)
    results = comparison.summarise(measured.areas, methods)
    summary['num_images'] = num_images = measured.areas.shape[-1]
    summary['runs'][run] = {'accuracy': measured.accuracy, 'methods': results}
    # After each, for it took long, and the next one may be stopped.
    _write(summary, args.json)
    print(
      f'{run}: {dataset} {split}, {num_images} images, accuracy '
      f'{measured.accuracy:.1%}, baseline {args.baseline}'
    )
    _print(results)
  if len(areas) > 1:
    # Of each image first: what errors are of is again images.
    summary['average'] = comparison.average(areas, methods)
    _write(summary, args.json)
    print(f'average of {len(areas)} runs')
    _print(summary['average'])
  return 0


def _write(summary: dict[str, Any], path: pathlib.Path | None) -> None:
  if path:
    whole_files.write_text(path, json.dumps(summary, indent=2) + '\n')


def _parser() -> argparse.ArgumentParser:
  from vit_jax import attention
  from vit_jax.attention_report.comparison import METHODS

  parser = command_line.make_parser(__doc__)
  add = parser.add_argument
  add('runs', nargs='+', metavar='RUN', help='directory of a finished run')
  add('--methods', default=','.join(METHODS), help='by commas (default: all)')
  add(
    '--baseline',
    default='mean',
    choices=attention.BASELINES,
    help="what takes the place of a patch: the image's mean colour (default), "
    'the blurred image, or mid-grey',
  )
  add(
    '--split', help="such as 'test[:100]' (default: what the run is tested on)"
  )
  number = command_line.positive_int
  add(
    '--num_images', type=number, metavar='N', help='the first N (default: all)'
  )
  add('--batch', type=number, default=60, metavar='N', help='at a time')
  add(
    '--json',
    type=command_line.out_file,
    metavar='FILE',
    help='where to write the numbers as well',
  )
  return parser


def _print(results: dict[str, Any]) -> None:
  kinds = ''.join(
    f'  {kind:>9}  {"minus centre":>15}' for kind in results['centre']
  )
  print(f'  {"":12}{kinds}')
  for method, areas in results.items():
    row = f'  {method:12}'
    for each in areas.values():
      text = ''
      if method != 'centre':
        error = each['standard_error'] or 0.0
        text = f'{each["minus_centre"]:+.3f} ± {error:.3f}'
      row += f'  {each["mean"]:9.3f}  {text:>15}'
    print(row.rstrip())
  print(flush=True)


if __name__ == '__main__':
  command_line.start(main)
