"""Which values each trial has, and what came of it: an Optuna study in SQLite.

What trial n gets depends on the settings and on the trials before it alone, not
on whether the sweep was broken off in between.
"""

from __future__ import annotations

import contextlib
import pathlib
import random
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vit_jax import errors
from vit_jax.sweep import space
from vit_jax.sweep.settings import Settings
from vit_jax.sweep.trial import Trial, as_trial, run_name

if TYPE_CHECKING:
  import optuna

FILE_NAME = 'study.db'
_NAME = 'sweep'
# As many trials of TPE are random before it has something to go by.
_RANDOM_TRIALS = 5


class Study:
  """The trials of a sweep, kept in a file; threads may call its methods.

  Args:
    settings: of the sweep.
    out: its directory.

  Raises:
    ConfigError: Optuna is missing, or the file is none of its studies.
  """

  def __init__(self, settings: Settings, out: pathlib.Path):
    self._optuna = _import()
    self._settings = settings
    self._lock = threading.RLock()
    with _telling(out / FILE_NAME):
      self._open(out / FILE_NAME)
    self._combinations = (
      space.combinations(settings.parameters)
      if settings.sampler == 'grid'
      else []
    )
    # Of a sweep that was broken off.
    self._broken = [
      trial for trial in self._study.trials if trial.state.name == 'RUNNING'
    ]

  def _open(self, file: pathlib.Path) -> None:
    path = str(file).replace('%', '%25').replace('?', '%3F')
    self._storage = self._optuna.storages.RDBStorage(f'sqlite:///{path}')
    self._study = self._optuna.create_study(
      study_name=_NAME,
      storage=self._storage,
      load_if_exists=True,
      direction='minimize' if self._settings.is_loss else 'maximize',
      pruner=self._optuna.pruners.MedianPruner(
        n_startup_trials=self._settings.prune_after
      ),
    )

  def close(self) -> None:
    """Lets go of the file."""
    self._storage.remove_session()
    self._storage.engine.dispose()

  @property
  def num_broken(self) -> int:
    """How many trials of an earlier call are yet to be continued."""
    return len(self._broken)

  def trials(self) -> list[Trial]:
    """Returns all trials as they stand, but those that were tried again."""
    with self._lock:
      found = [as_trial(trial) for trial in self._study.trials]
    again = {trial.notes.get('retry_of') for trial in found}
    return [trial for trial in found if trial.number not in again]

  def retry_failed(self) -> None:
    """Has the trials that failed run again, in their own directories."""
    for trial in self.trials():
      if trial.state == 'failed':
        notes = {'retry_of': trial.number, 'run': trial.notes['run']}
        self._study.enqueue_trial(dict(trial.params), user_attrs=notes)

  def next(self) -> optuna.trial.Trial | None:
    """Returns a trial to run, those broken off first; None at the end."""
    with self._lock:
      trials = self._study.trials
      if self._broken:
        trial = self._optuna.trial.Trial(
          self._study, self._broken.pop(0)._trial_id
        )
      else:
        number = sum('retry_of' not in t.user_attrs for t in trials)
        if all(trial.state.name != 'WAITING' for trial in trials):
          if number >= self._settings.num_trials:
            return None
          if self._combinations:
            self._study.enqueue_trial(dict(self._combinations[number]))
        self._study.sampler = self._sampler(len(trials))
        trial = self._study.ask()
      # The values that it has already, if any, stay.
      for parameter in self._settings.parameters:
        _suggest(trial, parameter)
      if 'run' not in trial.user_attrs:
        trial.set_user_attr('run', run_name(trial.number, trial.params))
      return trial

  def same(self, trial: optuna.trial.Trial) -> Trial | None:
    """Returns an earlier finished trial with the same values."""
    for other in self.trials():
      if other.state == 'finished' and other.params == trial.params:
        return other
    return None

  def should_prune(
    self, trial: optuna.trial.Trial, values: Mapping[int, float]
  ) -> bool:
    """Notes intermediate values, and asks whether they are worse than others'.

    Args:
      trial: that runs.
      values: by step, all so far.
    """
    if self._settings.pruner == 'none':
      return False
    with self._lock:
      known = self._study.trials[trial.number].intermediate_values
      # It may have been broken off between the decision and its note.
      if known and trial.should_prune():
        return True
      for step in sorted({*values} - {*known}):
        trial.report(values[step], step)
        if trial.should_prune():
          return True
    return False

  def note(self, trial: optuna.trial.Trial, name: str, value: Any) -> None:
    """Keeps something about a trial."""
    with self._lock:
      trial.set_user_attr(name, value)

  def finish(self, trial: optuna.trial.Trial, value: float) -> None:
    """Notes that a trial came to its end."""
    with self._lock:
      self._study.tell(trial, value)

  def prune(self, trial: optuna.trial.Trial) -> None:
    """Notes that a trial was ended early."""
    self._tell(trial, 'PRUNED')

  def fail(self, trial: optuna.trial.Trial, error: str) -> None:
    """Notes why a trial failed."""
    self.note(trial, 'error', error)
    self._tell(trial, 'FAIL')

  def _tell(self, trial: optuna.trial.Trial, state: str) -> None:
    with self._lock:
      self._study.tell(trial, state=self._optuna.trial.TrialState[state])

  def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
    """Returns a sampler whose choices are those of trial `number` only."""
    text = f'{self._settings.sampler_seed}/{number}'
    seed = random.Random(text).getrandbits(31)
    if self._settings.sampler != 'tpe':
      return self._optuna.samplers.RandomSampler(seed)
    return self._optuna.samplers.TPESampler(
      seed=seed, n_startup_trials=_RANDOM_TRIALS
    )


def _import() -> Any:
  try:
    import optuna
  except ImportError as error:
    raise errors.ConfigError(
      f'Sweeps need Optuna, which can not be imported ({error}). Install it: '
      "pip install 'optuna>=5,<6'"
    ) from error
  optuna.logging.set_verbosity(optuna.logging.WARNING)
  return optuna


@contextlib.contextmanager
def _telling(file: pathlib.Path) -> Iterator[None]:
  from optuna import exceptions

  try:
    # Its own error, before Optuna wraps it in one of a package of its choice.
    with contextlib.closing(sqlite3.connect(file)) as database:
      database.execute('PRAGMA schema_version')
    yield
  # The last is what Optuna says of a file that another version has made.
  except (
    sqlite3.Error,
    exceptions.OptunaError,
    RuntimeError,
  ) as error:
    raise errors.ConfigError(
      f'{file} can not be opened as an Optuna study '
      f'({errors.first_line(error)}). Put a whole one back, or begin anew in '
      'another directory: --out DIR.'
    ) from error


def _suggest(trial: optuna.trial.Trial, parameter: space.Parameter) -> None:
  name, is_log = parameter.name, parameter.is_log
  if parameter.values:
    trial.suggest_categorical(name, parameter.values)
  elif parameter.is_int:
    trial.suggest_int(name, int(parameter.low), int(parameter.high), log=is_log)
  else:
    trial.suggest_float(name, parameter.low, parameter.high, log=is_log)
