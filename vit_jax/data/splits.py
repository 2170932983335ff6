"""Splits of images that come with none: shares of them by a hash of the name.

Where a file belongs depends on its own name alone, so one that is added moves
no other.
"""

import dataclasses
import hashlib
import re
import unicodedata
from collections.abc import Collection, Iterable
from fractions import Fraction
from typing import Any

import numpy as np

from vit_jax import errors

# What folders, and the rows of a manifest, call the splits.
NAMES = {
  'train': 'train',
  'test': 'test',
  'val': 'validation',
  'validation': 'validation',
}
# Percent that are trained on where neither split says how many.
_TRAINED_ON = 90
_HASH_BYTES = 7  # As many as fit into int64.
_NUM_HASHES = 1 << 8 * _HASH_BYTES
_PART = re.compile(r'\s*(\w+)\s*(?:\[([^\[\]:]*):([^\[\]:]*)\])?\s*')
_PERCENT = re.compile(r'\s*(-?\d+(?:\.\d+)?)\s*%\s*')


@dataclasses.dataclass(frozen=True)
class Part:
  """A share of a split.

  Attributes:
    base: 'train', 'test' or 'validation'.
    start: percent, in [0, 100].
    stop: percent, in [0, 100].
    is_sliced: whether it was written with brackets.
  """

  base: str
  start: Fraction = Fraction(0)
  stop: Fraction = Fraction(100)
  is_sliced: bool = False

  def __str__(self) -> str:
    if self.is_whole:
      return self.base
    start = f'{float(self.start):g}%' if self.start > 0 else ''
    stop = f'{float(self.stop):g}%' if self.stop < 100 else ''
    return f'{self.base}[{start}:{stop}]'

  @property
  def is_whole(self) -> bool:
    return (self.start, self.stop) == (0, 100)

  def holds(self, hashes: np.ndarray) -> np.ndarray:
    """Returns which of the int64 `hashes` are in it, bool of their shape."""
    start, stop = (
      int(percent * _NUM_HASHES / 100) for percent in (self.start, self.stop)
    )
    return (hashes >= start) & (hashes < stop)


def canonical(name: str) -> str:
  """Returns one spelling of a name that file systems spell differently."""
  return name if name.isascii() else unicodedata.normalize('NFC', name)


def hash_name(name: str) -> int:
  """Returns where in [0, 2**56) a file stands, the same on every machine.

  It is the first of BLAKE2b's bytes (RFC 7693, digest of 7) as a big-endian
  number; `name` is taken as UTF-8, in Unicode's composed form (NFC).

  Args:
    name: path relative to the folder of the split, with slashes.
  """
  encoded = canonical(name).encode('utf-8', 'surrogateescape')
  digest = hashlib.blake2b(encoded, digest_size=_HASH_BYTES).digest()
  return int.from_bytes(digest, 'big')


def hash_names(names: Collection[str]) -> np.ndarray:
  """Returns `hash_name` of each, int64."""
  return np.fromiter(map(hash_name, names), np.int64, len(names))


def resolve(
  split: str, available: Collection[str], config: Any, where: str
) -> list[Part]:
  """Returns what of the splits that are there a split's text means.

  Args:
    split: such as 'test' or 'train[:90%]+validation'; percentages alone.
    available: names of the splits; none where the images are not split. Then
      'train[...]' is a share of all of them; 'train' or 'test' alone is what
      the other one of `config.pp` leaves, 90 % and 10 % where both are alone.
    config: its `pp`, if any, has the texts `train` and `test`.
    where: the data set, for errors.

  Raises:
    ConfigError: it is malformed, or there is no such split.
  """
  parts = parse(split, where)
  if not available:
    parts = _shares_of_all(parts, config, where)
    missing = []
  else:
    parts = [_with_fallback(part, available, config) for part in parts]
    missing = [part.base for part in parts if part.base not in available]
  if missing:
    raise errors.ConfigError(_missing_text(missing, available, where))
  if not any(part.start < part.stop for part in parts):
    raise errors.ConfigError(f'{where}: split {split!r} leaves nothing.')
  return parts


def to_text(parts: Iterable[Part]) -> str:
  """Returns what `resolve` would make the same parts of."""
  return '+'.join(map(str, parts))


def parse(split: str, where: str) -> list[Part]:
  """Returns the parts that a split's text names, whatever splits there are.

  Args:
    split: as `resolve` takes it.
    where: the data set, for errors.

  Raises:
    ConfigError: it is malformed.
  """
  parts = []
  for text in split.split('+'):
    match = _PART.fullmatch(text)
    if not match:
      raise _malformed(split, where)
    name, *bounds = match.groups()
    if name.lower() not in NAMES:
      text = errors.unknown_name('split', name, NAMES)
      raise errors.ConfigError(f'{where}: {text}')
    base, is_sliced = NAMES[name.lower()], bounds[0] is not None
    if is_sliced:
      start, stop = (
        _percent(bound, default, split, where)
        for bound, default in zip(bounds, (0, 100), strict=True)
      )
      parts.append(Part(base, start, stop, is_sliced))
    else:
      parts.append(Part(base))
  return parts


def _percent(bound: str, default: int, split: str, where: str) -> Fraction:
  if not bound.strip():
    return Fraction(default)
  match = _PERCENT.fullmatch(bound)
  if not match:
    raise _malformed(split, where)
  value = Fraction(match[1])
  if match[1].startswith('-'):  # Counted from the end.
    value += 100
  return min(max(value, Fraction(0)), Fraction(100))


def _malformed(split: str, where: str) -> errors.ConfigError:
  return errors.ConfigError(
    f"{where}: can't tell what split {split!r} is. Expected the like of "
    "'train', 'train[:90%]' or 'train+validation'. Numbers are percent: images "
    'are split by a hash of their names, which keeps no exact count.'
  )


def _shares_of_all(parts: list[Part], config: Any, where: str) -> list[Part]:
  """Returns parts of 'train' that stand for those of what is not split."""
  shares = []
  if len(parts) > 1 and not all(part.is_sliced for part in parts):
    raise errors.ConfigError(
      f'{where} is not split, so {to_text(parts)!r} can not be told from the '
      "rest. Set --config.pp.train='train[:90%]' "
      "--config.pp.test='train[90%:]'."
    )
  for part in parts:
    if part.is_sliced and part.base != 'train':
      raise errors.ConfigError(
        f'{where} has no split {part.base!r} to take a part of. Write parts of '
        f"all images as those of 'train': 'train[90%:]'."
      )
    shares += [part] if part.is_sliced else _rest(part.base, config, where)
  return shares


def _rest(base: str, config: Any, where: str) -> list[Part]:
  """Returns what the other split of `config.pp` leaves of all images."""
  is_train = base == 'train'
  pp = getattr(config, 'pp', None) or {}
  other = pp.get('test' if is_train else 'train') or ''
  taken = [
    part
    for part in (parse(other, where) if other else ())
    if part.is_sliced and part.base == 'train'
  ]
  if not taken:
    cut = Fraction(_TRAINED_ON)
    if is_train:
      return [Part('train', stop=cut, is_sliced=True)]
    return [Part('train', start=cut, is_sliced=True)]
  rest, start = [], Fraction(0)
  for part in sorted(taken, key=lambda part: part.start):
    rest.append(Part('train', start, part.start, is_sliced=True))
    start = max(start, part.stop)
  rest.append(Part('train', start, is_sliced=True))
  return [part for part in rest if part.start < part.stop] or [
    Part('train', Fraction(100), is_sliced=True)
  ]


def _with_fallback(part: Part, available: Collection[str], config: Any) -> Part:
  """Returns the validation split where there is no test split to be had."""
  pp = getattr(config, 'pp', None) or {}
  is_trained_on = 'val' in (pp.get('train') or '').lower()
  if part.base != 'test' or 'test' in available or is_trained_on:
    return part
  if 'validation' not in available:
    return part
  return dataclasses.replace(part, base='validation')


def _missing_text(
  missing: list[str], available: Collection[str], where: str
) -> str:
  has = ', '.join(available)
  if 'train' not in available:
    return (
      f'{where} has {has}, but no train, which the classes come from. Add it, '
      'or name the folder of the classes itself.'
    )
  held_out = [name for name in ('test', 'validation') if name in available]
  if held_out:
    flags = f'--config.pp.train=train --config.pp.test={held_out[0]}'
  else:
    flags = (
      "--config.pp.train='train[:90%]' --config.pp.test='train[90%:]', which "
      'holds a tenth out'
    )
  return (
    f'{where} has no {" or ".join(dict.fromkeys(missing))}, only: {has}. '
    f'Set {flags}.'
  )
