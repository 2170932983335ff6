"""What the answers of a run come to: the numbers of a report."""

import dataclasses

import numpy as np

from vit_jax.run_report import scores
from vit_jax.run_report.answers import Answers

# The matrix is in report.json up to so many classes, and whole on the page.
MAX_MATRIX = 100
_NUM_PAIRS = 20
# A coarse matrix has no more groups of classes than this.
_MAX_GROUPS = 40


@dataclasses.dataclass(frozen=True)
class ClassScore:
  """How often images of a class are recognised.

  Attributes:
    index: of the class.
    name: of the class.
    total: images that have this label.
    right: of them, recognised ones.
    accuracy: their share, None of no images.
    interval: of the share.
    taken_for: the class that it is most often taken for, None for none.
  """

  index: int
  name: str
  total: int
  right: int
  accuracy: float | None
  interval: scores.Interval
  taken_for: int | None


@dataclasses.dataclass(frozen=True)
class Matrix:
  """Who is taken for whom: of classes, or of groups of neighbouring ones.

  Attributes:
    counts: int64 [size, size], rows are true.
    wrong: the same without what is right; in groups, not only off the diagonal.
    group: how many classes are in one, 1 for a matrix of classes.
    names: of the rows.
    total: images in it: those that have one label.
  """

  counts: np.ndarray
  wrong: np.ndarray
  group: int
  names: list[str]
  total: int


@dataclasses.dataclass(frozen=True)
class Findings:
  """All numbers of a run's answers; those that can't be had are None.

  Attributes:
    total: images with a label.
    right: of them, recognised ones.
    accuracy: as evaluations have it, to the same bits; NaN of no images.
    interval: of the accuracy.
    loss: the mean cross-entropy.
    top5: share whose label is among the first five, of more than five classes.
    brier: Brier's score.
    reliability: the calibration.
    classes: the worst first, those without images last.
    matrix: who is taken for whom.
    pairs: the most frequent of these.
  """

  total: int
  right: int
  accuracy: float
  interval: scores.Interval
  loss: float | None
  top5: float | None
  brier: float | None
  reliability: scores.Reliability | None
  classes: list[ClassScore]
  matrix: Matrix
  pairs: list[scores.Pair]


def find(answers: Answers, num_bins: int) -> Findings:
  """Returns the numbers of a run's answers.

  Args:
    answers: of one split.
    num_bins: of the calibration.
  """
  total, right = len(answers), int(answers.is_right.sum())
  alone = answers.single >= 0
  labels, predicted = answers.single[alone], answers.predicted[alone]
  reliability = brier = None
  if answers.is_finite and total:
    reliability = scores.reliability(
      answers.confidence, answers.is_right, num_bins
    )
    if not answers.has_several_labels:
      brier = scores.brier(answers.probabilities, answers.labels)
  return Findings(
    total,
    right,
    answers.accuracy,
    scores.wilson(right, total),
    answers.loss(),
    answers.top5(),
    brier,
    reliability,
    class_scores(answers),
    _matrix(labels, predicted, answers.class_names),
    scores.most_confused(labels, predicted, _NUM_PAIRS),
  )


def class_scores(answers: Answers) -> list[ClassScore]:
  """Returns how each class does, the worst first, those without images last.

  An image with several labels counts for each of them.
  """
  labels = answers.labels.reshape(len(answers), -1)
  rows, columns = np.nonzero(labels >= 0)
  of_row = labels[rows, columns]
  totals = np.bincount(of_row, minlength=answers.num_classes)
  rights = np.bincount(
    of_row, answers.is_right[rows], minlength=answers.num_classes
  ).astype(np.int64)
  others = _most_taken_for(
    of_row, answers.predicted[rows], answers.is_right[rows]
  )
  found = [
    ClassScore(
      index,
      name,
      int(total),
      int(right),
      float(right / total) if total else None,
      scores.wilson(int(right), int(total)),
      others.get(index),
    )
    for index, (name, total, right) in enumerate(
      zip(answers.class_names, totals, rights, strict=True)
    )
  ]
  return sorted(
    found,
    key=lambda each: (
      2.0 if each.accuracy is None else each.accuracy, -each.total, each.index
    ),
  )  # fmt: skip


def _most_taken_for(
  labels: np.ndarray, predicted: np.ndarray, is_right: np.ndarray
) -> dict[int, int]:
  wrong = np.stack([labels, predicted], axis=1)[~is_right]
  pairs, counts = np.unique(wrong, axis=0, return_counts=True)
  found = {}
  for i in np.argsort(-counts, kind='stable'):
    found.setdefault(int(pairs[i, 0]), int(pairs[i, 1]))
  return found


def _matrix(
  labels: np.ndarray, predicted: np.ndarray, names: list[str]
) -> Matrix:
  size = len(names)
  group = 1 if size <= MAX_MATRIX else -(-size // _MAX_GROUPS)
  num_groups = -(-size // group)
  wrong = labels != predicted
  if group > 1:
    names = [
      f'{start}–{min(start + group, size) - 1}'
      for start in range(0, size, group)
    ]
  return Matrix(
    scores.confusion(labels // group, predicted // group, num_groups),
    scores.confusion(
      labels[wrong] // group, predicted[wrong] // group, num_groups
    ),
    group,
    names,
    len(labels),
  )
