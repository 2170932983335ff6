"""Settings of runs compared: of one continued, and of several processes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax import errors

# Fields that change how a run is watched or where it finds things, not what
# comes out: they may differ when a run is continued.
_FREE_FIELDS = frozenset(
  {
    # Only rounding depends on it, and 'auto' goes by the device as it is.
    'attention',
    'checkpoint_every',
    'keep_checkpoints',
    'max_skipped',  # Whoever has found the cause of the skipped goes on.
    'mesh.data',  # Of these three only the order of sums depends.
    'mesh.fsdp',
    'mesh.tensor',
    'num_threads',
    'num_workers',
    'offline',
    'pretrained_dir',
    'profile',
    'progress_every',
    'remat',  # The same is computed, on a device with less memory.
    'tfds_data_dir',
    'tfds_manual_dir',
  }
)
# Fields that the config.json of a run lacks which is older than they are, and
# the values that say what such a run does. What a state holds depends on them.
_ADDED_FIELDS = {
  'on_nonfinite': 'stop',
  'pp.test_resize': 0,
  'scan_layers': False,
}
# What may differ between processes that train as one: by the machine.
_LOCAL_FIELDS = frozenset(
  {'num_threads', 'num_workers', 'offline', 'tfds_data_dir', 'tfds_manual_dir'}
)
# Of the data, which are no settings but decide on the batches as well.
_FINGERPRINT = 'data_fingerprint'


def may_differ(field: str) -> bool:
  """Tells whether a run may be continued with another value of a field."""
  return field in _FREE_FIELDS


def conflicts(each: Sequence[Mapping[str, Any]]) -> list[str]:
  """Returns what differs between processes that should train as one.

  Args:
    each: the settings of each process, as `Workdir.claim` takes them.

  Returns:
    A line for each field, without those that may differ between machines.
  """
  flat = [flatten(_plain(settings)) for settings in each]
  lines = []
  for key in sorted({key for settings in flat for key in settings}):
    values = [settings.get(key) for settings in flat]
    other = next((i for i, x in enumerate(values) if x != values[0]), None)
    if other is not None and key not in _LOCAL_FIELDS:
      lines.append(
        f'{key}: {values[0]!r} in process 0, {values[other]!r} in process '
        f'{other}'
      )
  return lines


def check_same(
  where: str, found: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """Raises ConfigError, beginning with `where`, for a run that is another."""
  old, new = (_ADDED_FIELDS | flatten(_plain(tree)) for tree in (found, wanted))
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
      f'{where} with another config:\n'
      + '\n'.join(lines)
      + '\nContinue it with the same settings, or name another directory: '
      '--workdir=DIR.'
    )
  key = f'{_FINGERPRINT}.train'
  before, now = old.get(key), new.get(key)
  # Runs of earlier versions have none, and nobody can tell.
  if before and now and before != now:
    raise errors.ConfigError(
      f'{where} on other images: config.dataset={new.get("dataset")!r} has '
      f'{_change(before, now)}, so the order of its batches would be another. '
      'Put the data back as they were, or name another directory: '
      '--workdir=DIR.'
    )


def _change(before: str, now: str) -> str:
  """Returns what two fingerprints, 'COUNT-DIGITS', tell of the examples."""
  then, count = (str(each).partition('-')[0] for each in (before, now))
  if then == count:
    return f'{count} training examples as then, but other names or labels'
  return f'{count} training examples now and had {then} then'


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
  return json.loads(json.dumps(config))  # Tuples become lists.


def flatten(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns nested settings by names such as 'pp.crop'.

  Args:
    tree: of mappings.
    prefix: of every name.
  """
  flat = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = value
  return flat
