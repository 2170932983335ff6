"""Names of the AugReg weight files (arXiv 2106.10270) and their index."""

import csv
import math
from typing import Any

from absl import logging

from vit_jax import errors
from vit_jax.checkpoints import locate, places
from vit_jax.checkpoints.places import addresses, published

_COLUMNS = {'ds', 'filename', 'final_val'}


def weights_name(config: Any) -> str:
  """Returns the name of the weights that a config starts from.

  Args:
    config: with `model.model_name`, and `model_or_filename`, `pretrained_dir`
      and perhaps `offline`, for which see `file_name`.
  """
  if config.model_or_filename:
    return file_name(
      config.model_or_filename,
      config.pretrained_dir,
      offline=config.get('offline') or None,
    )
  return config.model.model_name


def file_name(
  model_or_file: str, directory: str, *, offline: bool | None = None
) -> str:
  """Returns the name, without '.npz', of the file to fine-tune from.

  Args:
    model_or_file: a file's name, such as 'R_Ti_16-i21k-300ep-lr_0.001-...', or
      the model's alone, such as 'R_Ti_16', which stands for the file of that
      model that was pretrained on ImageNet-21k for 300 epochs and has the best
      accuracy on its validation set (`final_val` in `index.csv`; where it has
      no number, the file is passed over).
    directory: where `index.csv` is looked for, and then in the cache and the
      bucket. Where it is a weight file, a run directory, the name of published
      weights or on Hugging Face, that is what will be found, whatever its name,
      and no index is needed.
      Where there is no index, the table in `published` names the file.
    offline: as in `locate.locate`.

  Raises:
    CheckpointNotFoundError: there is no `index.csv`, and the table has no file
      of that model.
    CheckpointError: the index is damaged or has no file of that model.
  """
  place, _ = addresses.split_hash(directory)
  if '-' in model_or_file or not places.has_index(place):
    return published.without_suffix(model_or_file)
  try:
    path = locate.locate_file('index.csv', directory, offline=offline)
  except errors.CheckpointNotFoundError as error:
    return _from_table(model_or_file, directory, error)
  rows = [
    row
    for row in _read_index(path)
    # 'i21k' is 300 epochs, 'i21k_30' is 30. A file is 'R_Ti_16-i21k-...'.
    if row['ds'] == 'i21k' and row['filename'].split('-')[0] == model_or_file
  ]
  if not rows:
    raise errors.CheckpointError(
      f'{path}: no file of a model {model_or_file!r} that was pretrained on '
      'i21k. Name a file: --config configs/augreg.py:FILE_NAME.'
    )
  return max(rows, key=lambda row: row['final_val'])['filename']


def _from_table(
  model: str, directory: str, error: errors.CheckpointNotFoundError
) -> str:
  """Returns the file of a model where there is no index to ask."""
  options = published.augreg_files(model)
  if not options:
    raise error
  here = [name for name in options if locate.find_local(name, directory)]
  # The last one is on Hugging Face too, the best one may be in the bucket only.
  chosen = here[0] if here else options[-1]
  looked_at = '\n'.join(
    line
    for line in str(error).splitlines()
    if line[:3] in ('  /', '  g', '  h')
  )
  logging.warning(
    'No index.csv of the AugReg files; %s stands for %s%s. Looked at:\n%s',
    model,
    chosen,
    '' if chosen == options[0] else f' (the best one is {options[0]})',
    looked_at,
  )
  return chosen


def _read_index(path: str) -> list[dict[str, Any]]:
  """Returns the rows that have a number as `final_val`, which it then is."""
  with open(path, newline='', encoding='utf-8', errors='replace') as file:
    rows: list[dict[str, Any]] = list(csv.DictReader(file))
  try:
    is_whole = bool(rows) and _COLUMNS.issubset(rows[0])
    for row in rows:  # A training that failed has none.
      row['final_val'] = float(row['final_val'].strip() or 'nan')
  except (AttributeError, KeyError, ValueError):
    is_whole = False
  if not is_whole:
    raise errors.CheckpointError(
      f'{path}: not the index of the AugReg files; expected comma-separated '
      f'values with the columns {", ".join(sorted(_COLUMNS))}. Fetch it again.'
    )
  return [row for row in rows if math.isfinite(row['final_val'])]
