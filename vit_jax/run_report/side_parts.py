"""The part of a page that has several runs side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax.run_report import elements
from vit_jax.run_report.comparing import Comparison, Duel
from vit_jax.run_report.elements import NOTHING, escaped, number, percent
from vit_jax.run_report.mistake_parts import mistake_list
from vit_jax.run_report.pictures import Mistake
from vit_jax.run_report.results import Result, SideBySide

_MAX_VALUE = 40  # Characters of a setting.


def part(side: SideBySide, results: Sequence[Result]) -> str:
  """Returns the section, with its heading.

  Args:
    side: what the runs are side by side.
    results: of each run.
  """
  html = (
    '\n<section id="side-by-side"><h2>Side by side</h2>'
    + _final_table(results)
    + elements.columns(
      elements.chart(
        side.chart,
        'The curves over each other; those of training are means over a '
        'fortieth of the run.',
      ),
      _settings(side, results),
    )
  )
  if side.compared is None:
    html += '<h3>Example by example</h3>' + elements.paragraph(
      f'Missing: the runs can not be compared example by example, as '
      f'{side.why_not}.',
      'missing',
    )
  else:
    html += _examples(side, side.compared) + _classes(side, side.compared)
  return html + '</section>'


def _final_table(results: Sequence[Result]) -> str:
  rows, accuracies = [], []
  for result in results:
    run, found = result.run, result.found
    accuracies.append(found.accuracy if found else np.nan)
    bins = found and found.reliability
    rows.append(
      [
        run.name,
        f'{run.last_step:,}',
        percent(found.accuracy) if found else NOTHING,
        f'{percent(found.interval.low, 1)} to {percent(found.interval.high, 1)}'
        if found
        else NOTHING,
        number(found.loss) if found else NOTHING,
        percent(bins.ece) if bins else NOTHING,
        number(found.brier) if found else NOTHING,
        _best_logged(result),
        _speed(result),
      ]
    )
  best = {}
  if np.isfinite(accuracies).any():
    highest = np.nanmax(accuracies)
    best = {(i, 2): 'best' for i, x in enumerate(accuracies) if x == highest}
  return elements.table(
    'The runs as their weights are now; the highest accuracy in bold',
    [
      'Run', 'Step', 'Accuracy', '95% interval', 'Loss', 'ECE', 'Brier',
      'Best logged', 'Images/s',
    ],
    rows,
    classes=best,
  )  # fmt: skip


def _best_logged(result: Result) -> str:
  steps, values = result.run.metrics.get('test/accuracy', ([], np.zeros(0)))
  if not np.isfinite(values).any():
    return NOTHING
  best = int(np.nanargmax(values))
  return f'{values[best]:.2%} at {steps[best]:,}'


def _speed(result: Result) -> str:
  _, values = result.run.metrics.get('train/images_per_sec', ([], np.zeros(0)))
  values = values[np.isfinite(values)]
  return f'{np.median(values):,.0f}' if len(values) else NOTHING


def _settings(side: SideBySide, results: Sequence[Result]) -> str:
  if not side.differing:
    return elements.paragraph('All settings of the runs are the same.')

  def shown(value: Any) -> str:
    text = NOTHING if value is None else str(value)
    return text if len(text) <= _MAX_VALUE else text[: _MAX_VALUE - 1] + '…'

  return elements.table(
    'Settings that differ',
    ['Setting', *(result.run.name for result in results)],
    [[field, *map(shown, row)] for field, row in side.differing.items()],
    text=range(1, len(results) + 1),
  )


def _examples(side: SideBySide, compared: Comparison) -> str:
  names, num = side.names, len(side.names)
  html = '<h3>Example by example</h3>'
  total = int(compared.right_in.sum())
  html += elements.paragraph(
    f'Of {total:,} images, {compared.right_in[num]:,} are right in all {num} '
    f'runs, {compared.right_in[0]:,} in none.'
  )
  html += elements.table(
    'McNemar’s exact test of each two runs',
    [
      'First', 'Second', 'Both right', 'Only first', 'Only second',
      'Both wrong', 'p',
    ],
    [
      [
        names[duel.first],
        names[duel.second],
        f'{duel.test.both:,}',
        f'{duel.test.only_first:,}',
        f'{duel.test.only_second:,}',
        f'{duel.test.neither:,}',
        elements.p_value(duel.test.p_value),
      ]
      for duel in compared.duels
    ],
    text=(1,),
  )  # fmt: skip
  html += elements.paragraph(
    'p is how often two equally good models would differ so much or more, on '
    'as many images that only one has right; below 0.05 it is called '
    'significant. ' + _caution(len(compared.duels)),
    'how',
  )
  html += ''.join(
    _one_right(side, compared.duels[place], of_second, of_first)
    for place, of_second, of_first in side.shown
  )
  if len(side.shown) < len(compared.duels):
    html += elements.paragraph(
      f'Images are shown of the first {len(side.shown)} pairs of runs; '
      'report.json has those of all.',
      'how',
    )
  return html


def _one_right(
  side: SideBySide,
  duel: Duel,
  of_second: Sequence[Mistake],
  of_first: Sequence[Mistake],
) -> str:
  """Returns the images that one of two runs alone is right about.

  Args:
    side: what the runs are side by side.
    duel: the two.
    of_second: mistakes of the second, which the first doesn't make.
    of_first: the reverse.
  """
  html = ''
  first, second = side.names[duel.first], side.names[duel.second]
  for right, wrong, shown, count, which in (
    (first, second, of_second, duel.test.only_first, duel.second),
    (second, first, of_first, duel.test.only_second, duel.first),
  ):
    if not count:
      continue
    html += f'<h4>{escaped(right)} right, {escaped(wrong)} wrong</h4>'
    html += elements.paragraph(f'What {wrong} says and looks at.', 'how')
    if len(shown) < count:
      html += elements.paragraph(
        f'{len(shown)} of {count:,}, those that {wrong} is surest about. '
        'report.json has all.',
        'how',
      )
    answers = side.results[which].answers
    assert answers is not None
    html += mistake_list(answers, shown)
  return html


def _caution(num_tests: int) -> str:
  if num_tests < 2:
    return ''
  return (
    'Of equally good models, one test in twenty comes out so: with '
    f'{num_tests} tests, take 0.05 / {num_tests}.'
  )


def _classes(side: SideBySide, compared: Comparison) -> str:
  assert side.class_chart is not None
  rows = [
    [
      name,
      f'{total:,}',
      *(percent(float(value), 1) for value in row),
      percent(float(row.max() - row.min()), 1),
    ]
    for name, row, total in zip(
      compared.classes, compared.accuracies, compared.totals, strict=True
    )
  ]
  table = elements.class_table(
    'Accuracy of each class in each run, the largest differences first',
    ['Class', 'Images', *side.names, 'Spread'],
    rows,
  )
  chart = elements.chart(
    side.class_chart,
    'Accuracy of each class (number of its images) in each run, the largest '
    'differences first.',
  )
  return f'<h3>Class by class</h3>{elements.columns(chart, table)}'
