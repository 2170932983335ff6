"""Draws the figures of each image, and contact sheets of many."""

import pathlib
from collections.abc import Callable
from typing import Any

from vit_jax import attention, figures
from vit_jax.attention_report.looking import Run, Seen
from vit_jax.attention_report.settings import Settings
from vit_jax.data import decode

_PER_SHEET = 48


def style_of(settings: Settings, model: Any = None) -> figures.Style:
  """Returns the looks that settings ask for, at best for a certain model.

  Raises:
    ConfigError: settings that can't be.
  """
  return figures.Style(
    alpha=settings.alpha,
    colormap=settings.colormap,
    dpi=settings.dpi,
    token_size=attention.token_size(model) if model else None,
    note=settings.note,
  )


def prediction_of(run: Run, seen: Seen) -> str:
  """Returns the top prediction, such as 'cat, 98.3%'; '' without a head."""
  return (
    '' if seen.top is None else _class(seen, seen.top, run.trained.class_name)
  )


def title_of(run: Run, seen: Seen) -> str:
  """Returns the top prediction and, if it is another, the class asked about.

  A model without a head predicts nothing: the text is empty.
  """
  top, asked = seen.top, seen.class_index
  if top is None or asked is None:
    return ''

  def name(index: int) -> str:
    found = run.trained.class_name(index)
    # Question marks in place of a name would tell nothing.
    return found if figures.drawable(found) == found else f'class {index}'

  title = _class(seen, top, name)
  if asked != top:
    title += f'\nasked about {_class(seen, asked, name)}'
  return title


def _class(seen: Seen, index: int, name: Callable[[int], str]) -> str:
  assert seen.probabilities is not None
  return f'{name(index)}, {seen.probabilities[index]:.1%}'


def _method(run: Run) -> str:
  """Returns what the overlay shows."""
  if run.settings.method != 'raw':
    return run.settings.method
  return f'attention of layer {run.layers[-1]}, mean of {_heads(run)}'


def _heads(run: Run) -> str:
  if len(run.shown_heads) == run.model.num_heads:
    return 'all heads'
  return f'heads {", ".join(map(str, run.shown_heads))}'


def draw_image(run: Run, seen: Seen, folder: pathlib.Path) -> None:
  """Draws the overlay, the layers, the heads and the six steps of an image.

  Args:
    run: the model and what is asked of it.
    seen: what came of the image.
    folder: that the files are written to.
  """
  style, suffix = style_of(run.settings, run.model), run.settings.format
  title = title_of(run, seen)
  chosen = seen.class_token[run.layers][:, run.shown_heads]
  figures.plot_overlay(
    seen.image,
    seen.values,
    folder / f'overlay.{suffix}',
    f'{title}\n{_method(run)}' if title else _method(run),
    style,
  )
  figures.plot_layers(
    seen.image,
    chosen.mean(axis=1),
    run.layers,
    folder / f'layers.{suffix}',
    f'attention, mean of {_heads(run)}',
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


class Sheets:
  """Contact sheets, each drawn as soon as it is full."""

  def __init__(self, run: Run, out: pathlib.Path):
    """Begins with none.

    Args:
      run: the model and what is asked of it.
      out: directory that the files are written to.
    """
    self._run, self._out = run, out
    self._seen: list[Seen] = []
    self._number = 0

  def add(self, seen: Seen) -> None:
    """Adds an image to the sheet, and draws the sheet if that fills it."""
    self._seen.append(seen)
    if len(self._seen) == _PER_SHEET:
      self._draw()

  def finish(self) -> None:
    """Draws what is left; a single image needs no sheet."""
    if len(self._seen) > 1 or (self._seen and self._number):
      self._draw()

  def _draw(self) -> None:
    self._number += 1
    settings = self._run.settings
    number = f'_{self._number}' if self._number > 1 else ''
    figures.plot_contact_sheet(
      [seen.image for seen in self._seen],
      [seen.values for seen in self._seen],
      [
        f'{decode.shown(pathlib.PurePath(seen.name).name)}\n'
        f'{title_of(self._run, seen)}'
        for seen in self._seen
      ],
      self._out / f'contact_sheet{number}.{settings.format}',
      _method(self._run),
      style_of(settings, self._run.model),
    )
    self._seen = []
