r"""Draws images beside what a trained spatial transformer makes of them.

  python scripts/spatial_transformer_figure.py \
    --checkpoint runs/spatial_transformer/digits --out transformed.png

The images are of the run's test split: one of each class, the mean of all of a
class before and behind the transformer, and one that is turned step by step.
Or the same inputs at several steps of the training, of which the run has to
have kept checkpoints:

  python -m vit_jax.main --config configs/spatial_transformer.py:digits \
    --workdir runs/steps --config.checkpoint_every=125 \
    --config.keep_checkpoints=12
  python scripts/spatial_transformer_figure.py --steps 125 250 500 1500 \
    --checkpoint runs/steps --out learned.png
"""

import argparse

from vit_jax import command_line, errors


def main() -> int:
  """Returns the exit status."""
  stopped = 'stopped; nothing was written'
  return command_line.run(_draw, _parser, stopped)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__doc__)
  add = parser.add_argument
  add(
    '--checkpoint',
    required=True,
    metavar='RUN',
    help='directory of a run with configs/spatial_transformer.py',
  )
  add(
    '--out',
    type=command_line.out_file,
    required=True,
    metavar='FILE',
    help='to write; its ending says in what format: .png, .pdf or .svg',
  )
  add(
    '--columns',
    type=command_line.positive_int,
    default=10,
    metavar='N',
    help='classes, from the first, and angles (default: %(default)s)',
  )
  add(
    '--steps',
    type=command_line.positive_int,
    nargs='+',
    metavar='STEP',
    help='draw what was made of the inputs at these steps of the training',
  )
  add('--tfds_data_dir', metavar='DIR', help='where the data set is')
  return parser


def _draw(args: argparse.Namespace) -> int:
  # Here, so that a typo in an argument is answered before they are loaded.
  from vit_jax import figures, transformed

  kind = args.out.suffix.removeprefix('.').lower()
  if kind not in figures.FORMATS:
    raise errors.ConfigError(
      errors.unknown_name('format', kind, figures.FORMATS)
    )
  where = args.columns, args.tfds_data_dir
  if args.steps:
    learned = transformed.look_at_steps(args.checkpoint, args.steps, *where)
    figures.plot_learned(learned, args.out, learned.dataset)
  else:
    found = transformed.look(args.checkpoint, *where)
    figures.plot_transformed(found, args.out, found.dataset)
  print(args.out)
  return 0


if __name__ == '__main__':
  command_line.start(main)
