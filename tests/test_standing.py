"""How a run stands against its best evaluation: the rules of best and stale."""

import math

import pytest

from vit_jax.checkpoints.standing import Standing

METRIC = 'test/accuracy'


@pytest.mark.parametrize(
  ('metric', 'value', 'is_better'),
  [
    (METRIC, 0.51, True),
    (METRIC, 0.5, False),
    (METRIC, 0.49, False),
    (METRIC, math.nan, False),
    ('test/loss', 0.49, True),
    ('test/loss', 0.5, False),
    ('test/loss', 0.51, False),
    ('test/loss', math.nan, False),
    ('test/loss', math.inf, False),
  ],
)
def test_standing_after_one_more_evaluation(metric, value, is_better):
  before = Standing(0.5, 3, 2)
  after = before.after(value, 7, metric)
  assert after == (Standing(value, 7) if is_better else Standing(0.5, 3, 3))


def test_first_number_is_the_best():
  assert Standing().after(0.0, 3, METRIC) == Standing(0.0, 3)
  stale = Standing().after(math.nan, 3, METRIC)
  assert stale == Standing(None, None, 1)
  assert stale.after(0.0, 5, METRIC) == Standing(0.0, 5)


@pytest.mark.parametrize('patience', [1, 2, 3])
def test_patience_ends_after_so_many_stale_evaluations(patience):
  standing = Standing().after(0.5, 0, METRIC, patience)
  for step in range(1, patience + 1):
    assert not standing.stopped_early
    standing = standing.after(0.5, step, METRIC, patience)
  assert standing == Standing(0.5, 0, patience, True)


def test_without_patience_it_never_ends():
  standing = Standing(0.5, 3, 10_000).after(0.4, 7, METRIC, patience=0)
  assert not standing.stopped_early
