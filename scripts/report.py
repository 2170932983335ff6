r"""Writes what came of runs as one page: curves, mistakes, calibration.

  python scripts/report.py runs/vit/tiny,digits
  python scripts/report.py runs/seed0 runs/seed1 runs/seed2 --out comparison/
  python scripts/report.py runs/b16 --split 'train[98%:]' --num_images 100

Of one run, RUN/report/ gets index.html, a page that needs no network, the
figures in it as PNG files, and report.json with all numbers; of several,
./report/, where they are side by side. Exit status 1 says that some of it could
not be had, such as a data set that has gone: the page says what.
"""

import argparse
import dataclasses
import sys

from vit_jax import command_line


def main() -> int:
  """Returns the exit status."""
  stopped = 'stopped; the page was not written'
  return command_line.run(_report, _parser, stopped)


def _report(args: argparse.Namespace) -> int:
  from vit_jax.run_report import Settings, write_report

  settings = {
    field.name: getattr(args, field.name)
    for field in dataclasses.fields(Settings)
  }
  report = write_report(
    args.runs,
    args.out,
    Settings(**settings),
    tell=lambda text: print(text, flush=True),
  )
  for name, texts in report.missing.items():
    for text in texts:
      print(f'missing: {name}: {text}', file=sys.stderr)
  print(report.page)
  return 1 if report.missing else 0


def _parser() -> argparse.ArgumentParser:
  from vit_jax.run_report import METHODS, Settings

  parser = command_line.make_parser(__doc__)
  parser.add_argument(
    'runs', nargs='+', metavar='RUN', help='directory of a run (--workdir)'
  )
  parser.add_argument(
    '--out',
    metavar='DIR',
    help='where to write (default: RUN/report, of several runs ./report)',
  )
  default = {each.name: each.default for each in dataclasses.fields(Settings)}

  def option(name: str, text: str, **kwargs) -> None:
    value = default[name]
    shown = '' if value is None else f' (default: {value})'
    parser.add_argument(
      f'--{name}', default=value, help=text.replace('%', '%%') + shown, **kwargs
    )

  option(
    'split',
    "of the data set, such as 'train[98%:]', or the name of one of the run's "
    'eval_sets; by default its pp.test',
  )
  option(
    'dataset',
    "to evaluate on instead of the run's own: where a folder has moved to, or "
    'another data set with the same classes',
  )
  option(
    'tfds_data_dir', 'where tfds keeps the data set, if not where it was',
    metavar='DIR',
  )  # fmt: skip
  option(
    'tfds_manual_dir', 'where archives are that have been fetched by hand',
    metavar='DIR',
  )  # fmt: skip
  option(
    'num_images', 'misclassified images to show of each run', type=int,
    metavar='N',
  )  # fmt: skip
  option('method', 'of the attention overlays', choices=list(METHODS))
  option(
    'batch', "images at a time; by default the run's batch_eval", type=int,
    metavar='N',
  )  # fmt: skip
  option('num_bins', 'of the calibration', type=int, metavar='N')
  return parser


if __name__ == '__main__':
  command_line.start(main)
