"""Runs side by side, on the same examples."""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from vit_jax.run_report import scores
from vit_jax.run_report.answers import Answers
from vit_jax.run_report.findings import Findings


@dataclasses.dataclass(frozen=True)
class Duel:
  """Two runs on the same examples.

  Attributes:
    first: place of a run among the compared ones.
    second: of the other.
    test: what they make of the examples.
    only_first: places in the answers of examples that only the first has right,
      those first that the second is surest about in its error.
    only_second: the other way round.
  """

  first: int
  second: int
  test: scores.McNemar
  only_first: np.ndarray
  only_second: np.ndarray


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Several runs on the same examples.

  Attributes:
    duels: of each two of them.
    right_in: int64 [runs + 1], how many examples so many runs have right.
    classes: names of the classes, the largest differences first.
    accuracies: [classes, runs] in that order, NaN without images.
    totals: images of each class in that order.
  """

  duels: list[Duel]
  right_in: np.ndarray
  classes: list[str]
  accuracies: np.ndarray
  totals: np.ndarray


def why_not(each: Sequence[Answers]) -> str:
  """Returns why answers can't be compared example by example, '' if they can.

  Args:
    each: of two runs or more.
  """
  first = each[0]
  for other in each[1:]:
    if other.source.name != first.source.name:
      return f'they are of {first.source.name} and {other.source.name}'
    if other.source.split != first.source.split:
      return f'they are of the splits {first.source.split} and ' + (
        other.source.split
      )
    same = (
      other.class_names == first.class_names
      and np.array_equal(other.indices, first.indices)
      and np.array_equal(other.labels, first.labels)
    )
    if not same:
      return 'examples or labels differ'
  return ''


def compare(each: Sequence[Answers], found: Sequence[Findings]) -> Comparison:
  """Returns how runs differ that `why_not` has nothing against.

  Args:
    each: the answers of each run.
    found: the findings of each run.
  """
  right = np.stack([answers.is_right for answers in each])
  duels = []
  for a, b in itertools.combinations(range(len(each)), 2):
    duels.append(
      Duel(
        a,
        b,
        scores.mcnemar(right[a], right[b]),
        _surest(right[a] & ~right[b], each[b]),
        _surest(right[b] & ~right[a], each[a]),
      )
    )
  by_class = [
    {score.index: score for score in findings.classes} for findings in found
  ]
  table = np.array(
    [
      [
        np.nan if (value := scores_of[i].accuracy) is None else value
        for scores_of in by_class
      ]
      for i in range(each[0].num_classes)
    ]
  )
  spread = np.nan_to_num(table.max(axis=1) - table.min(axis=1), nan=-1.0)
  order = np.argsort(-spread, kind='stable')
  names = each[0].class_names
  return Comparison(
    duels,
    np.bincount(right.sum(axis=0), minlength=len(each) + 1),
    [names[i] for i in order],
    table[order],
    np.array([by_class[0][i].total for i in order]),
  )


def _surest(chosen: np.ndarray, wrong: Answers) -> np.ndarray:
  places = np.flatnonzero(chosen)
  if not wrong.is_finite:
    return places
  return places[np.argsort(-wrong.confidence[places], kind='stable')]
