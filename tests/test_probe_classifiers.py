"""Ridge regression and neighbours, against scikit-learn."""

import numpy as np
import pytest
from sklearn import linear_model, neighbors

from vit_jax import probe, sharding
from vit_jax.probe import ridge

NUM_CLASSES = 5
NUM_FEATURES = 23


def make_examples(num, seed=0):
  """Returns features in clusters that overlap, and their labels."""
  rng = np.random.default_rng(seed)
  centres = np.random.default_rng(7).normal(size=(NUM_CLASSES, NUM_FEATURES))
  labels = rng.permutation(np.arange(num) % NUM_CLASSES).astype(np.int32)
  spread = np.linspace(0.5, 3, NUM_FEATURES)
  values = centres[labels] + rng.normal(size=(num, NUM_FEATURES)) * spread
  return (values + 2).astype(np.float32), labels


def prepared(train, values):
  """Returns float64 inputs as big_vision's evaluator describes them."""
  train, values = train.astype(np.float64), values.astype(np.float64)
  x = (values - train.mean(0)) / (train.std(0) + 1e-5)
  return np.hstack([x, np.full((len(x), 1), 100.0)])


def signs(labels):
  return np.where(np.eye(NUM_CLASSES)[labels] > 0, 1.0, -1.0)


# Fewer and more examples than features: both of the decompositions.
@pytest.mark.parametrize('num', [10, 24, 61])
@pytest.mark.parametrize('l2', [2.0**-8, 1.0, 2.0**10])
def test_ridge_is_that_of_scikit_learn(num, l2, monkeypatch):
  monkeypatch.setattr(ridge, '_BLOCK', 13)
  values, labels = make_examples(num)
  test, _ = make_examples(37, seed=1)
  x = prepared(values, values)
  expected = linear_model.Ridge(l2, fit_intercept=False, solver='svd')
  expected.fit(x, signs(labels))
  fit = probe.Ridge(values, labels, NUM_CLASSES)
  np.testing.assert_allclose(fit.weights(l2).T, expected.coef_, atol=1e-5)
  np.testing.assert_array_equal(
    fit.predict(test, l2),
    expected.predict(prepared(values, test)).argmax(axis=1),
  )


@pytest.mark.parametrize('num', [10, 61])
def test_leave_one_out_is_that_of_fits_without_each_example(num, monkeypatch):
  monkeypatch.setattr(ridge, '_BLOCK', 13)
  values, labels = make_examples(num)
  x, targets = prepared(values, values), signs(labels)
  l2s = (0.5, 64.0, 2.0**12)
  expected = np.zeros((3, num))
  for i, l2 in enumerate(l2s):
    for j in range(num):
      others = np.arange(num) != j
      fit = linear_model.Ridge(l2, fit_intercept=False, solver='svd')
      fit.fit(x[others], targets[others])
      found = fit.predict(x[j : j + 1])[0]
      expected[i, j] = ((found - targets[j]) ** 2).mean()
  fit = probe.Ridge(values, labels, NUM_CLASSES)
  errors_found = fit.leave_one_out(l2s)
  np.testing.assert_allclose(errors_found, expected.mean(axis=1), rtol=1e-6)
  assert fit.choose_l2(l2s) == l2s[expected.mean(axis=1).argmin()]


def test_l2_that_is_chosen_looks_at_no_test_example():
  values, labels = make_examples(61)
  fit = probe.Ridge(values, labels, NUM_CLASSES)
  chosen = linear_model.RidgeCV(ridge.L2_CHOICES, fit_intercept=False)
  chosen.fit(prepared(values, values), signs(labels))
  assert fit.choose_l2() == chosen.alpha_


def test_feature_that_never_changes_says_nothing():
  values, labels = make_examples(61)
  constant = np.full((61, 1), 3, np.float32)
  fit = probe.Ridge(np.hstack([values, constant]), labels, NUM_CLASSES)
  assert np.abs(fit.weights(1.0)[NUM_FEATURES]).max() < 1e-9


@pytest.mark.parametrize('num', [1, 3, 20])
@pytest.mark.parametrize('blocks', [(1024, 32_768), (8, 17), (16, 97)])
def test_neighbours_are_those_of_scikit_learn(num, blocks):
  train, labels = make_examples(97)
  test, _ = make_examples(41, seed=1)
  expected = neighbors.KNeighborsClassifier(num, metric='cosine')
  expected.fit(train.astype('f8'), labels)
  distances, indices = expected.kneighbors(test.astype('f8'))
  found, cosines = probe.nearest(
    train,
    test,
    num,
    sharding.make_mesh(),
    num_queries=blocks[0],
    num_keys=blocks[1],
  )
  np.testing.assert_array_equal(found, indices)
  np.testing.assert_allclose(cosines, 1 - distances, atol=1e-5)
  np.testing.assert_array_equal(
    probe.vote(labels[found], NUM_CLASSES), expected.predict(test.astype('f8'))
  )


def test_weighted_votes_are_those_of_scikit_learn():
  train, labels = make_examples(97)
  test, _ = make_examples(41, seed=1)
  expected = neighbors.KNeighborsClassifier(
    20, metric='cosine', weights=lambda far: np.exp((1 - far) / 0.07)
  ).fit(train.astype('f8'), labels)
  found, cosines = probe.nearest(train, test, 20, sharding.make_mesh())
  plain = probe.vote(labels[found], NUM_CLASSES)
  weighted = probe.vote(labels[found], NUM_CLASSES, cosines)
  np.testing.assert_array_equal(weighted, expected.predict(test.astype('f8')))
  assert (plain != weighted).any()


def test_equally_near_the_first_comes_first_and_zeros_are_near_to_none():
  train = np.repeat(np.eye(3, dtype='f4')[[1, 0, 2]], 4, axis=0)
  test = np.array([[0, 0, 2], [3, 0, 0], [0, 0, 0]], 'f4')
  found, cosines = probe.nearest(
    train, test, 3, sharding.make_mesh(), num_keys=5
  )
  assert found.tolist() == [[8, 9, 10], [4, 5, 6], [0, 1, 2]]
  assert cosines.tolist() == [[1, 1, 1], [1, 1, 1], [0, 0, 0]]


def test_votes_that_are_equal_go_to_the_first_class(monkeypatch):
  monkeypatch.setattr('vit_jax.probe.neighbours._MAX_VOTES', 8)
  labels = np.array([[3, 1], [2, 2], [0, 3]])
  assert probe.vote(labels, 4).tolist() == [1, 2, 0]


@pytest.mark.parametrize('seed', [0, 3])
def test_shots_are_balanced_and_nested_and_differ_by_seed(seed):
  labels = np.random.default_rng(0).permutation(np.arange(300) % 7)
  drawn = [probe.draw_shots(labels, 7, shots, seed) for shots in (2, 5, 25)]
  for indices, shots in zip(drawn, (2, 5, 25), strict=True):
    assert np.bincount(labels[indices]).tolist() == [shots] * 7
    assert len({*indices.tolist()}) == 7 * shots
  assert {*drawn[0].tolist()} < {*drawn[1].tolist()} < {*drawn[2].tolist()}
  again, other = (probe.draw_shots(labels, 7, 5, s) for s in (seed, seed + 1))
  assert again.tolist() == drawn[1].tolist() != other.tolist()
