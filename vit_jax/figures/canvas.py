"""How all figures begin and end: a white page, a file that appears whole.

Figures are made without pyplot: nothing global changes, no display is needed,
and threads don't meet.
"""

import functools
import os
import pathlib

from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties

from vit_jax import errors

INK = '#333333'
# What a figure may be written as. The time of writing is left out, so that the
# same figure is the same file where the format allows it.
_METADATA = {
  'png': {},
  'pdf': {'CreationDate': None},
  'svg': {'Date': None},
}
FORMATS = tuple(_METADATA)


def new(width: float, height: float, layout: str = 'constrained') -> Figure:
  """Returns an empty white figure.

  Args:
    width: in inches.
    height: in inches.
    layout: 'constrained', or 'compressed' where panels keep their shape.
  """
  figure = Figure(figsize=(width, height), layout=layout)  # pyright: ignore[reportArgumentType]
  figure.patch.set_facecolor('white')
  return figure


def drawable(text: str) -> str:
  """Returns a text with '?' for what the font lacks, as file names have."""
  known = _characters()
  return ''.join(
    each if ord(each) in known or each == '\n' else '?' for each in text
  )


@functools.cache
def _characters() -> frozenset[int]:
  font = font_manager.get_font(font_manager.findfont(FontProperties()))
  return frozenset(font.get_charmap())


def save(figure: Figure, path: str | os.PathLike, dpi: int = 150) -> None:
  """Writes a figure; the file appears whole or not at all.

  Args:
    figure: from `new`.
    path: ends in one of `FORMATS`.
    dpi: pixels per inch; in PDF and SVG, of the images within.

  Raises:
    ConfigError: another format.
  """
  path = pathlib.Path(path)
  kind = path.suffix.removeprefix('.').lower()
  if kind not in _METADATA:
    raise errors.ConfigError(errors.unknown_name('format', kind, FORMATS))
  partial = path.with_name(f'{path.name}.partial')
  try:
    FigureCanvasAgg(figure)  # Without a canvas of its own, pyplot's is taken.
    figure.savefig(partial, format=kind, dpi=dpi, metadata=_METADATA[kind])
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)
