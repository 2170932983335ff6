"""Draws the figures of a report, and says in words what is in them."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from vit_jax import figures
from vit_jax.run_report import pictures
from vit_jax.run_report.answers import Answers
from vit_jax.run_report.comparing import Comparison
from vit_jax.run_report.findings import Findings
from vit_jax.run_report.pictures import Mistake
from vit_jax.run_report.runs import Run

# Of more classes, the first are drawn; tables have all.
MAX_CLASSES = 40
_DPI = 110


@dataclasses.dataclass(frozen=True)
class Drawn:
  """A figure.

  Attributes:
    path: of the PNG file.
    text: what is to be seen in it, for those who can't.
  """

  path: pathlib.Path
  text: str


def curves(run: Run, directory: pathlib.Path) -> Drawn:
  """Draws loss, accuracy, learning rate and images/s of a run."""
  path = directory / 'curves.png'
  figures.plot_curves(
    run.metrics, path, figures.drawable(run.name), with_speed=True
  )
  said = [f'Curves of {run.name} over {run.last_step:,} steps.']
  for name, (steps, values) in run.metrics.items():
    kind = name.rpartition('/')[2]
    if kind in ('loss', 'accuracy') and np.isfinite(values).any():
      shown = [_value(name, each) for each in (values[0], values[-1])]
      said.append(
        f'{name}: {shown[0]} at first, {shown[1]} at step {steps[-1]:,}.'
      )
  return Drawn(path, ' '.join(said))


def _value(name: str, value: float) -> str:
  return f'{value:.1%}' if name.endswith('accuracy') else f'{value:.3g}'


def confusion(found: Findings, directory: pathlib.Path) -> Drawn:
  """Draws who is taken for whom."""
  path, matrix = directory / 'confusion.png', found.matrix
  what = 'classes' if matrix.group == 1 else f'groups of {matrix.group} classes'
  figures.plot_confusion(
    matrix.counts,
    matrix.wrong,
    matrix.names,
    path,
    f'{matrix.total:,} images, {int(matrix.wrong.sum()):,} wrong',
  )
  text = (
    f'Confusion matrix of {len(matrix.names)} {what}: '
    f'{int(matrix.wrong.sum()):,} of {matrix.total:,} images are wrong.'
  )
  return Drawn(path, f'{text} The numbers are in the tables below it.')


def class_accuracy(found: Findings, directory: pathlib.Path) -> Drawn:
  """Draws the accuracy of each class, of the worst if there are many."""
  path = directory / 'classes.png'
  shown = [each for each in found.classes if each.accuracy is not None]
  shown = shown[:MAX_CLASSES]
  figures.plot_class_accuracy(
    [each.name for each in shown],
    np.array([each.accuracy for each in shown], np.float64),
    np.array([each.interval for each in shown], np.float64).reshape(-1, 2),
    [each.total for each in shown],
    path,
    overall=found.accuracy,
  )
  text = f'Accuracy of {len(shown)} classes with 95% intervals, worst first.'
  if shown:
    text += (
      f' The worst is {shown[0].name} with {shown[0].accuracy:.1%} of '
      f'{shown[0].total:,} images.'
    )
  return Drawn(path, text)


def calibration(found: Findings, directory: pathlib.Path) -> Drawn:
  """Draws how often predictions of some confidence are right."""
  assert found.reliability is not None
  path, bins = directory / 'calibration.png', found.reliability
  figures.plot_calibration(
    bins.edges, bins.counts, bins.confidence, bins.accuracy, path
  )
  return Drawn(
    path,
    f'Reliability diagram with {len(bins.counts)} bins: expected calibration '
    f'error {bins.ece:.2%}, largest gap {bins.largest:.1%}. The numbers are in '
    'the table below it.',
  )


def mistakes(
  answers: Answers, shown: Sequence[Mistake], directory: pathlib.Path
) -> Drawn:
  """Draws misclassified images on one sheet."""
  path = directory / 'mistakes.png'
  names, titles = answers.class_names, []
  for each in shown:
    truth = ' or '.join(names[label] for label in answers.labels_of(each.place))
    titles.append(
      f'{names[answers.predicted[each.place]]} '
      f'({answers.confidence[each.place]:.1%})\ntrue: {truth} '
      f'({answers.probability_of_truth(each.place):.1%})'
    )
  style = pictures.style_of(answers, dpi=_DPI)
  images = [each.seen for each in shown]
  maps = [each.values for each in shown if each.values is not None]
  if maps:
    figures.plot_contact_sheet(images, maps, titles, path, style=style)
  else:
    figures.plot_batch(np.stack(images), titles, path, style=style)
  return Drawn(path, f'{len(shown)} misclassified images.')


def run_curves(runs: Sequence[Run], directory: pathlib.Path) -> Drawn:
  """Draws the curves of several runs over each other."""
  path = directory / 'comparison_curves.png'
  figures.plot_run_curves({run.name: run.metrics for run in runs}, path)
  said = [f'Curves of {len(runs)} runs over each other.']
  for run in runs:
    if 'test/accuracy' in run.metrics:
      steps, values = run.metrics['test/accuracy']
      said.append(
        f'{run.name}: test accuracy {values[-1]:.1%} at step {steps[-1]:,}.'
      )
  return Drawn(path, ' '.join(said))


def class_differences(
  compared: Comparison, names: Sequence[str], directory: pathlib.Path
) -> Drawn:
  """Draws the accuracy of each class in each run, largest differences first."""
  path = directory / 'comparison_classes.png'
  seen = np.flatnonzero(compared.totals > 0)[:MAX_CLASSES]
  figures.plot_class_differences(
    [compared.classes[i] for i in seen],
    compared.accuracies[seen],
    [int(compared.totals[i]) for i in seen],
    names,
    path,
  )
  return Drawn(
    path,
    f'Accuracy of {len(seen)} classes in each of {len(names)} runs, the '
    'largest differences first. The numbers are in the table below it.',
  )
