"""The directory for what is downloaded, compiled or indexed once."""

import os
import pathlib


def directory() -> pathlib.Path:
  """Returns `VIT_JAX_CACHE` or else `~/.cache/vit_jax`; it may not exist."""
  default = '~/.cache/vit_jax'
  return pathlib.Path(os.environ.get('VIT_JAX_CACHE') or default).expanduser()
