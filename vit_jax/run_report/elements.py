"""What pages are made of: tables, figures, facts; all texts are escaped."""

import base64
import html
import io
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np
import PIL.Image

from vit_jax.run_report import pictures
from vit_jax.run_report.drawing import Drawn

NOTHING = '–'
# Enlarged, the pixels of smaller ones are squares.
_SMALL_SIDE = 128
_SHORT = 20  # Characters of a name that stay on a line.
_OPEN_ROWS = 12  # Of classes; where there are more, all are shown on demand.


def escaped(text: object) -> str:
  """Returns a text that is nothing else to a browser."""
  return html.escape(str(text))


def percent(value: float | None, digits: int = 2) -> str:
  """Returns a share in percent, or a dash."""
  if value is None or not math.isfinite(value):
    return NOTHING
  return f'{value:.{digits}%}'


def number(value: float | None) -> str:
  """Returns a number of four digits, or a dash."""
  if value is None or not math.isfinite(value):
    return NOTHING
  return f'{value:.4f}' if abs(value) < 100 else f'{value:,.0f}'


def metric(name: str, value: float | None) -> str:
  """Returns the value of a metric: in percent where it is a share."""
  is_share = name.rpartition('/')[2] in ('accuracy', 'top5')
  return percent(value) if is_share else number(value)


def p_value(value: float) -> str:
  """Returns a p-value with three digits, or what it is below."""
  return '< 0.001' if value < 0.001 else f'{value:.3f}'


def table(
  caption: str,
  columns: Sequence[str],
  rows: Iterable[Sequence[str]],
  *,
  text: Sequence[int] = (),
  classes: Mapping[tuple[int, int], str] | None = None,
  kind: str = '',
) -> str:
  """Returns a table that scrolls by itself where it is too wide.

  Args:
    caption: what it is about.
    columns: their names.
    rows: of texts; the first of each is the row's name.
    text: numbers of the columns that are words, which stand to the left.
    classes: of cells, by row and column.
    kind: the table's class.
  """
  classes = classes or {}

  def cell(i: int, j: int, value: str) -> str:
    names = [classes[i, j]] if (i, j) in classes else []
    if j in text:
      names.append('text')
    if j in (0, *text) and len(value) <= _SHORT:
      names.append('short')
    kind_of = f' class="{" ".join(names)}"' if names else ''
    if not j:
      return f'<th scope="row"{kind_of}>{escaped(value)}</th>'
    return f'<td{kind_of}>{escaped(value)}</td>'

  left = ' class="text"'
  head = ''.join(
    f'<th scope="col"{left if j in (0, *text) else ""}>{escaped(name)}</th>'
    for j, name in enumerate(columns)
  )
  body = '\n'.join(
    f'<tr>{"".join(cell(i, j, value) for j, value in enumerate(row))}</tr>'
    for i, row in enumerate(rows)
  )
  kind_of = f' class="{kind}"' if kind else ''
  # To be scrolled by keys, it has to have the focus.
  return (
    f'<div class="scroll" tabindex="0" role="region" '
    f'aria-label="{escaped(caption)}"><table{kind_of}>'
    f'<caption>{escaped(caption)}</caption>'
    f'<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
  )


def class_table(
  caption: str,
  columns: Sequence[str],
  rows: Sequence[Sequence[str]],
  *,
  text: Sequence[int] = (),
) -> str:
  """Returns a table with a row for each class, on demand if there are many.

  Args are as of `table`.
  """
  whole = table(caption, columns, rows, text=text)
  if len(rows) <= _OPEN_ROWS:
    return whole
  return details(f'All {len(rows):,} classes as a table', whole)


def details(summary: str, content: str) -> str:
  """Returns what is shown on demand."""
  return f'<details><summary>{escaped(summary)}</summary>{content}</details>'


def chart(drawn: Drawn, caption: str) -> str:
  """Returns a figure with its file in it."""
  content = drawn.path.read_bytes()
  with PIL.Image.open(io.BytesIO(content)) as opened:
    width, height = opened.size
  return (
    f'<figure class="chart"><div class="scroll" tabindex="0" role="region" '
    f'aria-label="{escaped(drawn.path.stem.replace("_", " "))}">'
    f'<img src="{_address(content)}" width="{width}" height="{height}" '
    f'alt="{escaped(drawn.text)}"></div>'
    f'<figcaption>{escaped(caption)}</figcaption></figure>'
  )


def image(pixels: np.ndarray, text: str) -> str:
  """Returns a picture.

  Args:
    pixels: uint8 [height, width, 3].
    text: what it is, for those who can't see it.
  """
  pixels = pictures.small(pixels)
  _, encoded = cv2.imencode('.png', pixels[..., ::-1])
  height, width = pixels.shape[:2]
  kind = ' class="small"' if max(height, width) < _SMALL_SIDE else ''
  return (
    f'<img{kind} src="{_address(encoded.tobytes())}" width="{width}" '
    f'height="{height}" alt="{escaped(text)}">'
  )


def facts(
  each: Iterable[tuple[str, str, str]], long: Sequence[str] = ()
) -> str:
  """Returns numbers in boxes.

  Args:
    each: (name, value, what more there is to say of it, or '').
    long: names of those that are given a line of their own.
  """

  def box(name: str, value: str, more: str) -> str:
    small = f'<small>{escaped(more)}</small>' if more else ''
    kind = ' class="long"' if name in long else ''
    return (
      f'<div{kind}><dt>{escaped(name)}</dt>'
      f'<dd>{escaped(value)}{small}</dd></div>'
    )

  return f'<dl class="facts">{"".join(box(*fact) for fact in each)}</dl>'


def paragraph(text: str, kind: str = '') -> str:
  """Returns a paragraph of a text."""
  kind_of = f' class="{kind}"' if kind else ''
  return f'<p{kind_of}>{escaped(text)}</p>'


def columns(left: str, right: str) -> str:
  """Returns two parts beside each other, where there is room."""
  return f'<div class="columns"><div>{left}</div><div>{right}</div></div>'


def read_part(name: str) -> str:
  """Returns a file that pages are made of."""
  return (pathlib.Path(__file__).parent / name).read_text(encoding='utf-8')


def _address(content: bytes) -> str:
  """Returns the address of a PNG that is in the address itself."""
  return f'data:image/png;base64,{base64.b64encode(content).decode("ascii")}'
