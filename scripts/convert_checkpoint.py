r"""Converts weights between .npz, .safetensors and run directories.

  python scripts/convert_checkpoint.py ViT-B_16.npz ViT-B_16.safetensors
  python scripts/convert_checkpoint.py runs/vit/tiny,digits tiny.safetensors
  python scripts/convert_checkpoint.py ViT-B_16.npz vit-base/model.safetensors \
    --names transformers

Then runs each file, as the model that it says it is, on random images and
prints how much the results differ: not at all for float32. Exit status 1 says
that they do.
"""

import argparse
import sys

import numpy as np

from vit_jax import checkpoints, command_line, convert, errors
from vit_jax.checkpoints import locate, names
from vit_jax.inspection import Description, describe

_TOLERANCE = 1e-5  # Of the largest value.


def main() -> int:
  """Returns the exit status."""
  return command_line.run(_convert, _parser)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__doc__)
  parser.add_argument(
    'source',
    metavar='IN',
    help=command_line.WEIGHTS.format(example='ViT-B_16'),
  )
  parser.add_argument(
    'out',
    metavar='OUT',
    help='.npz or .safetensors file; a directory gets a model.npz',
  )
  parser.add_argument(
    '--names',
    choices=sorted(names.WRITERS),
    help='whose names to write; by default google in .npz and timm in '
    '.safetensors',
  )
  parser.add_argument(
    '--image_size',
    type=command_line.positive_int,
    metavar='N',
    help='side in pixels of the random images; by default what the file was '
    'made for',
  )
  command_line.add_num_heads(parser)
  parser.add_argument(
    '--overwrite', action='store_true', help='write over OUT if it is there'
  )
  return parser


def _convert(args: argparse.Namespace) -> int:
  source = locate.locate(args.source)
  target = convert.target_file(args.out, source, overwrite=args.overwrite)
  found = _described(source, args.num_heads)
  print(f'read      {_summary(found)}', flush=True)
  size = convert.comparison_size(found)
  if args.image_size is not None:
    size = (args.image_size, args.image_size)
  # Before anything is written, as it says what doesn't fit.
  wanted = convert.outputs(source, convert.compared_models(found), size)
  params = checkpoints.load_params(source, num_heads=args.num_heads)
  checkpoints.save_params(params, target, names=args.names)
  # Nothing is taken from the source that only the source says.
  written = _described(str(target), args.num_heads)
  print(f'written   {_summary(written)}')
  print(f'SHA-256   {written.sha256}')
  status = 0
  outputs = convert.outputs(target, convert.compared_models(written), size)
  for what in wanted:
    output = outputs.get(what, np.zeros(0))
    difference, share = convert.largest_difference(output, wanted[what])
    print(
      f'compared  {what} of 2 random images, {size[0]} x {size[1]} pixels: '
      f'largest difference {difference:.3g}, {share:.3g} of the largest value'
    )
    if not share <= _TOLERANCE:
      status = 1
      print(
        f'error: expected at most {_TOLERANCE:g} of it. The written file has '
        'other weights; do not use it.',
        file=sys.stderr,
      )
  return status


def _described(path: str, num_heads: int | None) -> Description:
  found = describe(path, num_heads)
  if found.num_heads is None and found.family in ('ViT', 'hybrid'):
    raise errors.CheckpointError(
      f'{path}: the file does not say into how many attention heads its '
      f'width of {found.width} is divided. Say it with --num_heads N.'
    )
  return found


def _summary(found: Description) -> str:
  models = ', '.join(found.models) or f'like {found.nearest_model}'
  return (
    f'{found.path}: {found.family} ({models}), {found.container} with the '
    f'names of {found.names}, {found.num_params:,} parameters'
  )


if __name__ == '__main__':
  command_line.start(main)
