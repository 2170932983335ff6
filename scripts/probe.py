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
import math
import os
import pathlib
import re
import signal
import sys

from vit_jax import errors, probe, progress

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))  # `configs`


def main() -> int:
  """Returns the exit status."""
  args = _parser().parse_args()
  try:
    return _probe(args)
  except errors.UserError as error:
    text = re.sub(r'--config\.(tfds_\w+)=', r'--\1 ', str(error))
    print(f'error: {text}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('stopped; nothing was written', file=sys.stderr)
    return 130


def _probe(args: argparse.Namespace) -> int:
  if args.out:
    probe.check_out(args.out)
  dataset, splits, label = _preset(args.dataset)
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
    num_heads=args.num_heads,
    tell=lambda text: print(text, file=sys.stderr, flush=True),
  )
  for remark in found.remarks:
    print(f'warning: {remark}', file=sys.stderr, flush=True)
  status = _print(found)
  if args.out:  # Whatever became of the table: it took a while.
    probe.write_json(found, args.out)
  return status


def _print(found: probe.Probe) -> int:
  """Returns the exit status."""
  try:
    progress.print_summary(probe.as_lines(found))
    print(f'\n{probe.as_table(found)}', flush=True)
    return 0
  except BrokenPipeError:  # Of `| head`, which has seen enough.
    status = 141
  except OSError as error:  # Of a full disk that standard output is on.
    print(f'error: standard output: {error.strerror}', file=sys.stderr)
    status = 2
  os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
  return status


def _preset(name: str) -> tuple[str, tuple[str, str], str]:
  """Returns the data set that a name means, its two splits, its label."""
  from configs import datasets

  base = re.split('[/:]', name)[0]
  if base in datasets.EVALUATION_ONLY:
    raise errors.ConfigError(
      f'{name!r} is there to evaluate on; there is nothing to fit.'
    )
  preset = datasets.DATASETS.get(name) or datasets.DATASETS.get(base) or {}
  pp = preset.get('pp', {})
  return (
    preset.get('dataset', name),
    (pp.get('train', 'train'), pp.get('test', 'test')),
    preset.get('label', ''),
  )


def _positive(text: str) -> int:
  if not text.isdecimal() or not int(text):
    raise argparse.ArgumentTypeError(f'{text!r} is no positive number')
  return int(text)


def _above_zero(text: str) -> float:
  try:
    number = float(text)
  except ValueError:
    number = math.nan
  if not 0 < number < math.inf:
    raise argparse.ArgumentTypeError(f'{text!r} is no number above zero')
  return number


def _numbers(text: str) -> tuple[int, ...]:
  parts = [part.strip() for part in text.split(',')] if text else []
  return tuple(map(_positive, parts))


def _shots(text: str) -> tuple[int, ...]:
  """Returns numbers, 0 for 'all'."""
  parts = [part.strip() for part in text.split(',')] if text else []
  return tuple(0 if part == 'all' else _positive(part) for part in parts)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  option = parser.add_argument
  option(
    '--checkpoint',
    required=True,
    metavar='PATH|NAME',
    help='.npz or .safetensors file, run directory, name of published weights '
    'such as ViT-B_16, or address (https://, gs://, hf://); no head is needed',
  )
  option(
    '--dataset',
    default='',
    metavar='NAME|PATH',
    help='of tfds, such as cifar100; of a preset, such as vtab/dtd; or a '
    "folder or list of images. By default the run's",
  )
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
  option('--label', default='', help='of the data set, such as clevr_count')
  option('--tfds_data_dir', metavar='DIR', help='where the data set is')
  option(
    '--tfds_manual_dir',
    metavar='DIR',
    help='where the archive of CIFAR is, if you fetched it yourself',
  )
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
    type=_positive,
    default=3,
    metavar='N',
    help='draws of these examples, by the seeds 0 to N-1 (default: 3)',
  )
  option(
    '--neighbours',
    type=_numbers,
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
    type=_above_zero,
    default=2.0**10,
    metavar='X',
    help='strength of the regularisation beside the one that is chosen by '
    "leaving one out (default: 1024, big_vision's)",
  )
  option(
    '--temperature',
    type=_above_zero,
    default=0.07,
    metavar='X',
    help="of neighbours' weighted votes (default: 0.07, DINO's)",
  )
  option(
    '--batch',
    type=_positive,
    metavar='N',
    help="images at a time (default: the run's, or 64)",
  )
  option(
    '--image_size',
    type=_positive,
    metavar='N',
    help='side in pixels; by default what the weights were made for',
  )
  option(
    '--num_heads',
    type=_positive,
    metavar='N',
    help='attention heads, for files that do not say it',
  )
  option('--out', type=pathlib.Path, metavar='FILE.json')


if __name__ == '__main__':
  # As job schedulers stop a program.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  sys.exit(main())
