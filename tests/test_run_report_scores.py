"""Tests of a report's numbers: by hand, and against scikit-learn."""

import types
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import calibration, metrics

from vit_jax.run_report import comparing, findings, runs, scores
from vit_jax.run_report.answers import Answers


def made_up(num_classes=5, n=211, seed=0, labels=None):
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, 2, (n, num_classes)).astype('f4')
  if labels is None:
    labels = rng.integers(num_classes, size=n).astype('i4')
    logits[np.arange(n), labels] += 1.5
  names = [f'name {i}' for i in range(num_classes)]
  source = types.SimpleNamespace(name='made up', split='test')
  return Answers(None, None, None, source, names, np.arange(n), labels, logits)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize('num_classes', [2, 5, 19])
def test_as_scikit_learn(num_classes):
  said = made_up(num_classes)
  found = findings.find(said, 10)
  truth, proba = said.labels, said.probabilities
  np.testing.assert_array_equal(
    found.matrix.counts,
    metrics.confusion_matrix(
      truth, said.predicted, labels=np.arange(num_classes)
    ),
  )
  assert found.right == metrics.accuracy_score(
    truth, said.predicted, normalize=False
  )
  recall = metrics.recall_score(truth, said.predicted, average=None)
  by_index = sorted(found.classes, key=lambda each: each.index)
  np.testing.assert_allclose([each.accuracy for each in by_index], recall)
  assert found.loss == pytest.approx(metrics.log_loss(truth, proba))
  assert found.brier == pytest.approx(
    metrics.brier_score_loss(truth, proba, scale_by_half=False)
    if num_classes > 2
    else 2 * metrics.brier_score_loss(truth, proba[:, 1])
  )
  assert found.reliability is not None
  accuracy, confidence = calibration.calibration_curve(
    said.is_right, said.confidence, n_bins=10
  )
  filled = found.reliability.counts > 0
  np.testing.assert_allclose(found.reliability.accuracy[filled], accuracy)
  np.testing.assert_allclose(found.reliability.confidence[filled], confidence)
  if num_classes > 5:
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      top5 = metrics.top_k_accuracy_score(truth, proba, k=5)
    assert found.top5 == pytest.approx(top5)
  else:
    assert found.top5 is None


def test_reliability_by_hand():
  confidence = np.array([0.0, 0.5, 0.500001, 0.75, 1.0])
  is_right = np.array([False, True, False, True, True])
  found = scores.reliability(confidence, is_right, 2)
  # Each bin has its upper edge, the first one both.
  np.testing.assert_array_equal(found.counts, [2, 3])
  np.testing.assert_allclose(found.accuracy, [0.5, 2 / 3])
  np.testing.assert_allclose(found.confidence, [0.25, 2.250001 / 3])
  gaps = 0.25, 0.250001 / 3
  assert found.ece == pytest.approx(0.4 * gaps[0] + 0.6 * gaps[1])
  assert found.largest == pytest.approx(gaps[0])


def test_empty_bins_are_nan():
  found = scores.reliability(np.array([0.95]), np.array([True]), 10)
  assert np.isnan(found.accuracy[:9]).all() and found.accuracy[9] == 1
  assert found.ece == pytest.approx(0.05)


@pytest.mark.parametrize('right, total', [(0, 7), (3, 7), (7, 7), (353, 360)])
def test_wilson_as_scipy(right, total):
  expected = stats.binomtest(right, total).proportion_ci(method='wilson')
  np.testing.assert_allclose(
    scores.wilson(right, total), (expected.low, expected.high), atol=1e-12
  )
  low, high = scores.wilson(right, total)
  assert 0 <= low <= right / total <= high <= 1


def test_wilson_of_nothing_is_everything():
  assert scores.wilson(0, 0) == (0, 1)


def test_brier_by_hand():
  proba = np.array([[0.75, 0.25], [0.0, 1.0]])
  found = scores.brier(proba, np.array([0, 0]))
  assert found == pytest.approx((2 * 0.0625 + 2) / 2)


def test_mcnemar_by_hand():
  first = [True] * 6 + [False] * 5
  second = [True] + [False] * 5 + [True] + [False] * 4
  found = scores.mcnemar(first, second)
  assert found[:4] == (1, 5, 1, 4)
  # Of 6 that differ, 0, 1, 5 or 6: (1 + 6 + 6 + 1) / 64.
  assert found.p_value == pytest.approx(14 / 64)
  assert scores.mcnemar(first, first).p_value == 1
  assert scores.mcnemar(first, second).p_value == pytest.approx(
    scores.mcnemar(second, first).p_value
  )


def test_most_confused_by_hand():
  labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
  predicted = np.array([1, 1, 0, 0, 1, 1, 1, 2, 2])
  found = scores.most_confused(labels, predicted, 2)
  assert found == [(0, 1, 2, 2 / 3), (2, 1, 2, 0.5)]
  assert scores.most_confused(labels[:0], predicted[:0], 2) == []


def test_accuracy_is_a_float32_quotient():
  said = made_up(3, n=7)
  right = int(said.is_right.sum())
  assert said.accuracy == float(np.float32(right) / np.float32(7))


def test_groups_of_many_classes():
  said = made_up(101, n=307)
  matrix = findings.find(said, 5).matrix
  assert matrix.group == 3 and len(matrix.names) == 34
  assert matrix.names[0] == '0–2' and matrix.names[-1] == '99–100'
  assert matrix.counts.sum() == 307
  wrong = ~said.is_right
  assert matrix.wrong.sum() == wrong.sum()
  assert (
    matrix.wrong[4, 7]
    == (wrong & (said.labels // 3 == 4) & (said.predicted // 3 == 7)).sum()
  )


def test_one_class():
  found = findings.find(made_up(1, n=3), 15)
  assert found.accuracy == 1 and found.pairs == []
  assert found.reliability is not None and found.reliability.ece == 0
  np.testing.assert_array_equal(found.matrix.counts, [[3]])


def test_classes_are_sorted_and_those_without_images_last():
  said = made_up(4, n=6, labels=np.array([0, 0, 1, 1, 3, 3], 'i4'))
  said.logits[:] = 0
  said.logits[[0, 1, 2, 3, 4, 5], [0, 1, 3, 3, 3, 3]] = 1
  found = findings.class_scores(said)
  assert [each.index for each in found] == [1, 0, 3, 2]
  assert [each.accuracy for each in found] == [0, 0.5, 1, None]
  assert [each.taken_for for each in found] == [3, 1, None, None]


def test_several_labels():
  labels = np.array([[0, 2], [1, -1], [2, -1], [0, 1]], 'i4')
  said = made_up(3, n=4, labels=labels)
  said.logits[:] = 0
  said.logits[[0, 1, 2, 3], [2, 0, 2, 2]] = 9
  found = findings.find(said, 5)
  assert (found.right, found.total) == (2, 4)
  assert found.loss is None and found.brier is None and found.top5 is None
  assert found.matrix.total == 2  # Those with one label.
  np.testing.assert_array_equal(
    found.matrix.counts, [[0, 0, 0], [1, 0, 0], [0, 0, 1]]
  )
  by_index = sorted(found.classes, key=lambda each: each.index)
  assert [(each.right, each.total) for each in by_index] == [
    (1, 2), (0, 2), (2, 2)
  ]  # fmt: skip
  assert said.labels_of(0) == [0, 2]
  assert said.probability_of_truth(0) == pytest.approx(
    said.probabilities[0, [0, 2]].sum()
  )


def test_comparison():
  first, second = made_up(3, n=50), made_up(3, n=50)
  second.logits[:20] = made_up(3, n=50, seed=1).logits[:20]
  each = [first, second]
  assert comparing.why_not(each) == ''
  found = comparing.compare(each, [findings.find(x, 5) for x in each])
  (duel,) = found.duels
  a, b = first.is_right, second.is_right
  assert sorted(duel.only_first) == [*np.flatnonzero(a & ~b)]
  assert sorted(duel.only_second) == [*np.flatnonzero(b & ~a)]
  assert (np.diff(second.confidence[duel.only_first]) <= 0).all()
  assert duel.test == scores.mcnemar(a, b)
  assert found.right_in.tolist() == [
    (~a & ~b).sum(), (a ^ b).sum(), (a & b).sum()
  ]  # fmt: skip
  spread = abs(found.accuracies[:, 0] - found.accuracies[:, 1])
  assert (np.diff(spread) <= 0).all()
  row = found.classes.index('name 1')
  assert found.accuracies[row, 0] == a[first.labels == 1].mean()


def test_other_examples_are_not_compared():
  first, second = made_up(3, n=50), made_up(3, n=49)
  assert 'differ' in comparing.why_not([first, second])


def test_names_are_as_short_as_differ(tmp_path):
  a, b, c = (tmp_path / name for name in ('x/run', 'y/run', 'y/other'))
  assert runs.names_of([a]) == ['run']
  assert runs.names_of([a, c]) == ['run', 'other']
  assert runs.names_of([a, b, c]) == ['x/run', 'y/run', 'y/other']
