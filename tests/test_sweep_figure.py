"""Tests of `figures.plot_sweep`: every trial is shown, whatever is varied."""

import itertools
import math

import numpy as np
import PIL.Image
import pytest

from vit_jax import figures
from vit_jax.figures import SweepAxis, SweepPoint

RATES = (0.001, 0.01, 0.1)
STATES = ('finished', 'finished', 'pruned', 'failed', 'running')


def points(*each):
  """Trials with all combinations of values, of changing states."""
  found = []
  for i, values in enumerate(itertools.product(*each)):
    state = STATES[i % len(STATES)]
    has_score = state in ('finished', 'pruned')
    score = 0.5 + 0.01 * i if has_score else math.nan
    spread = 0.02 if state == 'finished' else None
    found.append(SweepPoint(i, values, score, spread, state))
  return found


def marks(figure, marker) -> int:
  """How many markers of a kind are drawn over all panels."""
  return sum(
    len(np.atleast_1d(line.get_xdata()))
    for ax in figure.axes
    for line in ax.lines
    if line.get_marker() == marker
  )


@pytest.mark.parametrize('metric', ['test/accuracy', 'val/loss'])
@pytest.mark.parametrize(
  'axes',
  [
    [SweepAxis('lr', RATES)],
    [SweepAxis('lr', (), True)],
    [SweepAxis('optimizer', ('sgd', 'adamw'))],
    [SweepAxis('lr', RATES), SweepAxis('dropout', (0.0, 0.1))],
    [SweepAxis('optimizer', ('sgd', 'adamw')), SweepAxis('x', (True, False))],
    [SweepAxis('a', tuple(range(7))), SweepAxis('b', tuple(range(1, 8)))],
    [SweepAxis('lr', (), True), SweepAxis('decay')],
    [SweepAxis('a', RATES), SweepAxis('b', RATES), SweepAxis('c', ('x', 'y'))],
  ],
  ids=lambda axes: '-'.join(axis.name for axis in axes),
)
def test_every_kind_of_sweep_is_drawn(tmp_path, axes, metric):
  values = [axis.values or (0.002, 0.03, 0.05) for axis in axes]
  path = tmp_path / 'sweep.png'
  figures.plot_sweep(points(*values), axes, metric, path, 'a $title')
  with PIL.Image.open(path) as image:
    assert np.asarray(image.convert('L')).std() > 5


def test_lines_show_every_trial_and_what_became_of_it(tmp_path, saved):
  axes = [SweepAxis('lr', RATES), SweepAxis('dropout', (0.0, 0.1))]
  trials = points(*(axis.values for axis in axes))
  figures.plot_sweep(trials, axes, 'test/accuracy', tmp_path / 'x.png')
  (figure,) = saved
  assert marks(figure, 'o') + marks(figure, 's') == 3
  assert marks(figure, 'x') == 1
  assert marks(figure, 'v') == 1
  (legend,) = figure.legends
  names = [text.get_text() for text in legend.get_texts()]
  assert names == [
    'dropout = 0', 'dropout = 0.1', 'pruned, where it was then', 'failed',
  ]  # fmt: skip
  assert 'over seeds' in legend.get_title().get_text()


@pytest.mark.parametrize(('metric', 'best'), [('a/accuracy', 6), ('a/loss', 0)])
def test_panels_mark_the_best_trial(tmp_path, saved, metric, best):
  axes = [SweepAxis('a', (), True), SweepAxis('b'), SweepAxis('c', ('x', 'y'))]
  trials = points((0.001, 0.01), (1.0, 2.0), ('x', 'y'))
  figures.plot_sweep(trials, axes, metric, tmp_path / 'x.png')
  rings = [line for line in saved[0].axes[0].lines if line.get_markersize() > 9]
  assert [line.get_ydata()[0] for line in rings] == [trials[best].score]


def test_map_tells_every_cell(tmp_path, saved):
  axes = [SweepAxis('a', tuple(range(7))), SweepAxis('b', tuple(range(8)))]
  trials = points(*(axis.values for axis in axes))
  figures.plot_sweep(trials, axes, 'test/accuracy', tmp_path / 'x.png')
  texts = [text.get_text() for text in saved[0].axes[0].texts]
  drawn = [trial for trial in trials if trial.state != 'running']
  assert len(texts) == len(drawn)
  assert texts[:4] == ['50%', '51%', '52% ×', 'failed']


def test_sweep_that_has_just_begun_says_so(tmp_path, saved):
  trials = [SweepPoint(0, ('',), math.nan, None, 'running')]
  figures.plot_sweep(trials, [SweepAxis('a')], 'x/loss', tmp_path / 'x.png')
  assert 'no trial' in saved[0].texts[0].get_text()
