"""What was measured, a dict for each case: by processes, as a table."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax import errors

# Name in the JSON, heading, format.
_COLUMNS = (
  ('kind', 'kind', '{}'),
  ('model', 'model', '{}'),
  ('batch', 'batch', '{}'),
  ('dtype', 'dtype', '{}'),
  ('mesh', 'mesh', '{}'),
  ('settings', 'settings', '{}'),
  ('images_per_sec', 'images/s', '{:,.1f}'),
  ('step_ms', 'step ms', '{:,.2f}'),
  ('step_ms_range', 'range', '{0[0]:,.2f}-{0[1]:,.2f}'),
  ('compile_s', 'compile s', '{:.1f}'),
  ('mfu', 'MFU', '{:.1%}'),
  ('compiled_mb', 'compiled MB', '{:,.0f}'),
  ('peak_mb', 'peak MB', '{:,.0f}'),
  ('planned_mb', 'planned MB', '{:,.0f}'),
  ('error', 'error', '{}'),
)


def count_devices() -> int:
  """Returns how many there are.

  Asked of another process: in this one they would be taken from those that
  measure.

  Raises:
    ConfigError: JAX can use none.
  """
  done = _run(['-c', 'import jax; print(jax.device_count())'], None)
  if done.returncode:
    raise errors.ConfigError(f'JAX finds no devices: {_last_line(done)}')
  return int(done.stdout.splitlines()[-1])


def run_case(
  script: str, case: Mapping[str, Any], timeout: float
) -> dict[str, Any]:
  """Returns what a process of its own measures, or {'error': why not}.

  Args:
    script: a file that prints the figures as JSON, given --child=CASE.
    case: from `cases.make_cases`.
    timeout: seconds.
  """
  try:
    done = _run([script, f'--child={json.dumps(case)}'], timeout)
  except subprocess.TimeoutExpired:
    return {'error': f'more than {timeout:g} s'}
  if done.returncode == 0:
    return json.loads(done.stdout.splitlines()[-1])
  # -9: the kernel kills what takes all of a machine's memory.
  if done.returncode == -9 or 'RESOURCE_EXHAUSTED' in done.stderr:
    return {'error': 'out of memory'}
  return {'error': _last_line(done)}


def _run(
  arguments: Sequence[str], timeout: float | None
) -> subprocess.CompletedProcess[str]:
  root = str(pathlib.Path(__file__).parents[2])
  return subprocess.run(
    [sys.executable, *arguments],
    env={
      **os.environ,
      'PYTHONPATH': os.pathsep.join([root, os.environ.get('PYTHONPATH', '')]),
      # What is taken in advance would hide what is needed.
      'XLA_PYTHON_CLIENT_PREALLOCATE': 'false',
    },
    capture_output=True,
    text=True,
    timeout=timeout,
  )


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
  lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
  return lines[-1][:200] if lines else f'status {done.returncode}'


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """Returns rows as a table in Markdown, columns without anything left out.

  Args:
    rows: cases with their figures.
  """
  columns = [
    column for column in _COLUMNS if any(row.get(column[0]) for row in rows)
  ]
  cells = [[heading for _, heading, _ in columns], ['---'] * len(columns)]
  for row in rows:
    cells.append(
      [
        text.format(row[name]) if name in row else ''
        for name, _, text in columns
      ]
    )
  return '\n'.join(f'| {" | ".join(row)} |' for row in cells)


def line(row: Mapping[str, Any]) -> str:
  """Returns a row as one line, for those who wait.

  Args:
    row: a case with its figures.
  """
  return ' '.join(
    text.format(row[name]) for name, _, text in _COLUMNS if row.get(name)
  )
