"""Tells data sets that are paths from those that are names."""

import os

# Of the files that list images with their labels.
MANIFEST_SUFFIXES = (
  '.csv',
  '.json-lines',
  '.json_lines',
  '.jsonl',
  '.jsonlines',
  '.ndjson',
)
# Files that are taken for a data set now and then, and what to do with them.
_WRITE = 'Write a CSV with the header path,label and a line for each image'
_UNPACK = 'Unpack it and give the folder'
OTHER_FILES = {
  '.txt': f'{_WRITE}, and let its name end in .csv',
  '.tsv': 'Put commas for its tabs, and let its name end in .csv',
  '.json': 'Write an object a line, and let its name end in .jsonl',
  '.xlsx': 'Export it as CSV',
  '.parquet': f'{_WRITE}, or give the name of the tfds data set',
  '.zip': _UNPACK,
  '.tar': _UNPACK,
  '.gz': _UNPACK,
  '.tgz': _UNPACK,
}


def is_path(dataset: str) -> bool:
  """Tells whether `config.dataset` is a folder or a manifest, not a name.

  Paths are what begins with '/', './', '../' or '~', what ends as a manifest
  does, what has a slash and is there, and a file that is there and ends as one
  of `OTHER_FILES`. So 'digits/0_to_4' is a name, unless there is such a file or
  folder here.
  """
  start = dataset.replace(os.sep, '/').partition('/')[0]
  return (
    os.path.isabs(dataset)
    or start in ('.', '..')
    or start.startswith('~')
    or is_manifest(dataset)
    or ('/' in dataset and os.path.exists(dataset))
    or (other_file(dataset) != '' and os.path.isfile(dataset))
  )


def is_manifest(path: str) -> bool:
  """Tells whether a path ends as a list of images does, in any letter case."""
  return path.lower().endswith(MANIFEST_SUFFIXES)


def other_file(path: str) -> str:
  """Returns which of `OTHER_FILES` a path ends as, in any case, or ''."""
  return next(filter(path.lower().endswith, OTHER_FILES), '')
