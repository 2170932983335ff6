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
from typing import Any

import numpy as np

from vit_jax import attention, command_line, errors, whole_files
from vit_jax.attention_report import comparison
from vit_jax.attention_report.comparison import KINDS, METHODS


def main() -> int:
  """Returns the exit status."""
  stopped = 'stopped; no numbers were written'
  return command_line.run(_measure, _parser, stopped)


def _measure(args: argparse.Namespace) -> int:
  methods = _methods(args)
  batch = min(args.batch, args.num_images or args.batch)
  configs = [
    comparison.read_config(run, batch, args.split) for run in args.runs
  ]
  summary = _compare(configs, methods, args)
  if args.json:
    whole_files.write_text(args.json, json.dumps(summary, indent=2) + '\n')
  return 0


def _parser() -> argparse.ArgumentParser:
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


def _methods(args: argparse.Namespace) -> list[str]:
  """Returns the methods asked for, and the centre that they are compared to."""
  names = [name.strip() for name in args.methods.split(',')]
  for name in names:
    if name not in METHODS:
      raise errors.ConfigError(errors.unknown_name('method', name, METHODS))
  return [name for name in METHODS if name in (*names, 'centre')]


def _compare(configs: list[Any], methods: list[str], args: Any) -> Any:
  """Measures and prints run by run; returns what `--json` writes."""
  data = [(config.dataset, config.pp.test) for config in configs]
  if len({*data}) > 1:
    raise errors.ConfigError(
      'The runs have different test images, which no average can be of: '
      f'{", ".join(sorted(" ".join(each) for each in {*data}))}. Give those of '
      'one data set, and --split if their splits differ.'
    )
  found, runs = [], {}
  for run, config in zip(args.runs, configs, strict=True):
    measured = comparison.measure(
      run, config, methods, args.baseline, args.num_images
    )
    areas = measured.areas
    print(
      f'{run}: {" ".join(data[0])}, {areas.shape[-1]} images, accuracy '
      f'{measured.accuracy:.1%}, baseline {args.baseline}'
    )
    results = comparison.summarise(areas, methods)
    _print(results)
    runs[run] = {'accuracy': measured.accuracy, 'methods': results}
    found.append(areas)
  summary = {
    'dataset': data[0][0],
    'split': data[0][1],
    'num_images': found[0].shape[-1],
    'baseline': args.baseline,
    'runs': runs,
  }
  if len(found) > 1:
    print(f'average of {len(found)} runs')
    # Of each image first: what errors are of is again images.
    results = comparison.summarise(np.mean(found, axis=0), methods)
    _print(results)
    summary['average'] = results
  return summary


def _print(results: dict[str, Any]) -> None:
  titles = ''.join(f'  {kind:>9}  {"minus centre":>15}' for kind in KINDS)
  print(f'  {"":12}{titles}')
  for method, areas in results.items():
    row = f'  {method:12}'
    for kind in KINDS:
      each = areas[kind]
      text = ''
      if method != 'centre':
        error = each['standard_error'] or 0.0
        text = f'{each["minus_centre"]:+.3f} ± {error:.3f}'
      row += f'  {each["mean"]:9.3f}  {text:>15}'
    print(row.rstrip())
  print(flush=True)


if __name__ == '__main__':
  command_line.start(main)
