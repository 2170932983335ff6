"""Kills runs at random moments and records whether anything was lost.

python tests/faults/record_kills.py --directory kills --kills 50

A run is killed a few times and then comes to its end, which must be that of a
run which nobody killed, to the bit. The same command goes on counting.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import random
import shutil
import sys
import time

import kills
import runs

_KILLS_A_RUN = 5


def main() -> int:
  """Records kills; returns 1 if a run came to another end."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--directory', type=pathlib.Path, required=True)
  parser.add_argument('--kills', type=int, default=50)
  parser.add_argument('--seconds', type=float, default=float('inf'))
  args = parser.parse_args()
  directory = args.directory.absolute()
  directory.mkdir(parents=True, exist_ok=True)
  os.environ['VIT_JAX_CACHE'] = str(directory / 'cache')
  record = directory / 'kills.jsonl'
  data, reference = directory / 'data', directory / 'reference'
  end = time.monotonic() + args.seconds
  if not (reference / 'model.npz').exists():
    kills.finish(reference, data)
  while time.monotonic() < end and len(_read(record)) < args.kills:
    number = len(_read(record))
    _record_run(directory / f'run{number}', data, reference, record)
  print(_table(_read(record)))
  return int(any(not row['is_identical'] for row in _read(record)))


def _record_run(
  workdir: pathlib.Path,
  data: pathlib.Path,
  reference: pathlib.Path,
  record: pathlib.Path,
) -> None:
  """Kills one run several times and adds what came of it to the record."""
  shutil.rmtree(workdir, ignore_errors=True)
  rng = random.Random(workdir.name)
  found: list[kills.Kill] = []
  while len(found) < _KILLS_A_RUN:
    (moment,) = rng.choices(kills.MOMENTS, kills.WEIGHTS)
    with runs.Run(workdir, data) as run:
      kill = kills.kill(run, moment, rng)
    if kill is None:  # It was faster.
      break
    found.append(kill)
  last = kills.finish(workdir, data)
  # Each process began at the checkpoint that the one before it had left whole.
  starts = [*(kill.continued_from for kill in found[1:]), last.first_step()]
  is_continued = all(
    start in (kill.found, None)
    for kill, start in zip(found, starts, strict=True)
  )
  differing = runs.differences(workdir, reference)
  with record.open('a') as lines:
    for kill in found:
      row = dataclasses.asdict(kill)
      row |= {
        'is_identical': not differing and is_continued,
        'run': workdir.name,
      }
      lines.write(json.dumps(row) + '\n')
  shutil.rmtree(workdir)
  for path in workdir.parent.glob(f'{workdir.name}-*.log'):
    path.unlink()


def _read(record: pathlib.Path) -> list[dict]:
  if not record.exists():
    return []
  return [json.loads(line) for line in record.read_text().splitlines()]


def _table(rows: list[dict]) -> str:
  """Returns the counts by the moment of the kill."""
  lines = [
    '| killed while | kills | bit-identical at the end |',
    '|---|---|---|',
  ]
  for moment in kills.MOMENTS:
    here = [row for row in rows if row['moment'] == moment]
    same = sum(row['is_identical'] for row in here)
    lines.append(f'| {moment} | {len(here)} | {same} |')
  same = sum(row['is_identical'] for row in rows)
  return '\n'.join([*lines, f'| all | {len(rows)} | {same} |'])


if __name__ == '__main__':
  sys.exit(main())
