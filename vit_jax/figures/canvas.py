"""How all figures begin and end: a white page, a file that appears whole.

Figures are made without pyplot: nothing global stays changed, no display is
needed.
"""

import functools
import os
import pathlib
from typing import Any, Literal

import matplotlib
import numpy as np
import PIL.Image
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage

from vit_jax import errors, whole_files

INK = '#333333'
# What a figure may be written as. The time of writing is left out, so that the
# same figure is the same file.
_METADATA = {
  'png': {},
  'pdf': {'CreationDate': None},
  'svg': {'Date': None},
}
_SETTINGS: Any = {
  'pdf.fonttype': 42,  # TrueType, as publishers ask for; Type 3 else.
  'svg.hashsalt': 'vit_jax',  # Else identifiers are random.
}
# Less than the default takes far longer for files a little smaller.
_PNG_COMPRESSION = 1
FORMATS = tuple(_METADATA)


def new(
  width: float, height: float, layout: Literal['constrained'] | None
) -> Figure:
  """Returns an empty white figure.

  Args:
    width: in inches.
    height: in inches.
    layout: 'constrained', or None where the panels have their places.
  """
  figure = Figure(figsize=(width, height), layout=layout)
  figure.patch.set_facecolor('white')
  return figure


def drawable(text: str) -> str:
  """Returns a text with '?' for what the font lacks, as file names have."""
  known = _characters()
  return ''.join(
    each if ord(each) in known or each == '\n' else '?' for each in text
  )


def wrapped(text: str, size: float, width: float) -> str:
  """Returns a text as `drawable`, in lines that fit.

  Args:
    text: words that don't fit on a line are broken.
    size: of the font, in points.
    width: of a line, in inches.
  """
  lines: list[str] = []
  for paragraph in drawable(text).splitlines():
    line = ''
    for word in paragraph.split(' '):
      longer = f'{line} {word}' if line else word
      while width_of(longer, size) > width and len(longer) > 1:
        fits = line or _beginning(longer, size, width)
        lines.append(fits)
        longer, line = longer[len(fits) :].lstrip(), ''
      line = longer
    lines.append(line)
  return '\n'.join(lines)


def shortened(line: str, size: float, width: float) -> str:
  """Returns a text as `drawable`, without its middle if that doesn't fit."""
  line = drawable(line)
  cut = line
  for kept in range(len(line) - 1, 1, -1):
    if width_of(cut, size) <= width:
      break
    cut = f'{line[: (kept + 1) // 2]}…{line[-(kept // 2) :]}'
  return cut


def _beginning(word: str, size: float, width: float) -> str:
  """Returns what of a word fits on a line, at least a character."""
  fits = 1
  while width_of(word[: fits + 1], size) <= width:
    fits += 1
  return word[:fits]


def width_of(text: str, size: float) -> float:
  """Returns what a line takes, in inches; kerning makes it hardly narrower."""
  return sum(map(_advance, text)) * size / 72


@functools.cache
def _advance(character: str) -> float:
  """Returns how wide a character is in a font of one point."""
  font = font_manager.get_font(font_manager.findfont(FontProperties()))
  font.set_size(100, 72)
  # What is drawn is up to a fourteenth wider, as it is fitted to pixels.
  return 1.08 * font.load_char(ord(character)).linearHoriAdvance / 65536 / 100


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
    OSError: the file can't be written.
  """
  path = pathlib.Path(path)
  kind = path.suffix.removeprefix('.').lower()
  if kind not in _METADATA:
    raise errors.ConfigError(errors.unknown_name('format', kind, FORMATS))
  with whole_files.replacing(path) as partial:
    # Without a canvas of its own, pyplot's is taken.
    drawn = FigureCanvasAgg(figure)
    if kind == 'png':
      _save_png(drawn, partial, dpi)
    else:
      with matplotlib.rc_context(_SETTINGS):
        figure.savefig(partial, format=kind, dpi=dpi, metadata=_METADATA[kind])


def _save_png(drawn: FigureCanvasAgg, path: pathlib.Path, dpi: int) -> None:
  """Writes what matplotlib would, which draws twice and packs for long."""
  figure = drawn.figure
  figure.set_dpi(dpi)
  images = [image for ax in figure.axes for image in ax.images]
  # matplotlib takes seconds to move millions of pixels, even if to copy them.
  copied = {image: times for image in images if (times := _times(image))}
  for image in copied:
    image.set_visible(False)
  drawn.draw()
  page = np.array(drawn.buffer_rgba())[..., :3]
  for image, times in copied.items():
    image.set_visible(True)
    pixels = np.asarray(image.get_array()).repeat(times, 0).repeat(times, 1)
    box = image.axes.get_window_extent()
    top, left = page.shape[0] - round(box.y1), round(box.x0)
    height, width = pixels.shape[:2]
    page[top : top + height, left : left + width] = pixels
  PIL.Image.fromarray(np.ascontiguousarray(page)).save(
    path, 'PNG', dpi=(dpi, dpi), compress_level=_PNG_COMPRESSION
  )


def _times(image: AxesImage) -> int:
  """Returns how many pixels across each of an image's takes, 0 if no number."""
  values, ax = np.asarray(image.get_array()), image.axes
  fills = tuple(image.get_extent()) == (*ax.get_xlim(), *ax.get_ylim())
  if not (fills and values.dtype == np.uint8 and values.shape[2:] == (3,)):
    return 0
  box = ax.get_window_extent()
  across, down = box.width / values.shape[1], box.height / values.shape[0]
  is_whole = max(abs(across - round(across)), abs(down - across)) < 1e-6
  return round(across) if is_whole else 0
