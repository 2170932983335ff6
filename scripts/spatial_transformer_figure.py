r"""Draws images beside what a trained spatial transformer makes of them.

  python scripts/spatial_transformer_figure.py \
    --checkpoint runs/spatial_transformer/digits --out transformed.png

The images are of the run's test split: one of each class, the mean of all of a
class before and behind the transformer, and one that is turned step by step.
"""

import argparse
import pathlib
import sys

from vit_jax import errors


def main() -> int:
  """Returns the exit status."""
  args = _parser().parse_args()
  try:
    return _draw(args)
  except errors.UserError as error:
    print(f'error: {error}', file=sys.stderr)
  except OSError as error:
    where = error.filename or args.out
    print(f'error: {where}: {error.strerror}', file=sys.stderr)
  except KeyboardInterrupt:
    print('stopped; nothing was written', file=sys.stderr)
    return 130
  return 2


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add(
    '--checkpoint',
    required=True,
    metavar='RUN',
    help='directory of a run with configs/spatial_transformer.py',
  )
  add(
    '--out',
    required=True,
    metavar='FILE',
    help='to write; its ending says in what format: .png, .pdf or .svg',
  )
  add(
    '--columns',
    type=_positive,
    default=10,
    metavar='N',
    help='classes, from the first, and angles (default: %(default)s)',
  )
  add('--tfds_data_dir', metavar='DIR', help='where the data set is')
  return parser


def _positive(text: str) -> int:
  if not text.isdecimal() or not int(text):
    raise argparse.ArgumentTypeError(f'{text!r} is no positive number')
  return int(text)


def _draw(args: argparse.Namespace) -> int:
  # Here, so that a typo in an argument is answered before they are loaded.
  from vit_jax import figures, transformed

  kind = pathlib.Path(args.out).suffix.removeprefix('.').lower()
  if kind not in figures.FORMATS:
    raise errors.ConfigError(
      errors.unknown_name('format', kind, figures.FORMATS)
    )
  found = transformed.look(args.checkpoint, args.columns, args.tfds_data_dir)
  figures.plot_transformed(found, args.out, found.dataset)
  print(args.out)
  return 0


if __name__ == '__main__':
  sys.exit(main())
