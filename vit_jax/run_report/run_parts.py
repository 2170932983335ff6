"""The parts of a page that are about one run."""

from collections.abc import Callable

from vit_jax.run_report import class_parts, elements
from vit_jax.run_report.elements import escaped, metric, number, percent
from vit_jax.run_report.mistake_parts import mistakes_part
from vit_jax.run_report.results import Result
from vit_jax.run_report.runs import Run


def head(result: Result) -> str:
  """Returns what comes first: the numbers, and what is missing."""
  run, answers, found = result.run, result.answers, result.found
  boxes: list[tuple[str, str, str]] = []
  if found is not None:
    low, high = found.interval
    boxes += [
      (
        'Accuracy',
        percent(found.accuracy),
        f'95% interval {percent(low, 1)} to {percent(high, 1)}',
      ),
      ('Wrong', f'{found.total - found.right:,}', f'of {found.total:,} images'),
    ]
    if found.loss is not None:
      boxes.append(('Loss', number(found.loss), 'cross-entropy'))
    if found.top5 is not None:
      boxes.append(('Top 5', percent(found.top5), 'label among the first five'))
    if found.reliability is not None:
      boxes.append(
        ('Calibration error', percent(found.reliability.ece), 'expected, ECE')
      )
    if found.brier is not None:
      boxes.append(('Brier score', number(found.brier), '0 best, 2 worst'))
  steps = f'step {run.last_step:,}'
  if run.total_steps:
    steps += f' of {run.total_steps:,}'
  boxes.append(('Run', str(run.path), f'{steps}; weights: {_weights(run)}'))
  if answers is not None:
    boxes.append(
      (
        'Evaluated on',
        f'{answers.source.name}, {answers.source.split}',
        f'{len(answers):,} images of {answers.num_classes:,} classes, at '
        f'{answers.config.pp.crop} pixels',
      )
    )
  said = ''.join(
    elements.paragraph(f'Missing: {text}', 'missing') for text in run.missing
  )
  said += ''.join(elements.paragraph(text, 'missing') for text in run.notes)
  return said + elements.facts(boxes, long=('Run', 'Evaluated on'))


def _weights(run: Run) -> str:
  if run.is_exported_best:
    return f'{run.weights}, of the best evaluation, not of the last step'
  return run.weights or 'none'


def parts(
  result: Result, prefix: str, level: int, method: str
) -> tuple[str, list[tuple[str, str]]]:
  """Returns the parts of a run, and (identifier, name) of each.

  Args:
    result: of the run.
    prefix: of the identifiers.
    level: of the headings.
    method: of the overlays.
  """
  made: list[tuple[str, str, Callable[[Result], str]]] = [
    ('curves', 'Curves', _curves),
    ('classes', 'Classes', class_parts.accuracies),
    ('confusion', 'Confusion', class_parts.confusion),
    ('mistakes', 'Mistakes', lambda each: mistakes_part(each, method)),
    ('calibration', 'Calibration', _calibration),
  ]
  html, contents = '', []
  for place, name, make in made:
    content = make(result)
    if content:
      html += (
        f'\n<section id="{prefix}{place}"><h{level}>{escaped(name)}</h{level}>'
        f'\n{content}</section>'
      )
      contents.append((f'{prefix}{place}', name))
  return html, contents


def _curves(result: Result) -> str:
  if 'curves' not in result.charts:
    return ''
  chart = elements.chart(
    result.charts['curves'],
    'Loss, accuracy, learning rate and speed over the steps. What was logged '
    'often is drawn faintly, its mean over a fortieth of the run strongly.',
  )
  return elements.columns(chart, _evaluations(result))


def _evaluations(result: Result) -> str:
  found = result.evaluations
  if not found.steps:
    return elements.paragraph(
      'The run has not been evaluated yet: metrics.jsonl has no such line.'
    )
  best = {}
  for j, name in enumerate(found.columns, start=1):
    values = [row[j - 1] for row in found.values]
    known = [each for each in values if each is not None and each == each]
    pick = min if name.endswith('loss') else max
    if known:
      best |= {
        (i, j): 'best' for i, each in enumerate(values) if each == pick(known)
      }
  return elements.table(
    f'The last {len(found.steps)} evaluations; the best of them in bold',
    ['Step', *found.columns],
    [
      [f'{step:,}', *map(metric, found.columns, row)]
      for step, row in zip(found.steps, found.values, strict=True)
    ],
    classes=best,
  )


def _calibration(result: Result) -> str:
  found = result.found
  if found is None or found.reliability is None:
    return ''
  bins = found.reliability
  chart = elements.chart(
    result.charts['calibration'],
    f'{len(bins.counts)} bins, equally wide, each with its upper edge. Points '
    'below the line: the model is surer than it should be. The expected '
    f'calibration error, {percent(bins.ece)}, is the mean gap weighted by the '
    'images of each bin; a bin of a few images may be off by chance.',
  )
  rows = [
    [
      f'{low:.1%} to {high:.1%}',
      f'{count:,}',
      percent(confidence, 1),
      percent(accuracy, 1),
      percent(accuracy - confidence, 1),
    ]
    for low, high, count, confidence, accuracy in zip(
      bins.edges[:-1],
      bins.edges[1:],
      bins.counts,
      bins.confidence,
      bins.accuracy,
      strict=True,
    )
    if count
  ]
  table = elements.table(
    'Bins that have images',
    ['Confidence', 'Images', 'Mean confidence', 'Accuracy', 'Gap'],
    rows,
  )
  return elements.columns(chart, table)
