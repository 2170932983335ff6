"""Writes figures, maps and a summary of what a model looks at in images."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax import attention, errors, progress
from vit_jax.attention_report import looking
from vit_jax.attention_report.looking import METHODS, Run, Seen
from vit_jax.attention_report.settings import Settings
from vit_jax.data import images

_PER_SHEET = 48


def write_report(
  checkpoint: str,
  names: Sequence[str],
  out: str | os.PathLike,
  settings: Settings | None = None,
) -> dict[str, str]:
  """Writes figures and maps of each image, contact sheets and a summary.

  In `out`, each image gets a directory of its own with `overlay`, `layers`,
  `heads` and `six_steps`, and `maps.npz`: 'map' is float32 [rows, columns] of
  the method, 'class_token' float32 [layers, heads, rows, columns], 'image' what
  the model saw. Beside them are `contact_sheet`s, if there are more images than
  one, and `summary.json`. What is there is written over.

  Args:
    checkpoint: a weight file, a run directory, a name or an address.
    names: files, directories and addresses of images.
    out: directory, which is made if need be.
    settings: what is drawn, and how.

  Returns:
    By their names, what is wrong with the images that could not be used.

  Raises:
    UserError: settings or weights that can't be used, or no images at all.
  """
  settings = settings or Settings()
  _check(settings)
  found = images.find_images(names)
  run = looking.load(checkpoint, settings)
  failed: dict[str, str] = {}
  try:
    _write_all(run, found, pathlib.Path(out), failed)
  except errors.UserError:
    raise
  except OSError as error:
    raise errors.ConfigError(
      f'{error.filename or out}: can not be written ({error.strerror}). Choose '
      'another --out.'
    ) from error
  return failed


def _write_all(
  run: Run, names: list[str], out: pathlib.Path, failed: dict[str, str]
) -> None:
  entries: list[dict[str, Any]] = []
  out.mkdir(parents=True, exist_ok=True)
  sheets = _Sheets(out, run)
  with progress.Progress(len(names), 0, 1) as shown:
    for batch_names, pixels in looking.batches(names, run, failed):
      for seen in looking.look(run, batch_names, pixels):
        folder = _new_folder(out, seen.name, entries)
        entries.append(_write_image(run, seen, folder))
        sheets.add(seen)
        shown.update(len(entries) + len(failed), {})
    sheets.finish()
  _write_summary(run, entries, failed, out / 'summary.json')


def _check(settings: Settings) -> None:
  """Raises ConfigError for what needs no model to be seen as wrong."""
  from vit_jax import figures  # matplotlib takes a second to import.

  for kind, valid in {
    'method': tuple(METHODS),
    'fit': tuple(images.FITS),
    'format': figures.FORMATS,
  }.items():
    if getattr(settings, kind) not in valid:
      raise errors.ConfigError(
        errors.unknown_name(kind, str(getattr(settings, kind)), valid)
      )
  for kind in ('batch', 'image_size', 'num_heads'):
    value = getattr(settings, kind)
    if value is not None and value < 1:
      raise errors.ConfigError(f'{kind} {value} is not positive.')
  _style(settings)


def _style(settings: Settings, model: Any = None):
  from vit_jax import figures

  return figures.Style(
    alpha=settings.alpha,
    colormap=settings.colormap,
    dpi=settings.dpi,
    token_size=attention.token_size(model) if model else None,
    note=settings.note,
  )


def _new_folder(
  out: pathlib.Path, name: str, entries: list[dict[str, Any]]
) -> pathlib.Path:
  """Makes a directory for an image; those of one name get numbers."""
  path = pathlib.PurePath(name.partition('?')[0])
  # Without dots it can be none of the files beside it.
  stem = path.stem.replace('.', '_')[:80] or 'image'
  taken = {entry['directory'] for entry in entries}
  number, folder = 2, stem
  while folder in taken:
    folder, number = f'{stem}-{number}', number + 1
  (out / folder).mkdir(exist_ok=True)
  return out / folder


def _write_image(run: Run, seen: Seen, folder: pathlib.Path) -> dict[str, Any]:
  from vit_jax import figures

  style, suffix = _style(run.settings, run.model), run.settings.format
  title = _title(seen)
  chosen = seen.class_token[run.layers][:, run.shown_heads]
  heads = 'all heads'
  if len(run.shown_heads) < run.model.num_heads:
    heads = f'heads {", ".join(map(str, run.shown_heads))}'
  figures.plot_overlay(
    seen.image,
    seen.values,
    folder / f'overlay.{suffix}',
    f'{title}\n{run.settings.method}' if title else run.settings.method,
    style,
  )
  figures.plot_layers(
    seen.image,
    chosen.mean(axis=1),
    run.layers,
    folder / f'layers.{suffix}',
    f'attention, mean of {heads}',
    style,
  )
  figures.plot_heads(
    seen.image,
    chosen,
    run.layers,
    run.shown_heads,
    folder / f'heads.{suffix}',
    'attention of layers and heads',
    style,
  )
  figures.plot_six_steps(
    seen.image,
    seen.class_token[-1],
    folder / f'six_steps.{suffix}',
    f'attention of layer {run.model.num_layers - 1}',
    style,
  )
  np.savez_compressed(
    folder / 'maps.npz',
    map=np.asarray(seen.values, np.float32),
    class_token=np.asarray(seen.class_token, np.float32),
    image=seen.image,
  )
  return {
    'image': seen.name,
    'directory': folder.name,
    'prediction': _prediction(seen),
    'class': None
    if seen.class_index is None or seen.probabilities is None
    else _class(seen.probabilities, seen.class_index),
    'faithfulness': seen.areas,
  }


class _Sheets:
  """Contact sheets, each drawn as soon as it is full."""

  def __init__(self, out: pathlib.Path, run: Run):
    self._out, self._run = out, run
    self._seen: list[Seen] = []
    self._number = 0

  def add(self, seen: Seen) -> None:
    self._seen.append(seen)
    if len(self._seen) == _PER_SHEET:
      self._draw()

  def finish(self) -> None:
    if len(self._seen) > 1 or (self._seen and self._number):
      self._draw()

  def _draw(self) -> None:
    from vit_jax import figures

    self._number += 1
    settings = self._run.settings
    number = f'_{self._number}' if self._number > 1 else ''
    figures.plot_contact_sheet(
      [seen.image for seen in self._seen],
      [seen.values for seen in self._seen],
      [
        f'{pathlib.PurePath(seen.name).name}\n{_title(seen)}'
        for seen in self._seen
      ],
      self._out / f'contact_sheet{number}.{settings.format}',
      settings.method,
      _style(settings, self._run.model),
    )
    self._seen = []


def _class(probabilities: np.ndarray, index: int) -> dict[str, Any]:
  return {'class': index, 'probability': float(probabilities[index])}


def _prediction(seen: Seen) -> dict[str, Any] | None:
  if seen.probabilities is None:
    return None
  return _class(seen.probabilities, int(seen.probabilities.argmax()))


def _title(seen: Seen) -> str:
  """Returns the top prediction and, if it is another, the class asked about."""
  top = _prediction(seen)
  if top is None or seen.probabilities is None:
    return ''
  title = f'class {top["class"]}, {top["probability"]:.1%}'
  if seen.class_index not in (None, top['class']):
    share = seen.probabilities[seen.class_index]
    title += f'\nasked about class {seen.class_index}, {share:.1%}'
  return title


def _write_summary(
  run: Run,
  entries: list[dict[str, Any]],
  failed: dict[str, str],
  path: pathlib.Path,
) -> None:
  areas = [entry['faithfulness'] for entry in entries if entry['faithfulness']]
  summary = {
    'checkpoint': run.found.path,
    'sha256': run.found.sha256,
    'model': list(run.found.models) or f'like {run.found.nearest_model}',
    'image_size': list(run.size),
    'grid': list(run.model.grid(run.size)),
    'settings': {
      **dataclasses.asdict(run.settings),
      'layers': run.layers,
      'heads': 'mean' if run.heads is None else run.heads,
    },
    'mean_faithfulness': {
      key: float(np.mean([each[key] for each in areas])) for key in areas[0]
    }
    if areas
    else None,
    'images': entries,
    'failed': failed,
  }
  partial = path.with_name(f'{path.name}.partial')
  partial.write_text(json.dumps(summary, indent=2) + '\n', encoding='utf-8')
  os.replace(partial, path)
