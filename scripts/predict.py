r"""Labels images with any checkpoint.

  python scripts/predict.py --checkpoint runs/vit/tiny,digits scans/
  python scripts/predict.py --checkpoint augreg+imagenet2012/S_16-224 cat.jpg \
    https://example.org/dog.png --top_k 3
  python scripts/predict.py --checkpoint model.safetensors photographs/ \
    --labels names.txt --format jsonl > labels.jsonl

Prints the likeliest classes of each image in the order of the images, as soon
as they are known. An image that can't be used is a line on standard error, and
the exit status is 1 then. With --format jsonl, standard output has one JSON
object a line for each of the others and nothing else.
"""

import argparse
import os
import re
import signal
import sys

from vit_jax import errors, predict, trained
from vit_jax.data import images


def main() -> int:
  """Returns the exit status."""
  args = _parser().parse_args()
  try:
    return _predict(args)
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
    print('stopped', file=sys.stderr)
    return 130


def _predict(args: argparse.Namespace) -> int:
  names = images.find_images(args.images)
  size = images.parse_size(args.image_size) if args.image_size else None
  opened = trained.load(args.checkpoint, size, args.num_heads)
  found = predict.predict(opened, names, batch=args.batch, fit=args.fit)
  opened, remarks = predict.with_names(
    opened, args.labels, args.tfds_data_dir, args.tfds_manual_dir
  )
  for remark in remarks:
    print(f'note: {remark}', file=sys.stderr, flush=True)
  if args.format == 'jsonl':
    form = predict.Lines(opened, args.top_k)
  else:
    form = predict.Table(opened, args.top_k, names)
  num_failed = 0
  for each in found:
    if each.error:
      num_failed += 1
      print(f'error: {_on_a_line(each.error)}', file=sys.stderr, flush=True)
    else:
      print(form.text(each), flush=True)
  return 1 if num_failed else 0


def _on_a_line(text: str) -> str:
  return ' '.join(text.splitlines())


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
    'images',
    nargs='+',
    metavar='FILE|URL|DIR',
    help='what to label; of a directory, the images in it',
  )
  option(
    '--checkpoint',
    required=True,
    metavar='PATH|NAME',
    help='.npz or .safetensors file, run directory, name of published weights '
    'such as augreg+imagenet2012/S_16-224, or address (https://, gs://, hf://)',
  )
  option(
    '--top_k',
    type=_positive,
    default=5,
    metavar='N',
    help='classes of each image (default: 5)',
  )
  option(
    '--format',
    choices=['table', 'jsonl'],
    default='table',
    help='of standard output (default: table)',
  )
  option(
    '--labels',
    default='',
    metavar='FILE|imagenet|DATASET',
    help='what the classes are called: a file with a name a line or a JSON '
    'list; imagenet; or the name or path of a data set with these classes. By '
    'default what lies beside the weights',
  )
  option('--tfds_data_dir', metavar='DIR', help='of the data set in --labels')
  option(
    '--tfds_manual_dir',
    metavar='DIR',
    help='where the archive of CIFAR is, if you fetched it yourself',
  )
  option(
    '--fit',
    choices=list(images.FITS),
    default='squash',
    help="how an image becomes the model's size: squash it, crop its middle, "
    'or pad it with grey (default: squash, as evaluation does, so that '
    'accuracies are comparable)',
  )
  option(
    '--batch',
    type=_positive,
    default=32,
    metavar='N',
    help='images at a time (default: 32)',
  )
  option(
    '--image_size',
    metavar='N',
    help='side in pixels, or height and width as 224x320; by default what the '
    'weights were made for',
  )
  option(
    '--num_heads',
    type=_positive,
    metavar='N',
    help='attention heads, for files that do not say it and a width that no '
    'published model has',
  )
  return parser


if __name__ == '__main__':
  # As job schedulers stop a program: what was printed stays.
  signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
  sys.exit(main())
