"""Numbers of predictions: confusion, intervals, calibration, McNemar's test."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_Z = 1.959963984540054  # Of 95 %, two-sided.


class Interval(NamedTuple):
  """A 95 % interval of a share."""

  low: float
  high: float


class Pair(NamedTuple):
  """Examples of one class that are taken for another."""

  label: int
  predicted: int
  num_images: int
  share: float  # Of the examples of that label.


@dataclasses.dataclass(frozen=True)
class Reliability:
  """How often predictions of some confidence are right.

  Attributes:
    edges: [num_bins + 1], from 0 to 1.
    counts: int64 [num_bins].
    confidence: the mean of each bin, NaN of empty ones.
    accuracy: of each bin, NaN of empty ones.
    ece: the mean gap between the two, weighted by counts; NaN of no examples.
    largest: the largest gap.
  """

  edges: np.ndarray
  counts: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray
  ece: float
  largest: float


class McNemar(NamedTuple):
  """What two models make of the same examples, and whether it is chance."""

  both: int
  only_first: int
  only_second: int
  neither: int
  p_value: float


def softmax(logits: np.ndarray) -> np.ndarray:
  """Returns float64 probabilities [n, num_classes]."""
  values = np.asarray(logits, np.float64)
  values = np.exp(values - values.max(axis=-1, keepdims=True))
  return values / values.sum(axis=-1, keepdims=True)


def wilson(right: int, total: int) -> Interval:
  """Returns Wilson's score interval (1927), which holds for small counts too.

  Args:
    right: how many of `total` were.
    total: 0 gives the whole of [0, 1].
  """
  if not total:
    return Interval(0.0, 1.0)
  share, square = right / total, _Z**2 / total
  middle = (share + square / 2) / (1 + square)
  half = (_Z * math.sqrt(share * (1 - share) / total + square / 4 / total)) / (
    1 + square
  )
  # Rounding must not leave out the share itself.
  return Interval(
    max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
  )


def confusion(
  labels: np.ndarray, predicted: np.ndarray, num_classes: int
) -> np.ndarray:
  """Returns int64 [num_classes, num_classes]: rows are true, columns not.

  Args:
    labels: int [n].
    predicted: int [n].
    num_classes: or of groups of them.
  """
  codes = labels.astype(np.int64) * num_classes + predicted
  counts = np.bincount(codes, minlength=num_classes**2)
  return counts.reshape(num_classes, num_classes)


def most_confused(
  labels: np.ndarray, predicted: np.ndarray, limit: int
) -> list[Pair]:
  """Returns the classes that are most often taken for another.

  Args:
    labels: int [n].
    predicted: int [n].
    limit: how many pairs at most, the largest counts first, then shares.
  """
  sizes = np.bincount(labels) if len(labels) else np.zeros(0, np.int64)
  wrong = np.stack([labels, predicted], axis=1)[labels != predicted]
  pairs, counts = np.unique(wrong, axis=0, return_counts=True)
  found = [
    Pair(int(label), int(other), int(count), float(count / sizes[label]))
    for (label, other), count in zip(pairs, counts, strict=True)
  ]
  found.sort(key=lambda pair: (-pair.num_images, -pair.share, pair[:2]))
  return found[:limit]


def reliability(
  confidence: np.ndarray, is_right: np.ndarray, num_bins: int
) -> Reliability:
  """Returns the reliability diagram and the expected calibration error.

  Bins are equally wide, each with its upper edge and without its lower one, but
  the first, which has 0, as in Guo et al. 2017 (arXiv 1706.04599).

  Args:
    confidence: [n], the probability of the predicted class.
    is_right: bool [n].
    num_bins: equally wide ones.
  """
  edges = np.linspace(0, 1, num_bins + 1)
  places = np.searchsorted(edges[1:-1], confidence)
  counts = np.bincount(places, minlength=num_bins)
  sums = np.bincount(places, confidence, num_bins)
  hits = np.bincount(places, is_right, num_bins)
  with np.errstate(invalid='ignore'):
    mean, accuracy = sums / counts, hits / counts
  gaps = np.abs(hits - sums)  # Times the count.
  total = counts.sum()
  filled = counts > 0
  return Reliability(
    edges,
    counts,
    mean,
    accuracy,
    float(gaps.sum() / total) if total else math.nan,
    float((gaps[filled] / counts[filled]).max()) if total else math.nan,
  )


def brier(probabilities: np.ndarray, labels: np.ndarray) -> float:
  """Returns Brier's score (1950): 0 is perfect, 2 is sure and always wrong.

  Args:
    probabilities: [n, num_classes].
    labels: int [n].
  """
  of_label = probabilities[np.arange(len(labels)), labels]
  squares = (probabilities**2).sum(axis=1)
  return float((squares - 2 * of_label + 1).mean())


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
  """Returns McNemar's exact test of two models on the same examples.

  Where they differ, either is as likely to be the right one if they are equally
  good; the p-value is the two-sided one of that binomial distribution.

  Args:
    first: whether the first is right, [n].
    second: the same of the second.
  """
  from scipy import stats

  a, b = np.asarray(first, bool), np.asarray(second, bool)
  only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
  differing = only_first + only_second
  p_value = 1.0
  if differing:
    p_value = float(stats.binomtest(only_first, differing).pvalue)
  return McNemar(
    int((a & b).sum()), only_first, only_second, int((~a & ~b).sum()), p_value
  )
