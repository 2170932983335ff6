"""Options that several command lines have, which are the same in all."""

import argparse

from vit_jax.command_line.values import positive_int

# What stands for weights, after `locate.locate`.
WEIGHTS = (
  '.npz or .safetensors file, run directory, name of published weights such as '
  '{example}, or address (https://, gs://, hf://)'
)


def make_parser(description: str | None) -> argparse.ArgumentParser:
  """Returns a parser without options.

  Args:
    description: the docstring of a script, which is shown as it is written.
  """
  return argparse.ArgumentParser(
    description=description,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )


def add_checkpoint(
  parser: argparse.ArgumentParser, example: str = 'ViT-B_16', remark: str = ''
) -> None:
  """Adds --checkpoint.

  Args:
    parser: to add to.
    example: of published weights.
    remark: of what else matters.
  """
  parser.add_argument(
    '--checkpoint',
    required=True,
    metavar='PATH|NAME',
    help=WEIGHTS.format(example=example) + remark,
  )


def add_num_heads(parser: argparse.ArgumentParser) -> None:
  """Adds --num_heads, of a model that is made from a file."""
  parser.add_argument(
    '--num_heads',
    type=positive_int,
    metavar='N',
    help='attention heads, for files that do not say it and a width that no '
    'published model has',
  )


def add_image_size(parser: argparse.ArgumentParser) -> None:
  """Adds --image_size, of squares."""
  parser.add_argument(
    '--image_size',
    type=positive_int,
    metavar='N',
    help='side in pixels; by default what the weights were made for',
  )


def add_batch(parser: argparse.ArgumentParser) -> None:
  """Adds --batch, of a pass over a split."""
  parser.add_argument(
    '--batch',
    type=positive_int,
    metavar='N',
    help="images at a time (default: the run's, or 64)",
  )


def add_dataset(parser: argparse.ArgumentParser, example: str) -> None:
  """Adds what data are read: --dataset, --label, and where they are.

  Args:
    parser: to add to.
    example: a tfds name.
  """
  parser.add_argument(
    '--dataset',
    default='',
    metavar='NAME|PATH',
    help=f'of tfds, such as {example}; of a preset, such as vtab/dtd; or a '
    "folder or list of images. By default the run's",
  )
  parser.add_argument(
    '--label',
    default='',
    help="what examples are labelled by instead of the data set's own label, "
    'such as clevr_count',
  )
  add_places(parser, 'where the data set is')
  parser.add_argument(
    '--follow_links',
    action='store_true',
    help='read what symbolic links in a folder of images lead to outside of it',
  )


def add_places(parser: argparse.ArgumentParser, what: str) -> None:
  """Adds --tfds_data_dir and --tfds_manual_dir.

  Args:
    parser: to add to.
    what: the former is for.
  """
  parser.add_argument('--tfds_data_dir', metavar='DIR', help=what)
  parser.add_argument(
    '--tfds_manual_dir',
    metavar='DIR',
    help='where the archive of CIFAR is, if you fetched it yourself',
  )
