"""Rules by which PyTorch's names and layouts become ours, and ours theirs.

There, dense layers have the outputs first, convolutions are OIHW, and attention
has all heads in one dimension.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax import errors
from vit_jax.checkpoints.arrays import StoredArray, by_name
from vit_jax.checkpoints.names import heads

POSITIONS = 'Transformer/posembed_input/pos_embedding'


@dataclasses.dataclass(frozen=True)
class Layout:
  """One of the ways in which theirs differ from ours.

  Attributes:
    to_ours: (array, num_heads) -> a view of it.
    from_ours: the way back.
  """

  to_ours: Callable[[np.ndarray, int], np.ndarray]
  from_ours: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda x, _: x, lambda x: x)
DENSE = Layout(lambda x, _: x.transpose(1, 0), lambda x: x.transpose(1, 0))
CONV = Layout(
  lambda x, _: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1)
)
# Query, key and value: [heads * head_dim, width] and [width, heads, head_dim].
INTO_HEADS = Layout(
  lambda x, n: x.reshape(n, -1, x.shape[1]).transpose(2, 0, 1),
  lambda x: x.transpose(1, 2, 0).reshape(-1, x.shape[0]),
)
HEADS_BIAS = Layout(lambda x, n: x.reshape(n, -1), lambda x: x.reshape(-1))
# The way out: [width, heads * head_dim] and [heads, head_dim, width].
OUT_OF_HEADS = Layout(
  lambda x, n: x.reshape(x.shape[0], n, -1).transpose(1, 2, 0),
  lambda x: x.transpose(2, 0, 1).reshape(x.shape[2], -1),
)


@dataclasses.dataclass(frozen=True)
class Rule:
  """What one array is called.

  Attributes:
    ours: a name in which `{i}` and `{j}` stand for numbers, `{i1}` and `{j1}`
      for the same numbers where they are counted from one.
    theirs: their name, with the same numbers.
    layout: how theirs is laid out.
    part: (k, n) if ours is the k-th of n equal parts of theirs.
  """

  ours: str
  theirs: str
  layout: Layout = SAME
  part: tuple[int, int] = (0, 1)

  def to_ours(self, stored: StoredArray, num_heads: int) -> StoredArray:
    index, count = self.part

    def convert(x):
      size, rest = divmod(x.shape[0], count)
      if rest:
        raise ValueError('no equal parts')
      part = x[index * size : (index + 1) * size] if count > 1 else x
      return self.layout.to_ours(part, num_heads)

    return stored.map(convert)


def norm(ours: str, theirs: str) -> list[Rule]:
  """Returns the rules for a layer or group norm."""
  return [
    Rule(f'{ours}/scale', f'{theirs}.weight'),
    Rule(f'{ours}/bias', f'{theirs}.bias'),
  ]


def dense(ours: str, theirs: str) -> list[Rule]:
  """Returns the rules for a dense layer."""
  return _kernel_and_bias(ours, theirs, DENSE)


def conv(ours: str, theirs: str) -> list[Rule]:
  """Returns the rules for a convolution."""
  return _kernel_and_bias(ours, theirs, CONV)


def into_heads(
  ours: str, theirs: str, part: tuple[int, int] = (0, 1)
) -> list[Rule]:
  """Returns the rules for the dense layer of query, key or value."""
  return [
    Rule(f'{ours}/kernel', f'{theirs}.weight', INTO_HEADS, part),
    Rule(f'{ours}/bias', f'{theirs}.bias', HEADS_BIAS, part),
  ]


def out_of_heads(ours: str, theirs: str) -> list[Rule]:
  """Returns the rules for the dense layer after attention."""
  return _kernel_and_bias(ours, theirs, OUT_OF_HEADS)


def root(conv: str, norm_: str) -> list[Rule]:
  """Returns the rules for the root of a hybrid's ResNet."""
  return [
    Rule('conv_root/kernel', f'{conv}.weight', CONV),
    *norm('gn_root', norm_),
  ]


def bottlenecks(unit: str) -> list[Rule]:
  """Returns the rules for the bottlenecks, called `unit`, of that ResNet."""
  ours = 'block{i1}/unit{j1}'
  found = []
  for k in range(1, 4):
    found += [
      Rule(f'{ours}/conv{k}/kernel', f'{unit}.conv{k}.weight', CONV),
      *norm(f'{ours}/gn{k}', f'{unit}.norm{k}'),
    ]
  return [
    *found,
    Rule(f'{ours}/conv_proj/kernel', f'{unit}.downsample.conv.weight', CONV),
    *norm(f'{ours}/gn_proj', f'{unit}.downsample.norm'),
  ]


def _kernel_and_bias(ours: str, theirs: str, layout: Layout) -> list[Rule]:
  return [
    Rule(f'{ours}/kernel', f'{theirs}.weight', layout),
    Rule(f'{ours}/bias', f'{theirs}.bias'),
  ]


def to_ours(
  arrays: Mapping[str, StoredArray],
  rules: Sequence[Rule],
  *,
  num_heads: int | None,
  source: str,
  prefix: str = '',
) -> dict[str, StoredArray]:
  """Returns the arrays by our names; those without a rule keep theirs.

  Args:
    arrays: by the keys of the file.
    rules: those of its family.
    num_heads: None takes it from the width, as published models have it.
    source: the file, for the text of an error.
    prefix: what may stand before the keys.

  Raises:
    CheckpointError: two arrays have one name, or `num_heads` can't be had.
  """
  known = _by_skeleton(rules, 'theirs')
  found = {
    key: _find(key.removeprefix(prefix), known, 'theirs') for key in arrays
  }
  num_heads = _num_heads(arrays, found, num_heads, source)
  entries = []
  for key, matches in found.items():
    entries += [
      (name, rule.to_ours(arrays[key], num_heads)) for rule, name in matches
    ] or [(key, arrays[key])]
  return _with_zero_biases(by_name(entries, source))


def from_ours(
  arrays: Mapping[str, np.ndarray], rules: Sequence[Rule], family: str
) -> dict[str, np.ndarray]:
  """Returns the arrays by their names and in their layout.

  Args:
    arrays: by our names.
    rules: those of the family.
    family: how to call it in an error.

  Raises:
    CheckpointError: there is no rule for an array, or parts of one are missing.
  """
  parts: dict[str, list] = {}
  problems, known = [], _by_skeleton(rules, 'ours')
  for key, value in arrays.items():
    matches = _find(key, known, 'ours')
    if not matches:
      problems.append(f'{key} {value.shape} has no name there')
    for rule, name in matches:
      index, count = rule.part
      try:
        part = rule.layout.from_ours(value)
      except (ValueError, IndexError):
        problems.append(
          f"{key} has the shape {value.shape}, which is no model's"
        )
        continue
      parts.setdefault(name, [None] * count)[index] = part
  results = {
    name: _join(name, values, problems) for name, values in parts.items()
  }
  if problems:
    raise errors.CheckpointError(
      f'The names of {family} can not express these weights; save them as '
      f'.npz instead:\n{_lines(problems)}'
    )
  return results


def _join(name: str, parts: list, problems: list[str]) -> Any:
  if len(parts) == 1:
    return parts[0]
  if any(part is None for part in parts):
    problems.append(f'{name} is missing parts')
  elif len({(part.shape, part.dtype) for part in parts}) > 1:
    problems.append(f'{name} would have parts of different shape or dtype')
  else:
    return np.concatenate(parts)
  return None


def check_positions(arrays: Mapping[str, np.ndarray], family: str) -> None:
  """Raises CheckpointError for a model that computes its positions."""
  if 'Transformer/encoder_norm/scale' in arrays and POSITIONS not in arrays:
    raise errors.CheckpointError(
      f'The weights have no {POSITIONS}: their positions are sines and '
      f'cosines, which {family} does not compute. Save them as .npz instead.'
    )


def _lines(texts: Sequence[str], limit: int = 20) -> str:
  more = [f'and {len(texts) - limit} more'] * (len(texts) > limit)
  return '\n'.join(f'  {text}' for text in [*texts[:limit], *more])


@functools.cache
def _pattern(template: str) -> re.Pattern:
  pattern = re.escape(template)
  for field in ('i', 'j', 'i1', 'j1'):
    # Without leading zeros, so that names go back as they came.
    digits = r'[1-9]\d{0,4}' if field.endswith('1') else r'0|[1-9]\d{0,4}'
    pattern = pattern.replace(rf'\{{{field}\}}', f'(?P<{field}>{digits})')
  return re.compile(pattern)


_Known = Mapping[str, Sequence[Rule]]


def _by_skeleton(rules: Sequence[Rule], side: str) -> _Known:
  """Returns the rules by their names without the numbers.

  Few are left to be tried on a key; a file may have thousands of keys.
  """
  found: dict[str, list[Rule]] = {}
  for rule in rules:
    name = re.sub(r'\{\w+\}|\d+', '#', getattr(rule, side))
    found.setdefault(name, []).append(rule)
  return found


def _find(key: str, known: _Known, side: str) -> list[tuple[Rule, str]]:
  """Returns the rules for a key, each with the name on its other side."""
  other = {'ours': 'theirs', 'theirs': 'ours'}[side]
  found = []
  for rule in known.get(re.sub(r'\d+', '#', key), ()):
    match = _pattern(getattr(rule, side)).fullmatch(key)
    if match:
      numbers = {}
      for field, text in match.groupdict().items():
        first = int(field.endswith('1'))
        numbers[field[0]] = int(text) - first
        numbers[f'{field[0]}1'] = int(text) - first + 1
      found.append((rule, getattr(rule, other).format(**numbers)))
  return found


def _num_heads(arrays, found, num_heads: int | None, source: str) -> int:
  for key, matches in found.items():
    shape = arrays[key].shape
    if len(shape) == 2 and any(r.layout is INTO_HEADS for r, _ in matches):
      return heads.choose(shape[1], num_heads, source)
  return 1  # There is no attention.


def _with_zero_biases(arrays: dict[str, StoredArray]) -> dict[str, StoredArray]:
  """Adds the biases of a model trained without any on query, key and value.

  A missing bias is a bias of zero, unless only some are missing: then the file
  is not whole.
  """
  kernels = [
    key
    for key in arrays
    if re.fullmatch(r'.*/MultiHeadDotProductAttention_0/\w+/kernel', key)
    and not key.endswith('/out/kernel')
  ]
  biases = {key: f'{key.removesuffix("kernel")}bias' for key in kernels}
  if any(bias in arrays for bias in biases.values()):
    return arrays
  added = {}
  for key, bias in biases.items():
    shape, dtype = arrays[key].shape[1:], arrays[key].dtype
    read = functools.partial(np.zeros, shape, dtype)
    added[bias] = StoredArray('', shape, dtype, read)
  return arrays | added
