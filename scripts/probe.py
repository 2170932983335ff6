r"""Prints how good the features of any checkpoint are for any data set.

  python scripts/probe.py --checkpoint runs/vit/tiny,digits
  python scripts/probe.py --checkpoint ViT-B_16 --dataset cifar100 \
    --shots 5,10,25 --seeds 5 --out b16_cifar100.json
  python scripts/probe.py --checkpoint runs/vit/tiny,digits_0_to_4 \
    --dataset digits/5_to_9 --pixels

Nothing is trained: images go through the model once, its head aside, and ridge
regression and nearest neighbours are tried on what comes out. --shots all is a
linear probe. With --out, all numbers go to a JSON file, too.
"""

import argparse
import pathlib
import sys

from vit_jax import command_line, errors, progress

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))  # `configs`


def main() -> int:
  """Returns the exit status."""
  stopped = 'stopped; nothing was written'
  return command_line.run(_probe, _parser, stopped)


def _probe(args: argparse.Namespace) -> int:
  # Here, as it takes seconds, so that a typo is answered before.
  from configs import datasets
  from vit_jax import probe

  dataset, splits, label = datasets.splits_of(args.dataset)
  if not splits[0]:
    raise errors.ConfigError(
      f'{dataset!r} is there to evaluate on; there is nothing to fit.'
    )
  found = probe.probe(
    args.checkpoint,
    dataset,
    args.train_split,
    args.test_split,
    settings=probe.Settings(
      shots=args.shots,
      num_seeds=args.seeds,
      neighbours=args.neighbours,
      l2=args.l2,
      temperature=args.temperature,
      layer=args.layer,
      with_pixels=args.pixels,
    ),
    default_splits=splits,
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
  try:
    progress.print_summary(probe.as_lines(found))
    print(f'\n{probe.as_table(found)}', flush=True)
  finally:  # Whatever became of the table: it took a while.
    if args.out:
      probe.write_json(found, args.out)
  return 0


def _shots(text: str) -> tuple[int, ...]:
  """Returns numbers, 0 for 'all'."""
  parts = [part.strip() for part in text.split(',')] if text else []
  return tuple(
    0 if part == 'all' else command_line.positive_int(part) for part in parts
  )


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__doc__)
  remark = '; no head is needed'
  command_line.add_checkpoint(parser, 'ViT-B_16', remark)
  command_line.add_dataset(parser, 'cifar100')
  option = parser.add_argument
  option(
    '--train_split',
    default='',
    metavar='SPLIT',
    help="to fit on, such as train[:50%%]; by default the run's, of another "
    'data set what its preset trains on',
  )
  option(
    '--test_split', default='', metavar='SPLIT', help='to test on, likewise'
  )
  command_line.add_batch(parser)
  command_line.add_image_size(parser)
  command_line.add_num_heads(parser)
  _add_settings(parser)
  return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
  option = parser.add_argument
  option(
    '--shots',
    type=_shots,
    default='5,10,25,all',
    metavar='N,N…',
    help='examples of each class for ridge regression, "all" for all that '
    'there are, "" for none of it (default: 5,10,25,all)',
  )
  option(
    '--seeds',
    type=command_line.positive_int,
    default=3,
    metavar='N',
    help='draws of these examples, by the seeds 0 to N-1 (default: 3)',
  )
  option(
    '--neighbours',
    type=command_line.positive_ints,
    default='1,3,5,20',
    metavar='N,N…',
    help='that vote, "" for none of it (default: 1,3,5,20)',
  )
  option(
    '--layer',
    default='',
    metavar='N|encoder',
    help='features after this block, from 0, or before the layer pre_logits; '
    'by default what the head reads',
  )
  option(
    '--pixels',
    action='store_true',
    help='the same for the images themselves, of at most 32 x 32 pixels',
  )
  option(
    '--l2',
    type=command_line.positive_float,
    default=2.0**10,
    metavar='X',
    help='strength of the regularisation beside the one that is chosen by '
    "leaving one out (default: 1024, big_vision's)",
  )
  option(
    '--temperature',
    type=command_line.positive_float,
    default=0.07,
    metavar='X',
    help="of neighbours' weighted votes (default: 0.07, DINO's)",
  )
  option(
    '--out',
    type=command_line.out_file,
    metavar='FILE.json',
    help='of all numbers, to write',
  )


if __name__ == '__main__':
  command_line.start(main)
