"""Names of the AugReg weight files (arXiv 2106.10270) and their index."""

import csv
import pathlib
from typing import Any

from vit_jax import errors
from vit_jax.checkpoints import locate

_COLUMNS = {'ds', 'filename', 'final_val'}


def weights_name(config: Any) -> str:
  """Returns the name of the weights that a config starts from.

  Args:
    config: with `model.model_name`, and `model_or_filename` and
      `pretrained_dir`, for which see `file_name`.
  """
  if config.model_or_filename:
    return file_name(config.model_or_filename, config.pretrained_dir)
  return config.model.model_name


def file_name(model_or_file: str, directory: str) -> str:
  """Returns the name, without '.npz', of the file to fine-tune from.

  Args:
    model_or_file: a file's name, such as 'R_Ti_16-i21k-300ep-lr_0.001-...', or
      the model's alone, such as 'R_Ti_16', which stands for the file of that
      model that was pretrained on ImageNet-21k for 300 epochs and has the best
      accuracy on its validation set (`final_val` in `index.csv`).
    directory: where `index.csv` is looked for, and then in the cache. Where it
      is an `.npz` file or a run directory, that is what will be found,
      whatever its name, and no index is needed.

  Raises:
    CheckpointNotFoundError: there is no `index.csv`.
    CheckpointError: it is damaged or has no file of that model.
  """
  place = pathlib.Path(directory).expanduser()
  is_weights = place.suffix == '.npz' or (place / 'model.npz').is_file()
  if '-' in model_or_file or is_weights:
    return model_or_file.removesuffix('.npz')
  path = locate.locate_file('index.csv', directory)
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


def _read_index(path: str) -> list[dict[str, Any]]:
  """Returns the rows with `final_val` as a number."""
  with open(path, newline='', encoding='utf-8', errors='replace') as file:
    rows: list[dict[str, Any]] = list(csv.DictReader(file))
  try:
    for row in rows:
      row['final_val'] = float(row['final_val'])
    is_whole = bool(rows) and _COLUMNS.issubset(rows[0])
  except (KeyError, TypeError, ValueError):
    is_whole = False
  if not is_whole:
    raise errors.CheckpointError(
      f'{path}: not the index of the AugReg files; expected comma-separated '
      f'values with the columns {", ".join(sorted(_COLUMNS))}. Fetch it again.'
    )
  return rows
