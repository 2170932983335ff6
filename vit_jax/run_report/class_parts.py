"""The parts of a page that are about classes: accuracies, and confusion."""

from collections.abc import Sequence

from vit_jax.run_report import elements
from vit_jax.run_report.drawing import MAX_CLASSES
from vit_jax.run_report.elements import percent
from vit_jax.run_report.findings import Findings
from vit_jax.run_report.results import Result

_MAX_HTML_MATRIX = 20  # Classes.


def accuracies(result: Result) -> str:
  """Returns how well each class is recognised, '' where that is unknown."""
  answers, found = result.answers, result.found
  if answers is None or found is None:
    return ''
  shown = sum(each.accuracy is not None for each in found.classes)
  caption = (
    'Each class with its number of images and Wilson’s 95% interval, the worst '
    'first. Classes whose intervals overlap widely may be equally hard.'
  )
  if shown > MAX_CLASSES:
    caption += f' Of {shown:,} classes, the {MAX_CLASSES} worst are drawn.'
  if answers.has_several_labels:
    caption += ' An image with several labels counts for each of them.'
  rows = [
    [
      each.name,
      f'{each.total:,}',
      f'{each.right:,}',
      percent(each.accuracy, 1),
      f'{percent(each.interval.low, 1)} to {percent(each.interval.high, 1)}'
      if each.total
      else elements.NOTHING,
      elements.NOTHING
      if each.taken_for is None
      else answers.class_names[each.taken_for],
    ]
    for each in found.classes
  ]
  whole = elements.class_table(
    f'Accuracy of {len(rows):,} classes, the worst first',
    ['Class', 'Images', 'Right', 'Accuracy', '95% interval', 'Most taken for'],
    rows,
    text=(5,),
  )
  chart = elements.chart(result.charts['classes'], caption)
  return elements.columns(chart, whole)


def confusion(result: Result) -> str:
  """Returns what classes are taken for, '' where that is unknown."""
  answers, found = result.answers, result.found
  if answers is None or found is None:
    return ''
  matrix, names = found.matrix, answers.class_names
  if matrix.group == 1:
    caption = (
      'Rows are true classes, columns predicted ones. Blue is right, orange '
      'wrong, each on a scale of its own, so that few errors are seen as well.'
    )
  else:
    caption = (
      f'Rows are true classes, columns predicted ones, {matrix.group} '
      'neighbouring ones in each. Only errors are coloured, on the diagonal '
      'those within a group.'
    )
  if matrix.total < found.total:
    caption += (
      f' It has the {matrix.total:,} images with one label; of several, none '
      'is the true one.'
    )
  html = elements.chart(result.charts['confusion'], caption)
  if len(matrix.names) <= _MAX_HTML_MATRIX:
    html += elements.details('The matrix as a table', _as_table(found))
  return elements.columns(html, _pairs(found, names))


def _as_table(found: Findings) -> str:
  names = found.matrix.names
  return elements.table(
    'Images by true (row) and predicted (column) class',
    ['True', *names],
    [
      [name, *(f'{count:,}' for count in row)]
      for name, row in zip(names, found.matrix.counts, strict=True)
    ],
    classes={(i, i + 1): 'right' for i in range(len(names))},
    kind='matrix',
  )


def _pairs(found: Findings, names: Sequence[str]) -> str:
  if not found.pairs:
    return elements.paragraph('No image is taken for another class.')
  return elements.table(
    'The classes that are most often taken for another',
    ['True', 'Taken for', 'Images', 'Share of the class'],
    [
      [
        names[pair.label],
        names[pair.predicted],
        f'{pair.num_images:,}',
        percent(pair.share, 1),
      ]
      for pair in found.pairs
    ],
    text=(1,),
  )
