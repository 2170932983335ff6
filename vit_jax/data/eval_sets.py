"""What a run is evaluated on besides `config.pp.test`, by name."""

import re
from collections.abc import Sequence
from typing import Any

from vit_jax import errors
from vit_jax.data import decode, overlaps, sources

# What `config.pp.test` is called, and what the metrics of training are.
_RESERVED = ('test', 'train')
_NAME = r'[A-Za-z][\w-]*'
# Commas in a path don't end a set unless what follows is another one. The split
# follows the last colon that is in no brackets.
_COMMA = re.compile(rf',(?=\s*{_NAME}\s*=)')
_SET = re.compile(
  rf'\s*({_NAME})\s*=\s*(?:(.+):)?([^:,\[\]]+(?:\[[^\[\]]*\][^:,\[\]]*)*)'
)
# These number the same 1000 classes in the same order, whatever they call them.
_SAME_CLASSES = frozenset({'imagenet2012', 'imagenet2012_real', 'imagenet_v2'})
_MAX_SHOWN = 60  # Characters of a class name in a message.


class EvalSets(dict[str, sources.Source]):
  """What is evaluated, by name.

  Attributes:
    overlap: a line on what is trained on as well, '' for nothing.
  """

  overlap: str = ''


def parse(text: str | None) -> dict[str, tuple[str, str]]:
  """Reads `config.eval_sets`.

  Args:
    text: sets separated by commas, each NAME=SPLIT of `config.dataset` or
      NAME=DATASET:SPLIT, such as 'holdout=train[98%:],v2=imagenet_v2:test'; ''
      or None for none.

  Returns:
    {name: (data set, split)} in the order of the text; the data set is '' where
    it is `config.dataset`.

  Raises:
    ConfigError: the text is not of that form, or a name is reserved or twice.
  """
  found: dict[str, tuple[str, str]] = {}
  sets = (text or '').strip().removesuffix(',')  # A last comma parts nothing.
  if not sets.strip():
    return found
  for part in _COMMA.split(sets):
    match = _SET.fullmatch(part)
    if not match or (match[2] or '').count('[') != (match[2] or '').count(']'):
      raise errors.ConfigError(
        f'config.eval_sets={text!r}: found {part!r}, expected NAME=SPLIT or '
        "NAME=DATASET:SPLIT, as in 'holdout=train[98%:],v2=imagenet_v2:test'."
      )
    name, dataset, split = match[1], match[2] or '', match[3].strip()
    if name in _RESERVED:
      what = {'test': 'config.pp.test', 'train': 'training'}[name]
      raise errors.ConfigError(
        f'config.eval_sets={text!r}: the name {name!r} is reserved for the '
        f'metrics of {what}. Choose another one.'
      )
    if name in found:
      raise errors.ConfigError(
        f'config.eval_sets={text!r}: the name {name!r} is there twice.'
      )
    found[name] = (dataset.strip(), split)
  return found


def load(config: Any, train_source: sources.Source | None = None) -> EvalSets:
  """Opens `config.pp.test` and the sets of `config.eval_sets`.

  Args:
    config: with those fields and what `sources.load_source` needs, whose
      `dataset` is the one that a set does not name; 'best_metric' may be one of
      the metrics of these sets. Its 'label' is for this data set alone: others
      are read with their own labels.
    train_source: what is trained on, whose classes every set has to have; those
      of `config.pp.test` if there is no training.

  Returns:
    The sources, 'test' first.

  Raises:
    ConfigError: `config.eval_sets` is malformed, a set has other classes, or
      `best_metric` is one that its set doesn't have.
    DataError: a set can't be opened; the text says which.
  """
  found = EvalSets(test=sources.load_source(config, config.pp.test))
  reference = found['test'] if train_source is None else train_source
  for name, (dataset, split) in parse(config.eval_sets).items():
    own = _config_of(dataset, config)
    try:
      found[name] = sources.load_source(own, split)
      _check_same_classes(found[name], reference)
    except errors.UserError as error:
      text = f'config.eval_sets, {name}: {error}'
      if own.get('label', '') != config.get('label', ''):
        text += (
          f' (config.label={config.label!r} is for {config.dataset!r} alone: '
          "another data set is read with its own 'label'.)"
        )
      raise type(error)(text) from error
  _check_best_metric(config.best_metric, found)
  if train_source is not None:
    found.overlap = overlaps.warning(config, train_source, found)
  return found


def _config_of(dataset: str, config: Any) -> Any:
  """Returns the config that a set's data set is read with, '' for the same."""
  if not dataset:
    return config
  own = config.copy_and_resolve_references()
  own.dataset = dataset
  # What a label is worked out from is there in one data set, of any version. In
  # another, features of the same name could mean something else.
  names = [overlaps.base_name(each) for each in (dataset, config.dataset)]
  if names[0] != names[1] and own.get('label'):
    own.label = ''
  return own


def _check_same_classes(
  source: sources.Source, reference: sources.Source
) -> None:
  names, expected = source.class_names, reference.class_names
  if names == expected:
    return
  known = {
    overlaps.base_name(source.name),
    overlaps.base_name(reference.name),
  } <= _SAME_CLASSES
  if known and len(names) == len(expected):
    return
  raise errors.ConfigError(
    f'the classes of {source.name!r} are not those of {reference.name!r}, in '
    'the same order: '
    f'{_first_difference(names, expected)}. Evaluate on a set with the same '
    'classes.'
  )


def _first_difference(names: Sequence[str], expected: Sequence[str]) -> str:
  if len(names) != len(expected):
    return f'it has {len(names):,} classes, expected {len(expected):,}'
  index = next(
    i
    for i, pair in enumerate(zip(names, expected, strict=True))
    if len({*pair}) > 1
  )
  here, there = (
    decode.shown(each[index])[:_MAX_SHOWN] for each in (names, expected)
  )
  return f'class {index} is {here!r}, expected {there!r}'


def _check_best_metric(
  best_metric: str, found: dict[str, sources.Source]
) -> None:
  name, _, metric = best_metric.rpartition('/')
  if name in found and found[name].max_labels and metric != 'accuracy':
    raise errors.ConfigError(
      f'config.best_metric={best_metric!r}: images of {found[name].name!r} '
      f"have several labels, so it has but '{name}/accuracy'."
    )
