"""A run's directory: what is in it, and that it belongs to the same config."""

import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from vit_jax import errors

# Fields that change how a run is watched or where it finds things, not what
# comes out: they may differ when a run is continued.
_FREE_FIELDS = frozenset(
  {
    'checkpoint_every',
    'keep_checkpoints',
    'num_threads',
    'num_workers',
    'offline',
    'pretrained_dir',
    'progress_every',
    'tfds_data_dir',
    'tfds_manual_dir',
  }
)
# Of the data, which are no settings but decide on the batches as well.
_FINGERPRINT = 'data_fingerprint'


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
  """

  def __init__(self, path: str | os.PathLike):
    self.path = pathlib.Path(path).expanduser()
    self.checkpoints = self.path / 'checkpoints'
    self.config = self.path / 'config.json'
    self.labels = self.path / 'labels.json'
    self.metrics = self.path / 'metrics.jsonl'
    self.curves = self.path / 'curves.png'
    self.model = self.path / 'model.npz'

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
        self._check_same(self._read_config(found), settings)
      if is_writer:
        write_text(self.config, json.dumps(settings, indent=2) + '\n')
    except OSError as error:
      raise errors.ConfigError(
        f'The run can not be kept in {self.path}: {error}. '
        'Name another directory: --workdir=DIR.'
      ) from error

  def save_labels(self, class_names: Iterable[str]) -> None:
    """Writes the class names in the order of the logits."""
    names = json.dumps(list(class_names), indent=2, ensure_ascii=False)
    write_text(self.labels, names + '\n')

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

  def _check_same(self, found: Mapping[str, Any], wanted: Mapping[str, Any]):
    old, new = _flatten(found), _flatten(wanted)
    differing = sorted(
      key
      for key in {*old, *new}
      if old.get(key) != new.get(key)
      and key not in _FREE_FIELDS
      and not key.startswith(f'{_FINGERPRINT}.')
    )
    if differing:
      lines = [
        f'  config.{key}: {old.get(key)!r} there, {new.get(key)!r} now'
        for key in differing
      ]
      raise errors.ConfigError(
        f'{self.path} holds a run with another config:\n'
        + '\n'.join(lines)
        + '\nContinue it with the same settings, or name another directory: '
        '--workdir=DIR.'
      )
    key = f'{_FINGERPRINT}.train'
    before, now = old.get(key), new.get(key)
    # Runs of earlier versions have none, and nobody can tell.
    if before and now and before != now:
      raise errors.ConfigError(
        f'{self.path} holds a run on other images: config.dataset='
        f'{new.get("dataset")!r} has {_change(before, now)}, so the order of '
        'its batches would be another. Put the data back as they were, or name '
        'another directory: --workdir=DIR.'
      )


def read_labels(path: str | os.PathLike) -> list[str] | None:
  """Returns the class names of the run that a file or directory belongs to.

  Args:
    path: a run's directory, or its `model.npz`.

  Returns:
    They are in the order of the logits; None where there are none to be read.
  """
  path = pathlib.Path(path)
  labels = Workdir(path if path.is_dir() else path.parent).labels
  try:
    found = json.loads(labels.read_text(encoding='utf-8'))
  except (OSError, ValueError):  # Names are an addition: nothing fails.
    return None
  valid = isinstance(found, list) and all(isinstance(x, str) for x in found)
  return found if valid else None


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file that is there whole or not at all."""
  partial = path.with_name(path.name + '.partial')
  partial.write_text(text, encoding='utf-8')
  os.replace(partial, path)


def _change(before: str, now: str) -> str:
  """Returns what two fingerprints, 'COUNT-DIGITS', tell of the examples."""
  then, count = (str(each).partition('-')[0] for each in (before, now))
  if then == count:
    return f'{count} training examples as then, but other names or labels'
  return f'{count} training examples now and had {then} then'


def _flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      flat |= _flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = value
  return flat
