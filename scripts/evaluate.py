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
import os
import pathlib
import re
import signal
import sys

from vit_jax import checkpoint_evaluation, errors, progress

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))  # `configs`


def main() -> int:
  """Returns the exit status."""
  args = _parser().parse_args()
  try:
    return _evaluate(args)
  except errors.UserError as error:
    text = re.sub(r'--config\.(tfds_\w+)=', r'--\1 ', str(error))
    print(f'error: {text}', file=sys.stderr)
    return 2
  except BrokenPipeError:  # Of `| head`, which has seen enough.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
  except OSError as error:  # Of a full disk that standard output is on.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    print(f'error: standard output: {error.strerror}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('stopped; there is no part of an evaluation', file=sys.stderr)
    return 130


def _evaluate(args: argparse.Namespace) -> int:
  dataset, default_split, label = _preset(args.dataset)
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
    num_heads=args.num_heads,
    tell=lambda text: print(text, file=sys.stderr, flush=True),
  )
  for remark in found.remarks:
    print(f'warning: {remark}', file=sys.stderr, flush=True)
  if args.json:
    print(json.dumps(checkpoint_evaluation.as_json(found)), flush=True)
  else:
    progress.print_summary(checkpoint_evaluation.as_lines(found))
  return 0


def _preset(name: str) -> tuple[str, str, str]:
  """Returns the data set that a name means, its split to test on, its label."""
  from configs import datasets

  base = re.split('[/:]', name)[0]
  if base in datasets.EVALUATION_ONLY:
    return name, datasets.EVALUATION_ONLY[base], ''
  preset = datasets.DATASETS.get(name) or datasets.DATASETS.get(base) or {}
  return (
    preset.get('dataset', name),
    preset.get('pp', {}).get('test', 'test'),
    preset.get('label', ''),
  )


def _positive(text: str) -> int:
  if not text.isdecimal() or not int(text):
    raise argparse.ArgumentTypeError(f'{text!r} is no positive number')
  return int(text)


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
    'such as augreg+imagenet2012/S_16-224, or address (https://, gs://, hf://)',
  )
  option(
    '--dataset',
    default='',
    metavar='NAME|PATH',
    help='of tfds, such as imagenet2012; of a preset, such as vtab/dtd; or a '
    "folder or list of images. By default the run's",
  )
  option(
    '--split',
    default='',
    help="such as test or train[99%%:]; by default what the data set's preset "
    'tests on, and of the data set of a run, what the run does',
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
    '--label',
    default='',
    help="what examples are labelled by instead of the data set's own label, "
    'such as clevr_count',
  )
  option('--tfds_data_dir', metavar='DIR', help='where the data set is')
  option(
    '--tfds_manual_dir',
    metavar='DIR',
    help='where the archive of CIFAR is, if you fetched it yourself',
  )
  option(
    '--num_heads',
    type=_positive,
    metavar='N',
    help='attention heads, for files that do not say it and a width that no '
    'published model has',
  )
  option('--json', action='store_true', help='print one JSON object')
  return parser


if __name__ == '__main__':
  # As job schedulers stop a program.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  sys.exit(main())
