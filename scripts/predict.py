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
import sys

from vit_jax import command_line


def main() -> int:
  """Returns the exit status."""
  return command_line.run(_predict, _parser)


def _predict(args: argparse.Namespace) -> int:
  # Here, as it takes seconds, so that a typo is answered before.
  from vit_jax import predict, trained
  from vit_jax.data import images

  names = images.find_images(args.images)
  size = images.parse_size(args.image_size) if args.image_size else None
  opened = trained.load(args.checkpoint, size, args.num_heads)
  found = predict.predict(opened, names, batch=args.batch, fit=args.fit)
  opened, remarks = predict.with_names(
    opened, args.labels, args.tfds_data_dir, args.tfds_manual_dir
  )
  for remark in remarks:
    text = command_line.as_options(remark, vars(args))
    print(f'note: {text}', file=sys.stderr, flush=True)
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


def _parser() -> argparse.ArgumentParser:
  from vit_jax.data.images import FITS

  parser = command_line.make_parser(__doc__)
  option = parser.add_argument
  option(
    'images',
    nargs='+',
    metavar='FILE|URL|DIR',
    help='what to label; of a directory, the images in it',
  )
  command_line.add_checkpoint(parser, 'augreg+imagenet2012/S_16-224')
  option(
    '--top_k',
    type=command_line.positive_int,
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
  command_line.add_places(parser, 'of the data set in --labels')
  option(
    '--fit',
    choices=list(FITS),
    default='squash',
    help="how an image becomes the model's size: squash it, crop its middle, "
    'or pad it with grey (default: squash, as evaluation does, so that '
    'accuracies are comparable)',
  )
  option(
    '--batch',
    type=command_line.positive_int,
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
  command_line.add_num_heads(parser)
  return parser


if __name__ == '__main__':
  command_line.start(main)
