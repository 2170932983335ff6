"""Draws the figures of each image, and contact sheets of many."""

import pathlib
from typing import Any

from vit_jax import attention, figures
from vit_jax.attention_report.looking import Run, Seen
from vit_jax.attention_report.settings import Settings

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


def title_of(run: Run, seen: Seen) -> str:
  """Returns the top prediction and, if it is another, the class asked about.

  A model without a head predicts nothing: the text is empty.
  """
  top = seen.top
  if seen.probabilities is None or top is None:
    return ''
  title = f'{run.class_name(top)}, {seen.probabilities[top]:.1%}'
  if seen.class_index not in (None, top):
    share = seen.probabilities[seen.class_index]
    title += f'\nasked about {run.class_name(seen.class_index)}, {share:.1%}'
  return title


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
        f'{pathlib.PurePath(seen.name).name}\n{title_of(self._run, seen)}'
        for seen in self._seen
      ],
      self._out / f'contact_sheet{number}.{settings.format}',
      settings.method,
      style_of(settings, self._run.model),
    )
    self._seen = []
