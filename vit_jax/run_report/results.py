"""All that a report has of a run, and the same for JSON."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax.run_report import runs
from vit_jax.run_report.answers import Answers
from vit_jax.run_report.comparing import Comparison
from vit_jax.run_report.drawing import Drawn
from vit_jax.run_report.findings import MAX_MATRIX, Findings
from vit_jax.run_report.pictures import Mistake


@dataclasses.dataclass
class Result:
  """A run and what came of it; None is what could not be had.

  Attributes:
    run: as it lies there.
    evaluations: the last ones that it logged.
    answers: of its model.
    found: what they come to.
    mistakes: the most confident ones.
    charts: figures by name, such as 'curves'.
  """

  run: runs.Run
  evaluations: runs.Evaluations
  answers: Answers | None = None
  found: Findings | None = None
  mistakes: list[Mistake] = dataclasses.field(default_factory=list)
  charts: dict[str, Drawn] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class SideBySide:
  """Several runs.

  Attributes:
    chart: their curves.
    differing: settings that are not the same, by field, one for each run.
    compared: those that were asked about the same examples, None if not.
    names: of the compared runs.
    results: the compared runs, in that order.
    why_not: why nothing is compared example by example, '' if it is.
    class_chart: the accuracies of classes.
    shown: of the first duels, (place, [mistakes only the second makes], [only
      the first makes]).
  """

  chart: Drawn
  differing: dict[str, list[Any]]
  compared: Comparison | None
  names: list[str]
  results: list[Result]
  why_not: str
  class_chart: Drawn | None
  shown: list[tuple[int, list[Mistake], list[Mistake]]]


def as_json(
  results: Sequence[Result], side_by_side: SideBySide | None
) -> dict[str, Any]:
  """Returns the numbers of a report; what is not finite is None.

  Args:
    results: of each run.
    side_by_side: of several.
  """
  content: dict[str, Any] = {'runs': [_run(result) for result in results]}
  if side_by_side is not None:
    content['comparison'] = _comparison(side_by_side)
  return _finite(content)


def _run(result: Result) -> dict[str, Any]:
  run, answers, found = result.run, result.answers, result.found
  content: dict[str, Any] = {
    'name': run.name,
    'path': str(run.path),
    'weights': run.weights or None,
    'is_under_way': run.is_under_way,
    'last_step': run.last_step,
    'total_steps': run.total_steps,
    'missing': run.missing,
    'notes': run.notes,
    'evaluations': [
      {'step': step, **dict(zip(result.evaluations.columns, row, strict=True))}
      for step, row in zip(
        result.evaluations.steps, result.evaluations.values, strict=True
      )
    ],
  }
  if answers is None or found is None:
    return content
  return content | {
    'dataset': answers.source.name,
    'split': answers.source.split,
    **_numbers(answers, found),
    'mistakes': [_mistake(answers, each) for each in result.mistakes],
  }


def _numbers(answers: Answers, found: Findings) -> dict[str, Any]:
  names, bins, matrix = answers.class_names, found.reliability, found.matrix
  return {
    'class_names': names,
    'num_examples': found.total,
    'num_right': found.right,
    'accuracy': found.accuracy,
    'accuracy_interval': list(found.interval),
    'loss': found.loss,
    'top5': found.top5,
    'brier': found.brier,
    'calibration': bins
    and {
      'ece': bins.ece,
      'largest_gap': bins.largest,
      'edges': bins.edges.tolist(),
      'counts': bins.counts.tolist(),
      'confidence': bins.confidence.tolist(),
      'accuracy': bins.accuracy.tolist(),
    },
    'classes': [
      {
        'index': each.index,
        'name': each.name,
        'num_examples': each.total,
        'num_right': each.right,
        'accuracy': each.accuracy,
        'interval': list(each.interval) if each.total else None,
        'most_taken_for': each.taken_for,
      }
      for each in found.classes
    ],
    'confusion': {
      'num_examples': matrix.total,
      'classes_in_a_row': matrix.group,
      'counts': matrix.counts.tolist(),
      'wrong': matrix.wrong.tolist() if matrix.group > 1 else None,
    }
    if len(matrix.names) <= MAX_MATRIX
    else None,
    'most_confused': [pair._asdict() for pair in found.pairs],
  }


def _mistake(answers: Answers, each: Mistake) -> dict[str, Any]:
  return {
    'index': int(answers.indices[each.place]),
    'name': each.name,
    'predicted': int(answers.predicted[each.place]),
    'probability': float(answers.confidence[each.place]),
    'labels': answers.labels_of(each.place),
    'probability_of_labels': answers.probability_of_truth(each.place),
  }


def _comparison(found: SideBySide) -> dict[str, Any]:
  content: dict[str, Any] = {
    'differing_settings': found.differing,
    'why_not': found.why_not or None,
  }
  compared = found.compared
  if compared is None:
    return content
  indices = found.results[0].answers.indices  # pyright: ignore[reportOptionalMemberAccess]
  return content | {
    'runs': found.names,
    'num_examples_right_in_so_many_runs': compared.right_in.tolist(),
    'pairs': [
      {
        'first': found.names[duel.first],
        'second': found.names[duel.second],
        'both_right': duel.test.both,
        'only_first_right': duel.test.only_first,
        'only_second_right': duel.test.only_second,
        'both_wrong': duel.test.neither,
        'p_value': duel.test.p_value,
        'examples_only_first_right': indices[duel.only_first].tolist(),
        'examples_only_second_right': indices[duel.only_second].tolist(),
      }
      for duel in compared.duels
    ],
    'class_accuracies': {
      name: row.tolist()
      for name, row in zip(compared.classes, compared.accuracies, strict=True)
    },
  }


def _finite(value: Any) -> Any:
  """Returns a tree of plain values in which None stands for NaN."""
  if isinstance(value, dict):
    return {key: _finite(each) for key, each in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(each) for each in value]
  if isinstance(value, np.generic):
    value = value.item()
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
