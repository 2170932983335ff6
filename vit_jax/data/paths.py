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


def is_path(dataset: str) -> bool:
  """Tells whether `config.dataset` is a folder or a manifest, not a name.

  Paths are what begins with '/', './', '../' or '~', what ends as a manifest
  does, and what has a slash and is there. So 'digits/0_to_4' is a name, unless
  there is such a file or folder here.
  """
  start = dataset.replace(os.sep, '/').partition('/')[0]
  return (
    os.path.isabs(dataset)
    or start in ('.', '..')
    or start.startswith('~')
    or is_manifest(dataset)
    or ('/' in dataset and os.path.exists(dataset))
  )


def is_manifest(path: str) -> bool:
  """Tells whether a path ends as a list of images does, in any letter case."""
  return path.lower().endswith(MANIFEST_SUFFIXES)
