r"""Prints how accurate any checkpoint is on any data set.

  python scripts/evaluate.py --checkpoint runs/vit/tiny,digits
  python scripts/evaluate.py --checkpoint augreg+imagenet2012/S_16-224 \
    --dataset imagenet2012
  python scripts/evaluate.py --checkpoint runs/vit/b16,pets --dataset pets/ \
    --split test --json

Every example counts once. Beside the accuracy stands what was published of
these weights, where it is known. Images are squashed, as for every evaluation
here, unless the run that the weights are of cut out their middle.
"""

import argparse
import json
import pathlib
import sys

from vit_jax import command_line, progress

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))  # `configs`


def main() -> int:
  """Returns the exit status."""
  stopped = 'stopped; there is no part of an evaluation'
  return command_line.run(_evaluate, _parser, stopped)


def _evaluate(args: argparse.Namespace) -> int:
  # Here, as it takes seconds, so that a typo is answered before.
  from configs import datasets
  from vit_jax import checkpoint_evaluation

  dataset, (_, default_split), label = datasets.splits_of(args.dataset)
  found = checkpoint_evaluation.evaluate(
    args.checkpoint,
    dataset,
    args.split,
    default_split=default_split,
    batch=args.batch,
    image_size=args.image_size,
    label=args.label or label,
    tfds_data_dir=args.tfds_data_dir,
    tfds_manual_dir=args.tfds_manual_dir,
    follow_links=args.follow_links,
    num_heads=args.num_heads,
    tell=lambda text: print(text, file=sys.stderr, flush=True),
  )
  for remark in found.remarks:
    text = command_line.as_options(remark, vars(args))
    print(f'warning: {text}', file=sys.stderr, flush=True)
  if args.json:
    print(json.dumps(checkpoint_evaluation.as_json(found)), flush=True)
  else:
    progress.print_summary(checkpoint_evaluation.as_lines(found))
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__doc__)
  command_line.add_checkpoint(parser, 'augreg+imagenet2012/S_16-224')
  command_line.add_dataset(parser, 'imagenet2012')
  option = parser.add_argument
  option(
    '--split',
    default='',
    help="such as test or train[99%%:]; by default what the data set's preset "
    'tests on, and of the data set of a run, what the run does',
  )
  command_line.add_batch(parser)
  command_line.add_image_size(parser)
  command_line.add_num_heads(parser)
  option('--json', action='store_true', help='print one JSON object')
  return parser


if __name__ == '__main__':
  command_line.start(main)
