"""Writes a report as one page that needs nothing else."""

import string
from collections.abc import Sequence

import vit_jax
from vit_jax.run_report import run_parts, side_parts
from vit_jax.run_report.elements import escaped, read_part
from vit_jax.run_report.results import Result, SideBySide


def make_page(
  results: Sequence[Result],
  side_by_side: SideBySide | None,
  method: str,
) -> str:
  """Returns the HTML of a report.

  Args:
    results: of each run.
    side_by_side: of several.
    method: of the overlays.
  """
  names = [result.run.name for result in results]
  if side_by_side is None:
    title = f'Report of {names[0]}'
    parts, contents = run_parts.parts(results[0], '', 2, method)
    body = run_parts.head(results[0]) + parts
  else:
    title = f'Report of {len(names)} runs'
    body = side_parts.part(side_by_side, results)
    contents = [('side-by-side', 'Side by side')]
    for i, result in enumerate(results, start=1):
      parts, _ = run_parts.parts(result, f'run{i}-', 3, method)
      body += (
        f'\n<section id="run{i}"><h2>{escaped(result.run.name)}</h2>'
        f'{run_parts.head(result)}{parts}</section>'
      )
      contents.append((f'run{i}', result.run.name))
  return _Template(read_part('page.html')).substitute(
    title=escaped(title),
    style=read_part('page.css'),
    contents='\n'.join(
      f'<li><a href="#{place}">{escaped(name)}</a></li>'
      for place, name in contents
    ),
    parts=body,
    footer=(
      f'Made by scripts/report.py of vit_jax {escaped(vit_jax.__version__)}. '
      'The numbers are in report.json, the figures beside it.'
    ),
  )


class _Template(string.Template):
  """As dollars may be in what is filled in, and in the style."""

  delimiter = '@@'
