"""Writes figures, maps and a summary of what a model looks at in images."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax import errors, figures, progress, whole_files
from vit_jax.attention.products import check_ratio
from vit_jax.attention.rollouts import HEAD_FUSIONS
from vit_jax.attention_report import drawing, explorer, looking
from vit_jax.attention_report.looking import METHODS, Run, Seen
from vit_jax.attention_report.settings import Settings
from vit_jax.class_names import readable
from vit_jax.data import images

# Whose maps depend on these settings.
_USERS = {
  'discard_ratio': ('rollout', 'grad_rollout'),
  'head_fusion': ('rollout',),
}


@dataclasses.dataclass
class Report:
  """What could not be done.

  Attributes:
    failed: by their names, what is wrong with images that could not be used.
    left_out: names of images that had no room on the page.
  """

  failed: dict[str, str] = dataclasses.field(default_factory=dict)
  left_out: list[str] = dataclasses.field(default_factory=list)


def write_report(
  checkpoint: str,
  names: Sequence[str],
  out: str | os.PathLike | None = None,
  settings: Settings | None = None,
  *,
  html: str | os.PathLike | None = None,
) -> Report:
  """Writes figures and maps of each image, sheets, a summary, and a page.

  In `out`, each image gets a directory of its own with `overlay`, `layers`,
  `heads` and `six_steps`, and `maps.npz`: 'map' is float32 [rows, columns] of
  the method, 'class_token' float32 [layers, heads, rows, columns], 'image' what
  the model saw. Beside them are `contact_sheet`s, if there are more images than
  one, and `summary.json`. What is there is written over.

  Args:
    checkpoint: a weight file, a run directory, a name or an address.
    names: files, directories and addresses of images.
    out: directory, which is made if need be; None or '' for the page alone.
    settings: what is drawn, and how.
    html: file of a page to explore the attention with; None or '' for no page.

  Returns:
    What could not be done.

  Raises:
    UserError: settings or weights that can't be used, nothing to write, or no
      images at all.
  """
  settings = settings or Settings()
  _check(settings)
  if not out and not html:
    raise errors.ConfigError(
      'There is nothing to write. Give --out DIR for figures, --html FILE for '
      'a page, or both.'
    )
  if not html:
    _check_used(settings)
  found = images.find_images(names)
  if not out:  # The page has no place for it.
    settings = dataclasses.replace(settings, faithfulness=False)
  run = looking.load(checkpoint, settings)
  page = _new_page(run, checkpoint) if html else None
  report = Report()
  try:
    if html:
      _make_room(html)
    folder = pathlib.Path(out) if out else None
    writer = _Writer(run, folder, page, report)
    try:
      _write_all(run, found, writer, report)
    finally:  # What is done is done, even if the user stops it here.
      writer.finish(html)
  except errors.UserError:
    raise
  except OSError as error:
    raise errors.ConfigError(
      f'{str(error.filename or out or html).removesuffix(".partial")}: can not '
      f'be written ({error.strerror}). Choose another place.'
    ) from error
  return report


def _write_all(
  run: Run, names: list[str], writer: '_Writer', report: Report
) -> None:
  num_done = 0
  with progress.Progress(len(names), 0, 1) as shown:
    shown.update(0, {})  # From here on it measures the speed.
    for batch_names, pixels in looking.batches(names, run, report.failed):
      for seen in looking.look(run, batch_names, pixels, report.failed):
        writer.add(seen)
        num_done += 1
        shown.update(num_done + len(report.failed), {})


class _Writer:
  """Writes each image's part as it comes, and what is of all at the end."""

  def __init__(
    self,
    run: Run,
    out: pathlib.Path | None,
    page: explorer.Page | None,
    report: Report,
  ):
    self._run, self._out, self._page, self._report = run, out, page, report
    self._entries: list[dict[str, Any]] = []
    self._sheets = drawing.Sheets(run, out) if out else None
    if out:
      out.mkdir(parents=True, exist_ok=True)

  def add(self, seen: Seen) -> None:
    if self._out and self._sheets:
      folder = _new_folder(self._out, seen.name, self._entries)
      self._entries.append(_write_image(self._run, seen, folder))
      self._sheets.add(seen)
    title = drawing.prediction_of(self._run, seen)
    if self._page and not self._page.add(seen.image, seen.name, title):
      self._report.left_out.append(seen.name)

  def finish(self, html: str | os.PathLike | None) -> None:
    if self._out and self._sheets:
      self._sheets.finish()
      path = self._out / 'summary.json'
      _write_summary(self._run, self._entries, self._report.failed, path)
    if html and self._page and self._page.num_images:
      self._page.write(html, len(self._report.left_out))


def _check(settings: Settings) -> None:
  """Raises ConfigError for what needs no model to be seen as wrong."""
  for kind, valid in {
    'method': tuple(METHODS),
    'fit': tuple(images.FITS),
    'format': figures.FORMATS,
    'head_fusion': tuple(HEAD_FUSIONS),
  }.items():
    if getattr(settings, kind) not in valid:
      raise errors.ConfigError(
        errors.unknown_name(kind, str(getattr(settings, kind)), valid)
      )
  for kind in ('batch', 'image_size', 'num_heads'):
    value = getattr(settings, kind)
    if value is not None and np.min(value) < 1:
      raise errors.ConfigError(f'{kind} {value} is not positive.')
  check_ratio(settings.discard_ratio)
  drawing.style_of(settings)


def _check_used(settings: Settings) -> None:
  """Raises ConfigError for options that the method has no use for."""
  default = Settings()
  for field, methods in _USERS.items():
    value = getattr(settings, field)
    if value != getattr(default, field) and settings.method not in methods:
      raise errors.ConfigError(
        f'{field} {value} changes nothing of method {settings.method!r}: it is '
        f'for {" and ".join(methods)}, and for the rollout of the page.'
      )


def _new_page(run: Run, checkpoint: str) -> explorer.Page:
  page = explorer.Page(
    run.model,
    run.params,
    drawing.style_of(run.settings, run.model),
    title=f'Attention of {run.trained.name}: {checkpoint}',
    head_fusion=run.settings.head_fusion,
    discard_ratio=run.settings.discard_ratio,
  )
  page.check(run.size)
  return page


def _make_room(html: str | os.PathLike) -> None:
  """Makes the directory of a page, before the work that the page is to hold."""
  path = pathlib.Path(html)
  if problem := whole_files.no_file(path):
    name = 'attention.html'
    raise errors.ConfigError(
      f'{path} {problem}. Give the name of a file: --html '
      f'{path / name if path.is_dir() else name}'
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  # Whether it can be written, too, is better known now.
  partial = path.with_name(f'{path.name}.partial')
  partial.touch()
  partial.unlink()


def _new_folder(
  out: pathlib.Path, name: str, entries: list[dict[str, Any]]
) -> pathlib.Path:
  """Makes a directory for an image; those of one name get numbers."""
  path = pathlib.PurePath(name.partition('?')[0])
  # Without dots it can be none of the files beside it.
  stem = path.stem.replace('.', '_')[:80] or 'image'
  taken = {entry['directory'] for entry in entries}
  number, folder = 2, stem
  # What is there may be a file of the user's.
  while folder in taken or (out / folder).is_file():
    folder, number = f'{stem}-{number}', number + 1
  (out / folder).mkdir(exist_ok=True)
  return out / folder


def _write_image(run: Run, seen: Seen, folder: pathlib.Path) -> dict[str, Any]:
  """Draws an image and writes its maps; returns what the summary says of it."""
  drawing.draw_image(run, seen, folder)
  partial = folder / 'maps.npz.partial'
  with partial.open('wb') as file:
    np.savez_compressed(
      file,
      map=np.asarray(seen.values, np.float32),
      class_token=np.asarray(seen.class_token, np.float32),
      image=seen.image,
    )
  os.replace(partial, folder / 'maps.npz')
  return {
    'image': seen.name,
    'directory': folder.name,
    'prediction': _class(run, seen, seen.top),
    'class': _class(run, seen, seen.class_index),
    'faithfulness': seen.areas,
  }


def _class(run: Run, seen: Seen, index: int | None) -> dict[str, Any] | None:
  if seen.probabilities is None or index is None:
    return None
  names = run.trained.class_names
  return {
    'class': index,
    'name': readable(names[index]) if names else None,
    'probability': float(seen.probabilities[index]),
  }


def _write_summary(
  run: Run,
  entries: list[dict[str, Any]],
  failed: dict[str, str],
  path: pathlib.Path,
) -> None:
  areas = [entry['faithfulness'] for entry in entries if entry['faithfulness']]
  summary = {
    'checkpoint': run.trained.found.path,
    'sha256': run.trained.found.sha256,
    'model': run.trained.name,
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
  whole_files.write_text(path, json.dumps(summary, indent=2) + '\n')
