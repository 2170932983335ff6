r"""Prints what weight files are, and the command that fine-tunes them.

  python scripts/inspect_checkpoint.py ViT-B_16.npz
  python scripts/inspect_checkpoint.py --json runs/vit/tiny,digits *.safetensors

Reads headers and the head's kernel, besides the bytes for the SHA-256.
"""

import argparse
import dataclasses
import json
import os
import sys

from vit_jax import command_line, errors


def main() -> int:
  """Returns the exit status."""
  return command_line.run(_inspect, _parser)


def _inspect(args: argparse.Namespace) -> int:
  from vit_jax.inspection import describe, report

  status = 0
  for i, name in enumerate(args.files):
    try:
      found = describe(_find(name), args.num_heads)
    except errors.UserError as error:
      status = 2
      if args.json:
        print(json.dumps({'path': name, 'error': str(error)}))
      else:
        print(f'error: {error}', file=sys.stderr)
      continue
    if args.json:
      print(json.dumps(dataclasses.asdict(found)))
    else:
      print('\n' * (i > 0) + report.as_table(found))
  return status


def _find(name: str) -> str:
  if os.path.isfile(name):
    return name
  from vit_jax.checkpoints import locate  # What downloads takes a while.

  return locate.locate(name)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__doc__)
  parser.add_argument(
    'files',
    nargs='+',
    metavar='FILE',
    help=command_line.WEIGHTS.format(example='ViT-B_16'),
  )
  parser.add_argument(
    '--json',
    action='store_true',
    help='one JSON object a line for each FILE; of one that can not be told, '
    'with its path and the error',
  )
  command_line.add_num_heads(parser)
  return parser


if __name__ == '__main__':
  command_line.start(main)
