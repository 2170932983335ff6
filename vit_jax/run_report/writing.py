"""Makes a report: reads runs, asks their models, draws and writes."""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vit_jax import errors, whole_files
from vit_jax.run_report import (
  answers,
  comparing,
  drawing,
  findings,
  pictures,
  runs,
)
from vit_jax.run_report.page import make_page
from vit_jax.run_report.results import Result, SideBySide, as_json
from vit_jax.run_report.settings import Settings, as_options

PAGE, NUMBERS = 'index.html', 'report.json'
_DIRECTORY = 'report'
_MAX_DUELS = 3  # Of which images are shown,
_PER_DUEL = 8  # so many of each side, at most.


@dataclasses.dataclass(frozen=True)
class Report:
  """What was written.

  Attributes:
    page: the HTML file.
    missing: by the run's name, what could not be had.
  """

  page: pathlib.Path
  missing: dict[str, list[str]]


def write_report(
  paths: Sequence[str | os.PathLike],
  out: str | os.PathLike | None = None,
  settings: Settings | None = None,
  *,
  tell: Callable[[str], None] = lambda _: None,
) -> Report:
  """Writes `index.html`, `report.json` and the figures of runs.

  What a run lacks is left out, and the page says so; but what `settings` ask
  for by name must be there.

  Args:
    paths: directories of runs.
    out: where to write; None for `report/` in a single run's directory, and in
      the present one for several.
    settings: what is asked for.
    tell: is told what is being done.

  Raises:
    ConfigError: a path is no run or is there twice, or nothing can be written.
    DataError: the data that were asked for, or the metrics, are unusable.
  """
  settings = settings or Settings()
  if not paths:
    raise errors.ConfigError('A report needs a run: give its directory.')
  names = runs.names_of(paths)
  found = [
    runs.read(pathlib.Path(path).expanduser(), name)
    for path, name in zip(paths, names, strict=True)
  ]
  if out is None:
    out = found[0].path / _DIRECTORY if len(found) == 1 else _DIRECTORY
  directory = pathlib.Path(out).expanduser()
  with _writing(directory):
    directory.mkdir(parents=True, exist_ok=True)
  results = []
  for i, run in enumerate(found, start=1):
    place = directory
    if len(found) > 1:  # Names of runs may be alike, or have slashes.
      place = directory / f'{i}_{run.path.resolve().name}'
    results.append(_result(run, place, settings, tell))
  with _writing(directory):
    side = _side_by_side(results, directory, settings)
    numbers = json.dumps(as_json(results, side), indent=1, ensure_ascii=False)
    _write(directory / NUMBERS, numbers + '\n')
    _write(directory / PAGE, make_page(results, side, settings.method))
  return Report(
    directory / PAGE,
    {run.name: run.missing for run in found if run.missing},
  )


def _result(
  run: runs.Run,
  directory: pathlib.Path,
  settings: Settings,
  tell: Callable[[str], None],
) -> Result:
  result = Result(run, runs.last_evaluations(run))
  with _writing(directory):
    directory.mkdir(parents=True, exist_ok=True)
    if run.metrics:
      result.charts['curves'] = drawing.curves(run, directory)
  if run.config is None:
    return result
  try:
    if run.weights:
      tell(f'{run.name}: the model on every image')
    result.answers = answers.ask(run, settings)
  except errors.UserError as error:
    is_data = isinstance(error, errors.DataError | errors.DataNotFoundError)
    if settings.names_data and (
      is_data or isinstance(error, errors.ConfigError)
    ):
      raise
    run.missing.append(
      'No accuracy, mistakes or calibration: '
      + ' '.join(as_options(error).split())
    )
    return result
  _fill(result, directory, settings, tell)
  return result


def _fill(
  result: Result,
  directory: pathlib.Path,
  settings: Settings,
  tell: Callable[[str], None],
) -> None:
  """Adds what the answers come to."""
  said, run = result.answers, result.run
  assert said is not None
  if not len(said):
    run.missing.append(
      f'No accuracy, mistakes or calibration: no image of {said.source.name} '
      f'({said.source.split}) has a label.'
    )
    result.answers = None
    return
  found = result.found = findings.find(said, settings.num_bins)
  if said.is_finite:
    places = pictures.most_confident(said, settings.num_images)
    if len(places):
      tell(
        f'{run.name}: {len(places)} of {found.total - found.right:,} mistakes'
      )
    result.mistakes = pictures.show(said, places, settings.method)
  else:
    run.missing.append(
      'No mistakes or calibration: the model makes NaN or infinite values of '
      'some images. Its training may have failed, or its weights are damaged.'
    )
  with _writing(directory):
    charts = result.charts
    charts['classes'] = drawing.class_accuracy(found, directory)
    charts['confusion'] = drawing.confusion(found, directory)
    if found.reliability is not None:
      charts['calibration'] = drawing.calibration(found, directory)
    if result.mistakes:
      charts['mistakes'] = drawing.mistakes(said, result.mistakes, directory)


def _side_by_side(
  results: Sequence[Result], directory: pathlib.Path, settings: Settings
) -> SideBySide | None:
  if len(results) < 2:
    return None
  chart = drawing.run_curves([result.run for result in results], directory)
  differing = _differing([result.run for result in results])
  asked = [result for result in results if result.found is not None]
  if len(asked) < 2:
    reason = 'fewer than two of them could be evaluated'
    return SideBySide(chart, differing, None, [], [], reason, None, [])
  said = [each.answers for each in asked if each.answers is not None]
  names = [each.run.name for each in asked]
  if reason := comparing.why_not(said):
    return SideBySide(chart, differing, None, names, asked, reason, None, [])
  compared = comparing.compare(
    said, [each.found for each in asked if each.found is not None]
  )
  shown = []
  limit = min(_PER_DUEL, settings.num_images)
  for i, duel in enumerate(compared.duels[:_MAX_DUELS]):
    first, second = said[duel.first], said[duel.second]
    if first.is_finite and second.is_finite:
      shown.append(
        (
          i,
          pictures.show(second, duel.only_first[:limit], settings.method),
          pictures.show(first, duel.only_second[:limit], settings.method),
        )
      )
  return SideBySide(
    chart,
    differing,
    compared,
    names,
    asked,
    '',
    drawing.class_differences(compared, names, directory),
    shown,
  )


def _differing(each: Sequence[runs.Run]) -> dict[str, list[Any]]:
  """Returns the settings that are not the same, by field."""
  flat = [_flatten(run.config.to_dict() if run.config else {}) for run in each]
  fields = sorted({field for settings in flat for field in settings})
  rows = {field: [settings.get(field) for settings in flat] for field in fields}
  return {
    field: row
    for field, row in rows.items()
    if any(value != row[0] for value in row)
  }


def _flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      flat |= _flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = (
        list(value) if isinstance(value, tuple) else value
      )
  return flat


@contextlib.contextmanager
def _writing(directory: pathlib.Path) -> Iterator[None]:
  """Raises ConfigError where writing the report fails."""
  try:
    yield
  except OSError as error:
    if isinstance(error, errors.UserError):
      raise
    raise errors.ConfigError(
      f'{directory}: the report can not be written '
      f'({error.strerror or error}). --out DIR names another directory.'
    ) from error


def _write(path: pathlib.Path, text: str) -> None:
  # A path may have bytes that are no text.
  whole_files.write_text(path, text.encode('utf-8', 'replace').decode('utf-8'))
