r"""Draws what a Vision Transformer looks at, as figures for a report.

  python scripts/attention_figures.py --checkpoint runs/vit/tiny,digits \
    --images photographs/ --out figures/
  python scripts/attention_figures.py --checkpoint ViT-B_16.npz \
    --images cat.jpg https://example.org/dog.png --out figures/ \
    --method relevance --layers all --heads 0,3 --format pdf
  python scripts/attention_figures.py --checkpoint ViT-B_16.npz \
    --images cat.jpg --html cat.html

Every image gets a directory with an overlay, a row of layers, a grid of layers
and heads, the six steps of the small-ViT tutorial, and the maps as maps.npz;
beside them are contact sheets and a summary.json. --html writes one page to
explore every layer and head with, patch by patch. Exit status 1 says that some
images could not be used.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable

from vit_jax import command_line


def main() -> int:
  """Returns the exit status."""
  stopped = 'stopped; what was written stays'
  return command_line.run(_draw, _parser, stopped)


def _draw(args: argparse.Namespace) -> int:
  from vit_jax.attention_report import Settings, parse_size, write_report

  settings = {
    field.name: getattr(args, field.name)
    for field in dataclasses.fields(Settings)
  }
  if args.image_size is not None:
    settings['image_size'] = parse_size(args.image_size)
  report = write_report(
    args.checkpoint,
    args.images,
    args.out,
    Settings(**settings),
    html=args.html,
  )
  for text in report.failed.values():
    print(f'error: {text}', file=sys.stderr)
  if report.left_out:
    print(
      f'{args.html} had no room for {len(report.left_out)} of the images, from '
      f'{report.left_out[0]} on. Make another page of those.',
      file=sys.stderr,
    )
  return 1 if report.failed else 0


def _parser() -> argparse.ArgumentParser:
  from vit_jax.attention_report import Settings

  parser = command_line.make_parser(__doc__)
  command_line.add_checkpoint(parser)
  parser.add_argument(
    '--images',
    required=True,
    nargs='+',
    metavar='FILE|URL|DIR',
    help='what to look at; of a directory, the images in it',
  )
  parser.add_argument(
    '--out', metavar='DIR', help='directory of figures, maps and summary'
  )
  parser.add_argument(
    '--html',
    metavar='FILE',
    help='a page to explore the attention with',
  )
  default = {each.name: each.default for each in dataclasses.fields(Settings)}

  def option(name: str, text: str, **kwargs) -> None:
    value = default[kwargs.get('dest', name)]
    shown = '' if value in (None, '') else f' (default: {value})'
    parser.add_argument(
      f'--{name}', default=value, help=text.replace('%', '%%') + shown, **kwargs
    )

  _add_maps(option)
  _add_looks(option)
  _add_model(option)
  command_line.add_num_heads(parser)
  return parser


def _add_maps(option: Callable[..., None]) -> None:
  from vit_jax.attention import HEAD_FUSIONS
  from vit_jax.attention_report import METHODS

  option('method', 'of the overlay', choices=list(METHODS))
  option(
    'layers',
    'all, or any of first, middle, last, 0, 1, ... by commas; from the end '
    'with an equals sign, --layers=-1,-2',
  )
  option('heads', 'mean, all, or numbers by commas')
  option(
    'class',
    'to ask about, by its number or name; by default the predicted one',
    dest='class_asked',
    metavar='CLASS',
  )
  option(
    'head_fusion',
    'how heads become one in rollout and on the page',
    choices=list(HEAD_FUSIONS),
  )
  option(
    'discard_ratio',
    'share of the smallest weights that are left out, 0 to 1, in rollout, '
    'grad_rollout and on the page',
    type=float,
  )
  option(
    'faithfulness',
    'measure deletion and insertion areas, in 42 forward passes of each image',
    action=argparse.BooleanOptionalAction,
  )


def _add_looks(option: Callable[..., None]) -> None:
  from vit_jax.data.images import FITS

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
  option('note', 'text below every figure, such as "random weights"')


def _add_model(option: Callable[..., None]) -> None:
  option('batch', 'images at a time', type=int, metavar='N')
  option(
    'image_size',
    'side in pixels, or height and width as 224x320; by default what the '
    'weights were made for',
    metavar='N',
  )


if __name__ == '__main__':
  command_line.start(main)
