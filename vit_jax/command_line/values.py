"""Types of arguments: from what was typed to a value, or what is wrong."""

import argparse
import math
import pathlib

from vit_jax import whole_files

_MAX = 2**31 - 1


def positive_int(text: str) -> int:
  """Returns a whole number from 1 to 2**31 - 1.

  Args:
    text: what was typed.

  Raises:
    argparse.ArgumentTypeError: it is another thing; so do all of these.
  """
  if not text.isdecimal() or not 0 < int(text) <= _MAX:
    raise argparse.ArgumentTypeError(
      f'{text!r} should be a whole number from 1 to {_MAX:,}'
    )
  return int(text)


def positive_ints(text: str) -> tuple[int, ...]:
  """Returns such numbers, which have commas between them.

  Args:
    text: what was typed, '' for no number.
  """
  parts = text.split(',') if text else []
  return tuple(positive_int(part.strip()) for part in parts)


def positive_float(text: str) -> float:
  """Returns a finite number above zero.

  Args:
    text: what was typed.
  """
  try:
    number = float(text)
  except ValueError:
    number = math.nan
  if not 0 < number < math.inf:
    raise argparse.ArgumentTypeError(f'{text!r} should be a number above zero')
  return number


def names(text: str) -> list[str]:
  """Returns what has commas between.

  Args:
    text: what was typed.
  """
  found = text.split(',')
  if '' in found:
    raise argparse.ArgumentTypeError(f'{text!r} has an empty part')
  return found


def out_file(text: str) -> pathlib.Path:
  """Returns the path of a file that can be written, or written over.

  It is found out now, as writing comes after hours perhaps.

  Args:
    text: what was typed.
  """
  path = pathlib.Path(text)
  problem = whole_files.no_file(path)
  if not problem and not path.parent.is_dir():
    problem = 'is in no directory there is'
  if problem:
    raise argparse.ArgumentTypeError(f'{text!r} {problem}. Name a file.')
  return path
