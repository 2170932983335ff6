"""A run's directory: what is in it, and that it belongs to the same config."""

import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vit_jax import errors, run_settings, whole_files


class Workdir:
  """Paths of the files that a run leaves.

  Attributes:
    path: the directory.
    checkpoints: training states, in `checkpoints/STEP/`.
    config: all settings of the run.
    labels: the class names in the order of the logits.
    metrics: one JSON object a line.
    curves: the metrics drawn.
    model: the parameters in Google's layout.
    profile: traces of steps, if `config.profile` asks for any.
  """

  def __init__(self, path: str | os.PathLike):
    self.path = pathlib.Path(path).expanduser()
    self.checkpoints = self.path / 'checkpoints'
    self.config = self.path / 'config.json'
    self.labels = self.path / 'labels.json'
    self.metrics = self.path / 'metrics.jsonl'
    self.curves = self.path / 'curves.png'
    self.model = self.path / 'model.npz'
    self.profile = self.path / 'profile'

  def claim(self, config: Mapping[str, Any], *, is_writer: bool = True) -> None:
    """Makes the directory this config's, or finds that it is already.

    Args:
      config: nested settings, plain Python values.
      is_writer: whether this process may write; of several, one.

    Raises:
      ConfigError: the directory can't be made, or holds a run with other
        settings, the text lists the fields that differ, or with none; or it
        is of other examples: `data_fingerprint`, if both settings have it, is
        {'train': `Source.fingerprint`}.
    """
    settings = json.loads(json.dumps(config))  # Tuples become lists.
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      found = self._results()
      if found:
        run_settings.check_same(
          f'{self.path} holds a run', self._read_config(found), settings
        )
      if is_writer:
        whole_files.write_text(
          self.config, json.dumps(settings, indent=2) + '\n'
        )
        _try_writing(self.checkpoints)
    except OSError as error:
      raise errors.ConfigError(
        f'The run can not be kept in {self.path}: {error}. '
        'Name another directory: --workdir=DIR.'
      ) from error

  def check_saved(
    self, step: int, saved: Mapping[str, Any] | None, config: Mapping[str, Any]
  ) -> None:
    """Finds out whether a checkpoint was saved with these settings.

    `config.json` alone would not tell: it may have been edited, or checkpoints
    of another run may have come into the directory.

    Args:
      step: of the checkpoint.
      saved: settings noted in it; None, of earlier versions, fits any.
      config: nested settings, plain Python values.

    Raises:
      ConfigError: it wasn't; the text lists the fields that differ.
    """
    if saved is not None:
      where = f'{self.checkpoints / str(step)} is of a run'
      run_settings.check_same(where, saved, config)

  def save_labels(self, class_names: Iterable[str]) -> None:
    """Writes the class names in the order of the logits."""
    names = json.dumps(list(class_names), indent=2, ensure_ascii=False)
    with self.writing(self.labels):
      whole_files.write_text(self.labels, names + '\n')

  @contextlib.contextmanager
  def writing(self, path: pathlib.Path) -> Iterator[None]:
    """Raises ConfigError where writing that file of the run fails."""
    try:
      yield
    except OSError as error:
      raise errors.ConfigError(
        f'{path}: the file can not be written ({error.strerror or error}). '
        'Once it can, the same command continues from the last checkpoint, if '
        'there is one; --workdir=DIR names another directory.'
      ) from error

  def _results(self) -> str:
    """Returns what there is to lose, '' for nothing: a start alone is not."""
    # Others are the leftovers of a save that was cut short.
    if any(p.name.isdigit() for p in self.checkpoints.glob('*')):
      return 'checkpoints'
    return self.model.name if self.model.exists() else ''

  def _read_config(self, results: str) -> Mapping[str, Any]:
    try:
      found = json.loads(self.config.read_text(encoding='utf-8'))
    except FileNotFoundError:
      raise errors.ConfigError(
        f'{self.path} holds {results}, but {self.config.name} is missing, so '
        'whether this config fits is unknown. Put that file back, or name '
        'another directory: --workdir=DIR.'
      ) from None
    except ValueError as error:  # Neither UTF-8 nor JSON.
      found = str(error)
    if not isinstance(found, Mapping):
      raise errors.ConfigError(
        f'{self.config} is damaged ({found}), so whether this config fits the '
        f'{results} beside it is unknown. Put a whole one back, or name '
        'another directory: --workdir=DIR.'
      )
    return found


def of_weights(path: str | os.PathLike) -> Workdir:
  """Returns the run that a file or directory belongs to, if it is one.

  Args:
    path: a run's directory, or its `model.npz`.
  """
  path = pathlib.Path(path)
  return Workdir(path if path.is_dir() else path.parent)


def read_labels(path: str | os.PathLike) -> list[str] | None:
  """Returns the class names of the run that a file or directory belongs to.

  Args:
    path: a run's directory, or its `model.npz`.

  Returns:
    They are in the order of the logits; None where there are none to be read.
  """
  labels = of_weights(path).labels
  try:
    found = json.loads(labels.read_text(encoding='utf-8'))
  except (OSError, ValueError):  # Names are an addition: nothing fails.
    return None
  valid = isinstance(found, list) and all(isinstance(x, str) for x in found)
  return found if valid else None


def _try_writing(directory: pathlib.Path) -> None:
  """Raises OSError where the first save, much later, would."""
  if directory.exists():
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
      file.write(b'x')
