"""What environment variables say: where the cache is, and whether to go out."""

import os
import pathlib

_OFFLINE = ('VIT_JAX_OFFLINE', 'HF_HUB_OFFLINE')


def cache_dir() -> pathlib.Path:
  """Returns the directory for what is downloaded, compiled or indexed once.

  It is `VIT_JAX_CACHE` or else `~/.cache/vit_jax`; it may not exist.
  """
  default = '~/.cache/vit_jax'
  return pathlib.Path(os.environ.get('VIT_JAX_CACHE') or default).expanduser()


def is_offline(offline: bool | None = None) -> bool:
  """Whether nothing may be contacted; an argument goes before the variables."""
  if offline is not None:
    return offline
  texts = [os.environ.get(name, '').lower() for name in _OFFLINE]
  return any(text in ('1', 'true', 'yes', 'on') for text in texts)
