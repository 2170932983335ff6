"""Writes a run's metrics to `metrics.jsonl` and TensorBoard, and reads them.

`metrics.jsonl` has one JSON object a line, `step` first, then floats by name.
A value that is NaN or infinite is `null` there, because JSON has no other word
for it and one bad value must not make the line unreadable.
"""

import contextlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self, SupportsFloat

import numpy as np

from vit_jax import errors

FILE_NAME = 'metrics.jsonl'
_FLUSH_SECONDS = 30


class MetricWriter:
  """Appends metrics to the files of a run, which may be one that goes on.

  What a killed process logged after its last checkpoint is dropped, as those
  steps are made again: each step is in the file once.

  Its methods raise `ConfigError` where the files can't be written, such as on a
  full disk.
  """

  def __init__(
    self,
    workdir: str | os.PathLike,
    restored_step: int = 0,
    enabled: bool = True,
  ):
    """Opens the files, creating `workdir` if need be.

    Args:
      workdir: where `metrics.jsonl` and the event files are.
      restored_step: the number of updates in the checkpoint that the run goes
        on from; 0 begins anew and drops everything.
      enabled: False, on all processes but the first, writes nothing at all.
    """
    self._file = self._board = None
    if not enabled:
      return
    path = pathlib.Path(workdir, FILE_NAME)
    self._path = path
    with self._writing():
      path.parent.mkdir(parents=True, exist_ok=True)
      _drop_after(path, restored_step)
      self._file = path.open('a', encoding='utf-8')
      self._board = _EventFile(path.parent, restored_step)

  def write(self, step: int, values: Mapping[str, SupportsFloat]) -> None:
    """Appends one line.

    Args:
      step: number of updates made.
      values: by name, such as 'train/loss'; anything `float` takes.
    """
    if self._file is None or self._board is None:
      return
    assert 'step' not in values, 'the line has a step already'
    floats = {name: float(value) for name, value in values.items()}
    line: dict[str, Any] = {'step': int(step)}
    with self._writing():
      for name, value in floats.items():
        line[name] = value if math.isfinite(value) else None
      self._board.write(int(step), floats)
      # Written whole and at once, so that a kill tears the last line at worst.
      self._file.write(json.dumps(line, allow_nan=False) + '\n')
      self._file.flush()

  def close(self) -> None:
    """Flushes and closes; `write` does nothing from then on."""
    if self._file is None or self._board is None:
      return
    file, board = self._file, self._board
    self._file = self._board = None
    with self._writing():
      try:
        file.close()
      finally:
        board.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    try:
      self.close()
    except errors.ConfigError:
      if error is None:  # What is on its way is the cause, or matters more.
        raise

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    try:
      yield
    except OSError as error:
      raise errors.ConfigError(
        f'{self._path}: metrics can not be written '
        f'({error.strerror or error}). Once they can, the same command '
        'continues from the last checkpoint, if there is one; --workdir=DIR '
        'names another directory.'
      ) from error


def read_metrics(
  path: str | os.PathLike,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads a `metrics.jsonl`, also of a run that is being written.

  Args:
    path: the file, or the run directory that has it.

  Returns:
    For each name (steps int64 [n], values float64 [n]) in the order of the
    file; what was not finite is NaN.

  Raises:
    DataNotFoundError: there is no such file.
    DataError: a line is not an object with a step and numbers.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    path = path / FILE_NAME
  if not path.is_file():
    raise errors.DataNotFoundError(
      f'No metrics at {str(path)!r}. Expected the {FILE_NAME} of a run; give '
      'the --workdir it was started with.'
    )
  series: dict[str, tuple[list[int], list[float]]] = {}
  text = path.read_text(encoding='utf-8', errors='replace')
  # Whatever follows the last newline is still being written, or torn.
  for number, line in enumerate(text.split('\n')[:-1], start=1):
    values = _parse(line)
    if values is None:
      raise errors.DataError(
        f'{path}, line {number}: found {line[:60]!r}, expected a JSON object '
        'with "step" and numbers by name; delete the line.'
      )
    step = values.pop('step')
    for name, value in values.items():
      steps, floats = series.setdefault(name, ([], []))
      steps.append(step)
      floats.append(math.nan if value is None else value)
  return {
    name: (np.asarray(steps, np.int64), np.asarray(floats, np.float64))
    for name, (steps, floats) in series.items()
  }


class _EventFile:
  """One of TensorBoard's files.

  tensorboardX's own `SummaryWriter` writes in a thread; a full disk ends the
  thread and then blocks the training for good.
  """

  def __init__(self, directory: pathlib.Path, restored_step: int):
    writer_class, self._protos = _event_classes()
    # File names count whole seconds: without the process, a run restarted at
    # once would overwrite the file of the one before.
    suffix = f'.{os.getpid()}.{restored_step}'
    self._writer = writer_class(os.fspath(directory / 'events'), suffix)
    self._next_flush = 0.0
    # TensorBoard hides what earlier event files have from this step on.
    self._write(
      restored_step + 1 if restored_step else 0,
      session_log={'status': self._protos.SessionLog.START},
    )

  def write(self, step: int, values: Mapping[str, float]) -> None:
    scalars = [
      {'tag': name, 'simple_value': value} for name, value in values.items()
    ]
    self._write(step, summary={'value': scalars})

  def _write(self, step: int, **content: Any) -> None:
    now = time.time()
    self._writer.write_event(
      self._protos.Event(wall_time=now, step=step, **content)
    )
    if now >= self._next_flush:  # It waits for the disk: not each time.
      self._writer.flush()
      self._next_flush = now + _FLUSH_SECONDS

  def close(self) -> None:
    self._writer.close()


def _event_classes() -> tuple[Any, Any]:
  """Returns the writer of event files and what it writes, without PyTorch.

  tensorboardX imports PyTorch, seconds and a gigabyte, wherever it is
  installed. None in `sys.modules` makes that import fail.
  """
  modules: dict[str, Any] = sys.modules
  is_absent = modules.setdefault('torch', None) is None
  try:
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2
  finally:
    if is_absent:
      del modules['torch']
  return EventsWriter, event_pb2


def _drop_after(path: pathlib.Path, step: int) -> None:
  """Keeps the whole lines of the steps 1 to `step`."""
  if not path.exists():
    return
  old = path.read_bytes()
  text = old.decode('utf-8', errors='replace')
  kept = []
  for line in text.split('\n')[:-1]:
    values = _parse(line)
    # A run that restored nothing makes all steps again.
    if values is not None and step and values['step'] <= step:
      kept.append(line + '\n')
  new = ''.join(kept).encode()
  if new == old:
    return
  partial = path.with_name(f'{path.name}.partial')
  partial.write_bytes(new)
  os.replace(partial, path)


def _parse(line: str) -> dict[str, Any] | None:
  """Returns the object of a line, or None if it is not one of ours."""
  try:
    values = json.loads(line)
  except ValueError:
    return None
  if not isinstance(values, dict) or not isinstance(values.get('step'), int):
    return None
  # Booleans are ints to Python, but no such line is ever written.
  numbers = all(
    v is None or isinstance(v, int | float) for v in values.values()
  )
  return values if numbers else None
