"""Data sets, from files on disk to host batches; modules load on use."""

import importlib

_MODULES = (
  'augment',
  'balance',
  'builders',
  'cifar',
  'decode',
  'digits',
  'files',
  'folder',
  'images',
  'manifest',
  'parquet',
  'paths',
  'pipeline',
  'scan',
  'sources',
  'splits',
  'tfrecord',
  'tfrecord_index',
)

__all__ = list(_MODULES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
  if name in _MODULES:
    return importlib.import_module(f'vit_jax.data.{name}')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
  return sorted(__all__)
