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

from vit_jax import errors
from vit_jax.inspection import describe, report


def main() -> int:
  """Returns the exit status."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    'files',
    nargs='+',
    metavar='FILE',
    help='.npz or .safetensors file, run directory, name of published weights '
    'such as ViT-B_16, or address (https://, gs://, hf://)',
  )
  parser.add_argument(
    '--json',
    action='store_true',
    help='one JSON object a line for each FILE; of one that can not be told, '
    'with its path and the error',
  )
  parser.add_argument(
    '--num_heads',
    type=_positive,
    metavar='N',
    help='attention heads, for files that do not say it and a width that no '
    'published model has',
  )
  args = parser.parse_args()
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


def _positive(text: str) -> int:
  if not text.isdecimal() or not int(text):
    raise argparse.ArgumentTypeError(f'{text!r} is no positive number')
  return int(text)


def _find(name: str) -> str:
  if os.path.isfile(name):
    return name
  from vit_jax.checkpoints import locate  # What downloads takes a while.

  return locate.locate(name)


if __name__ == '__main__':
  sys.exit(main())
