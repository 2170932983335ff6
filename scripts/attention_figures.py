r"""Draws what a Vision Transformer looks at, as figures for a report.

  python scripts/attention_figures.py --checkpoint runs/vit/tiny,digits \
    --images photographs/ --out figures/
  python scripts/attention_figures.py --checkpoint ViT-B_16.npz \
    --images cat.jpg https://example.org/dog.png --out figures/ \
    --method relevance --layers all --heads 0,3 --format pdf

Every image gets a directory with an overlay, a row of layers, a grid of layers
and heads, the six steps of the small-ViT tutorial, and the maps as maps.npz;
beside them are contact sheets and a summary.json. Exit status 1 says that some
images could not be used.
"""

import argparse
import dataclasses
import sys

from vit_jax import errors
from vit_jax.attention_report import METHODS, Settings, write_report
from vit_jax.data.images import FITS


def main() -> int:
  """Returns the exit status."""
  args = vars(_parser().parse_args())
  checkpoint, names, out = (
    args.pop(key) for key in ('checkpoint', 'images', 'out')
  )
  try:
    failed = write_report(checkpoint, names, out, Settings(**args))
  except errors.UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  for text in failed.values():
    print(f'error: {text}', file=sys.stderr)
  return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  default = {each.name: each.default for each in dataclasses.fields(Settings)}

  def option(name: str, text: str, **kwargs) -> None:
    value = default[kwargs.get('dest', name)]
    shown = '' if value in (None, '') else f' (default: {value})'
    parser.add_argument(
      f'--{name}', default=value, help=text.replace('%', '%%') + shown, **kwargs
    )

  parser.add_argument(
    '--checkpoint',
    required=True,
    metavar='PATH|NAME',
    help='.npz or .safetensors file, run directory, name of published weights '
    'such as ViT-B_16, or address (https://, gs://, hf://)',
  )
  parser.add_argument(
    '--images',
    required=True,
    nargs='+',
    metavar='FILE|URL|DIR',
    help='what to look at; of a directory, the images in it',
  )
  parser.add_argument('--out', required=True, metavar='DIR', help='where to')
  option('method', 'of the overlay', choices=list(METHODS))
  option('layers', 'all, or any of first, middle, last, 0, 1, ... by commas')
  option('heads', 'mean, all, or numbers by commas')
  option(
    'class',
    'number of the class to ask about; by default the predicted one',
    dest='class_index',
    type=int,
    metavar='N',
  )
  option(
    'fit',
    "how an image becomes the model's size: crop its middle, squash it, or pad "
    'it with grey',
    choices=list(FITS),
  )
  option('format', 'of the figures', choices=['png', 'pdf', 'svg'])
  option('alpha', "share of the map's colour in overlays, 0 to 1", type=float)
  option('colormap', 'a name of matplotlib')
  option('dpi', 'pixels per inch', type=int)
  option('batch', 'images at a time', type=int, metavar='N')
  option(
    'image_size',
    'side in pixels; by default what the weights were made for',
    type=int,
    metavar='N',
  )
  option(
    'num_heads',
    'attention heads, for files that do not say it and a width that no '
    'published model has',
    type=int,
    metavar='N',
  )
  option('note', 'text below every figure, such as "random weights"')
  option(
    'faithfulness',
    'measure deletion and insertion areas, in 42 forward passes of each image',
    action=argparse.BooleanOptionalAction,
  )
  return parser


if __name__ == '__main__':
  sys.exit(main())
