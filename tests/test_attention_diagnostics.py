"""Filters, position similarity and attention distance, against numpy."""

import itertools
import math

import numpy as np
import parity
import pytest
from small_model import IMAGE_SIZE, make_model, random_params

from vit_jax import attention, errors
from vit_jax.models import positions

# --- Filters -----------------------------------------------------------------


def test_components_are_those_that_filters_were_made_of():
  rng = np.random.default_rng(0)
  made_of, _ = np.linalg.qr(rng.normal(size=(5 * 3 * 3, 2)))
  mixing, _ = np.linalg.qr(rng.normal(size=(31, 2)) - [[0, 0]])
  mixing -= mixing.mean(axis=0)
  mixing, _ = np.linalg.qr(mixing)  # Orthogonal and of mean zero.
  filters = (mixing * [3, 1]) @ made_of.T + 7  # The mean doesn't count.
  kernel = filters.T.reshape(5, 3, 3, 31).astype('f4')
  images, shares = attention.filter_components(
    {'embedding': {'kernel': kernel}}
  )
  assert images.shape == (28, 5, 3, 3)
  assert images.min() >= 0 and images.max() <= 1
  np.testing.assert_allclose(shares[:2], [0.9, 0.1], atol=1e-5)
  for i in range(2):
    found = (2 * images[i] - 1).ravel()
    cosine = found @ made_of[:, i] / np.linalg.norm(found)
    assert abs(cosine) > 0.9999
    assert found.max() == 1


@pytest.mark.parametrize('num_components, number', [(3, 3), (28, 21)])
def test_number_of_components(num_components, number):
  params = random_params(make_model())
  images, shares = attention.filter_components(params, num_components)
  assert images.shape == (number, 5, 3, 3)
  assert shares.shape == (number,)
  assert (np.diff(shares) <= 0).all()
  assert shares.sum() == pytest.approx(1) or number < 21


def test_filters_of_mixers_and_hybrids(mini):
  images, _ = attention.filter_components(mini('mini-mixer').params)
  assert images.shape == (28, 8, 8, 3)
  with pytest.raises(errors.ConfigError, match='ResNet stem'):
    attention.filter_components(mini('mini-hybrid').params)


# --- Positions ---------------------------------------------------------------


@pytest.mark.parametrize('fields', [
  {'classifier': 'token'},
  {'classifier': 'gap'},
  {'position_embedding': 'sincos2d', 'hidden_size': 12},
])  # fmt: skip
def test_similarity_is_the_cosine(fields):
  model = make_model(**fields)
  params = random_params(model)
  if 'position_embedding' in fields:
    embedding = np.asarray(positions.sincos2d((2, 5), 12))
  else:
    embedding = params['Transformer']['posembed_input']['pos_embedding'][
      0, -10:
    ]
  found = attention.position_similarity(model, params, (2, 5))
  assert found.shape == (2, 5, 2, 5)
  for one, other in itertools.product(range(10), range(10)):
    cosine = (embedding[one] @ embedding[other]) / (
      np.linalg.norm(embedding[one]) * np.linalg.norm(embedding[other])
    )
    assert found[divmod(one, 5)][divmod(other, 5)] == pytest.approx(
      cosine, abs=1e-6
    )


def test_similarity_of_another_grid_or_a_mixer(mini):
  model = make_model()
  with pytest.raises(errors.ConfigError, match='not those of 3 by 5 patches'):
    attention.position_similarity(model, random_params(model), (3, 5))
  case = mini('mini-mixer')
  with pytest.raises(errors.ConfigError, match='no attention'):
    attention.position_similarity(case.model, case.params, (4, 4))


# --- Distances ---------------------------------------------------------------


def mean_distance(matrix, grid, token_size):
  """Returns the distance for patches only, [tokens, tokens], in loops."""
  means = []
  for i, row in enumerate(matrix):
    distances = [
      math.dist(*(
        (token_size[0] * (k // grid[1]), token_size[1] * (k % grid[1]))
        for k in (i, j)
      ))
      for j in range(len(row))
    ]  # fmt: skip
    means.append(np.dot(row, distances) / row.sum())
  return np.mean(means)


@pytest.mark.parametrize('first', [0, 1])
def test_distance_equals_numpy(first):
  weights = np.random.default_rng(0).random((3, 10 + first, 10 + first))
  found = attention.mean_attention_distance(weights, (2, 5), (7, 3))
  wanted = [mean_distance(w[first:, first:], (2, 5), (7, 3)) for w in weights]
  np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_distance_of_looking_at_oneself_and_nowhere():
  found = attention.mean_attention_distance(np.eye(11), (2, 5), (16, 16))
  assert found == 0
  only_class_token = np.zeros((11, 11))
  only_class_token[:, 0] = 1
  found = attention.mean_attention_distance(only_class_token, (2, 5), (16, 16))
  assert found == 0


def test_distances_of_a_model():
  model = make_model()
  params = random_params(model)
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  found = attention.attention_distances(model, params, images)
  weights = attention.attention_weights(model, params, images)
  wanted = attention.mean_attention_distance(weights, (2, 5), (5, 3))
  assert found.shape == (2, 2, 3)
  np.testing.assert_allclose(found, wanted, rtol=1e-5)
  assert found.min() > 0
  assert found.max() < math.hypot(5, 12)
