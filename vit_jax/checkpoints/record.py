"""What is saved beside a training state to know it again, under a seal."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax import errors
from vit_jax.checkpoints.standing import Standing

ITEM = 'standing'  # Directory of the file in a checkpoint.
_FILE = 'metadata'  # As Orbax calls it.


class DamagedError(Exception):
  """What was read is not what was saved."""


@dataclasses.dataclass(frozen=True)
class Record:
  """What a checkpoint says of itself.

  Attributes:
    step: number of updates that the state has seen; None where, as in those of
      earlier versions of this package, it isn't said.
    standing: of the run.
    arrays: as `fingerprints` gives them; None as above.
    settings: of the run, plain values; None as above.
    packed: which arrays are in which, as `packing.pack` gives it; None as
      above, each array being by itself.
  """

  step: int | None
  standing: Standing
  arrays: Mapping[str, str] | None
  settings: Mapping[str, Any] | None = None
  packed: Mapping[str, Sequence[str]] | None = None

  def to_json(self) -> dict[str, Any]:
    """Returns it as plain values, sealed."""
    content = dataclasses.asdict(self)
    return {**content, 'seal': _seal(content)}


def read_record(checkpoint: pathlib.Path) -> Record:
  """Reads the record of a checkpoint, the directory of a step.

  Raises:
    DamagedError: it is damaged or missing.
    CheckpointError: it is whole, and of a later version of this package.
    OSError: it can't be read, for a reason that says nothing of it.
  """
  path = checkpoint / ITEM / _FILE
  try:
    found = json.loads(path.read_bytes())
    # Without a seal, as earlier versions wrote it.
    if 'seal' not in found:
      return Record(None, Standing(**found), None)
    seal = found.pop('seal')
    if seal == _seal(found):
      _check_known(checkpoint, found)
    record = Record(**found | {'standing': Standing(**found['standing'])})
  except errors.CheckpointError:  # A ValueError as well.
    raise
  except (FileNotFoundError, NotADirectoryError):
    raise DamagedError(f'{ITEM}/{_FILE} is missing') from None
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise DamagedError(f'{ITEM}/{_FILE} is damaged') from error
  # As it was read: earlier versions had fewer fields.
  if seal != _seal(found):
    raise DamagedError(f'{ITEM}/{_FILE} is not what was saved')
  return record


def _check_known(checkpoint: pathlib.Path, found: Mapping[str, Any]) -> None:
  """Raises CheckpointError for what only a later version can have written."""
  unknown = [
    *(found.keys() - {field.name for field in dataclasses.fields(Record)}),
    *(found['standing'].keys() - vars(Standing()).keys()),
  ]
  if unknown:
    raise errors.CheckpointError(
      f'{checkpoint}: a later version of this package saved it, as it says '
      f'{", ".join(sorted(unknown))}, which this one does not know. Continue '
      'with that version.'
    )


def _seal(content: Mapping[str, Any]) -> str:
  # NaN and infinity, which a metric may be, come back as they were.
  text = json.dumps(content, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()
