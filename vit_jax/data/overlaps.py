"""Tells what is evaluated and trained on as well, by the texts of splits."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from vit_jax.data import builders, paths, splits
from vit_jax.data.sources import Source

# The ends of 'train[98%:]', as they are written.
_SLICE = re.compile(r'[\w-]+\[([^:\[\]]*):([^:\[\]]*)\]')


class _Span(NamedTuple):
  """Neighbours in a split: examples by number, of a folder percents."""

  base: str
  start: Any
  stop: Any


def warning(
  config: Any, train: Source, eval_sources: Mapping[str, Source]
) -> str:
  """Returns which sets have examples that are trained on, and how to avoid it.

  Args:
    config: as `sources.load_source` takes it.
    train: what is trained on.
    eval_sources: by name. Those of another data set have no example in common
      with it; nor have two versions of one, as far as can be told.

  Returns:
    One line, '' if there is nothing to say.
  """
  same = {
    name: source
    for name, source in eval_sources.items()
    if _is_same(config, train.name, source.name)
  }
  read, write = (_of_folder if paths.is_path(train.name) else _of_tfds)(config)
  trained = read(train.split)
  shared = {
    name: found
    for name, source in same.items()
    if (found := _common(read(source.split), trained))
  }
  if not shared:
    return ''
  what = ', '.join(f'{name} has {write(each)}' for name, each in shared.items())
  rest = _without(trained, [span for each in shared.values() for span in each])
  if not rest:
    remedy = 'Nothing else is trained on: change config.pp.train or the sets'
  else:
    held_out = 'it' if len(shared) == 1 else 'them'
    remedy = f"--config.pp.train='{write(rest)}' holds {held_out} out"
  return f'{what} in common with what is trained on. {remedy}'


def _is_same(config: Any, name: str, other: str) -> bool:
  """Tells whether two names are of one data set, or one folder."""
  if name == other:
    return True
  if paths.is_path(name) or paths.is_path(other):
    places = [os.path.realpath(os.path.expanduser(n)) for n in (name, other)]
    return paths.is_path(name) and paths.is_path(other) and len({*places}) == 1
  # 'cifar10:3.0.2' is 'cifar10' where that is the version that there is.
  return base_name(name) == base_name(other) and (
    _builder(config, name).data_dir == _builder(config, other).data_dir
  )


def base_name(dataset: str) -> str:
  """Returns 'imagenet_v2' for 'imagenet_v2/matched-frequency:3.0.0'."""
  return re.split('[/:]', dataset)[0]


def _builder(config: Any, dataset: str) -> Any:
  own = config.copy_and_resolve_references()
  own.dataset = dataset
  return builders.open_builder(own)


_Read = Callable[[str], list[_Span]]
_Write = Callable[[Iterable[_Span]], str]


def _of_tfds(config: Any) -> tuple[_Read, _Write]:
  """Returns what makes spans of a split, and a split of spans."""
  import tensorflow_datasets as tfds

  infos = builders.open_builder(config).info.splits
  as_written: dict[tuple[str, int], str] = {}

  def read(split: str) -> list[_Span]:
    spans = []
    for part in split.split('+'):
      part = part.strip()
      instruction = tfds.core.ReadInstruction.from_spec(part)
      found = [
        _Span(each.splitname, each.from_ or 0, _stop(each, infos))
        for each in instruction.to_absolute(infos)
      ]
      if (match := _SLICE.fullmatch(part)) and len(found) == 1:
        base, start, stop = found[0]
        as_written.update({(base, start): match[1], (base, stop): match[2]})
      spans += found
    return spans

  def write(spans: Iterable[_Span]) -> str:
    texts = []
    for base, start, stop in spans:
      end = infos[base].num_examples
      first = as_written.get((base, start), start) if start else ''
      last = as_written.get((base, stop), stop) if stop < end else ''
      is_whole = (start, stop) == (0, end)
      texts.append(base if is_whole else f'{base}[{first}:{last}]')
    return '+'.join(texts)

  return read, write


def _stop(instruction: Any, infos: Any) -> int:
  if instruction.to is not None:
    return instruction.to
  return infos[instruction.splitname].num_examples


def _of_folder(config: Any) -> tuple[_Read, _Write]:
  """As `_of_tfds`, of splits that `folder.load_source` has written in full."""

  def read(split: str) -> list[_Span]:
    parts = splits.resolve(split, {*splits.NAMES.values()}, {}, config.dataset)
    return [_Span(part.base, part.start, part.stop) for part in parts]

  def write(spans: Iterable[_Span]) -> str:
    return splits.to_text(splits.Part(*span) for span in spans)

  return read, write


def _common(spans: Iterable[_Span], others: list[_Span]) -> list[_Span]:
  """Returns what is in both, in the order of the first ones."""
  found = [
    _Span(span.base, max(span.start, other.start), min(span.stop, other.stop))
    for span in spans
    for other in others
    if span.base == other.base
  ]
  return [*dict.fromkeys(span for span in found if span.start < span.stop)]


def _without(spans: Iterable[_Span], others: Iterable[_Span]) -> list[_Span]:
  """Returns what is in the first ones alone."""
  left = [*spans]
  for base, start, stop in others:
    pieces = []
    for span in left:
      if span.base != base:
        pieces.append(span)
        continue
      pieces += [
        span._replace(stop=min(span.stop, start)),
        span._replace(start=max(span.start, stop)),
      ]
    left = [span for span in pieces if span.start < span.stop]
  return left
