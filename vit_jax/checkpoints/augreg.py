"""Names of the AugReg weight files (arXiv 2106.10270) and their index."""

import csv
import pathlib

from vit_jax import errors
from vit_jax.checkpoints import locate


def file_name(model_or_file: str, directory: str) -> str:
  """Returns the name, without '.npz', of the file to fine-tune from.

  Args:
    model_or_file: a file's name, such as 'R_Ti_16-i21k-300ep-lr_0.001-...', or
      the model's alone, such as 'R_Ti_16', which stands for the file of that
      model that was pretrained on ImageNet-21k and has the best accuracy on
      its validation set (`final_val` in `index.csv`).
    directory: where `index.csv` is looked for, and then in the cache.

  Raises:
    CheckpointNotFoundError: there is no `index.csv`.
    CheckpointError: it has no file of that model.
  """
  if '-' in model_or_file:
    return model_or_file.removesuffix('.npz')
  path = locate.locate_file('index.csv', directory)
  with open(path, newline='') as file:
    rows = [
      row
      for row in csv.DictReader(file)
      # 'B_16-i21k-300ep-...': a model, what it was trained on, and how.
      if row['filename'].split('-')[:2] == [model_or_file, 'i21k']
    ]
  if not rows:
    raise errors.CheckpointError(
      f'{path}: no file of a model {model_or_file!r} that was pretrained on '
      'i21k. Name a file: --config configs/augreg.py:FILE_NAME.'
    )
  best = max(rows, key=lambda row: float(row['final_val']))
  return pathlib.PurePath(best['filename']).name
