"""What is known of a cell: how often it was tried, and what came out.

Beside the files of a run, its directory holds two of this package:
`reproduction.json`, which settings were asked for and each attempt with its
time and device, and `log.txt`, what all of them printed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from vit_jax import errors, metrics, whole_files, workdir
from vit_jax.reproduction.cells import Cell

# As shells count those that were stopped and saved: 128 and the signal.
STOPPED = (130, 143)
# What a run prints at its start: see `summary.run_lines`.
_DEVICES = re.compile(rb'^devices: +(.+)$', re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Attempt:
  """A process that trained a cell, or began to.

  Attributes:
    started: in seconds since 1970.
    seconds: of wall-clock time; None while it lasts, or as nobody was left to
      write it down.
    status: of the process, None likewise.
    device: what the run itself named, '' if it did not come so far.
    error: '' for none.
  """

  started: float
  seconds: float | None = None
  status: int | None = None
  device: str = ''
  error: str = ''


@dataclasses.dataclass(frozen=True)
class Result:
  """How a cell stands.

  Attributes:
    status: 'finished', 'failed', 'stopped' (whoever stopped it) or 'not run'.
    settings: what was set besides the cell's own, as 'FIELD=VALUE'.
    step: the last that was logged.
    total_steps: that it is to have; None where that is not known.
    accuracy: in percent, of the last evaluation, once finished.
    seconds: of wall-clock time over all attempts: starts, compilation,
      evaluations and what had to be done again are in it.
    device: that it ran on; several if it was continued on another.
    images_per_sec: median of what the run logged while training.
    num_attempts: processes that it took so far.
    error: why it failed.
  """

  status: str
  settings: tuple[str, ...] = ()
  step: int = 0
  total_steps: int | None = None
  accuracy: float | None = None
  seconds: float | None = None
  device: str = ''
  images_per_sec: float | None = None
  num_attempts: int = 0
  error: str = ''


class Record:
  """The files of a cell.

  Attributes:
    run: the run's own.
    log: what its processes print.
    settings: asked for besides the cell's own.
    attempts: from the first on.
  """

  def __init__(self, cell: Cell, out: pathlib.Path):
    """Reads what is there.

    Args:
      cell: of any table.
      out: directory of the cells.

    Raises:
      ConfigError: the record is damaged.
    """
    self.run = workdir.Workdir(out / cell.name)
    self.log = self.run.path / 'log.txt'
    self._path = self.run.path / 'reproduction.json'
    self.settings: tuple[str, ...] = ()
    self.attempts: list[Attempt] = []
    try:
      found = json.loads(self._path.read_text(encoding='utf-8'))
      self.settings = tuple(found['settings'])
      self.attempts = [Attempt(**each) for each in found['attempts']]
    except FileNotFoundError:
      pass
    except NotADirectoryError as error:
      raise errors.ConfigError(
        f'{self.run.path} can not be a directory, as a part of this path is a '
        'file. Name another: --out DIR.'
      ) from error
    except (KeyError, TypeError, ValueError, OSError) as error:
      raise errors.ConfigError(
        f'{self._path} can not be read ({error}). It notes the times of this '
        'cell; without it the run is kept, but not how long it took: delete it '
        'or put a whole one back.'
      ) from error

  @property
  def is_finished(self) -> bool:
    """Whether the run has come to its end: the weights are its last file."""
    return self.run.model.exists()

  def begin(self, attempt: Attempt, settings: Sequence[str]) -> None:
    """Notes an attempt before it starts, lest a kill leave no trace of it."""
    self.attempts = [*map(self._closed, self.attempts), attempt]
    self.settings = tuple(settings)
    self._write()

  def end(self, attempt: Attempt) -> None:
    """Notes how the last attempt went."""
    self.attempts[-1] = attempt
    self._write()

  def device(self, begin: int = 0) -> str:
    """Returns what the run last said it runs on, '' for nothing.

    Args:
      begin: byte of the log from which on it may have been.
    """
    if not self.log.exists():
      return ''
    with self.log.open('rb') as file:
      file.seek(begin)
      found = _DEVICES.findall(file.read())
    device = found[-1].decode(errors='replace').strip() if found else ''
    # JAX says no more of one.
    cores = f' ({os.cpu_count()} cores)' if device.endswith(' cpu') else ''
    return device + cores

  def result(self) -> Result:
    """Returns how the cell stands."""
    attempts = [*map(self._closed, self.attempts)]
    devices = dict.fromkeys(each.device for each in attempts if each.device)
    last = attempts[-1] if attempts else None
    result = Result(
      status=self._status(last),
      settings=self.settings,
      total_steps=self._total_steps(),
      seconds=sum(each.seconds or 0.0 for each in attempts) or None,
      device=', then '.join(devices),
      num_attempts=len(attempts),
      error=last.error if last and not self.is_finished else '',
    )
    if not self.run.metrics.exists():
      return result
    try:
      return dataclasses.replace(result, **self._measured())
    except errors.UserError as error:  # One of many, which are shown as well.
      return dataclasses.replace(result, error=errors.first_line(error))

  def _status(self, last: Attempt | None) -> str:
    if self.is_finished:
      return 'finished'
    if last is None:
      return 'stopped' if self.run.config.exists() else 'not run'
    is_cut = last.status is None or last.status in STOPPED
    return 'stopped' if is_cut else 'failed'

  def _measured(self) -> dict[str, Any]:
    found = metrics.read_metrics(self.run.metrics)
    # The median, which a pause elsewhere on the machine hardly moves.
    speeds = sorted(found.get('train/images_per_sec', ((), ()))[1])
    measured = {
      'step': max((int(steps[-1]) for steps, _ in found.values()), default=0),
      'images_per_sec': float(speeds[len(speeds) // 2]) if speeds else None,
    }
    if self.is_finished and 'test/accuracy' in found:
      measured['accuracy'] = 100 * float(found['test/accuracy'][1][-1])
    return measured

  def _total_steps(self) -> int | None:
    try:
      return json.loads(self.run.config.read_text())['total_steps']
    except (OSError, ValueError, KeyError, TypeError):
      return None

  def _closed(self, attempt: Attempt) -> Attempt:
    """Returns an attempt with a time, which a kill may have left it without.

    It has lasted until it wrote its last line.
    """
    if attempt.seconds is not None:
      return attempt
    files = [self.log, self.run.metrics, self.run.model]
    last = max((f.stat().st_mtime for f in files if f.exists()), default=0.0)
    seconds = max(0.0, last - attempt.started)
    return dataclasses.replace(attempt, seconds=seconds, device=self.device())

  def _write(self) -> None:
    found = {
      'settings': self.settings,
      'attempts': [dataclasses.asdict(each) for each in self.attempts],
    }
    try:
      self.run.path.mkdir(parents=True, exist_ok=True)
      whole_files.write_text(self._path, json.dumps(found, indent=2) + '\n')
    except OSError as error:
      raise errors.ConfigError(
        f'{self._path}: the file can not be written '
        f'({error.strerror or error}). Once it can, the same command goes on; '
        '--out DIR names another directory.'
      ) from error
