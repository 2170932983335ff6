"""Why Orbax and TensorStore fail, from what they raise."""

import re

import jax


def reason_of(error: BaseException) -> str:
  """Returns the first line of the error that is at the bottom of others.

  TensorStore appends kilobytes of settings to it, which are left out.
  """
  while error.__cause__ is not None:
    error = error.__cause__
  line = [*str(error).splitlines(), type(error).__name__][0]
  return line.partition(' [tensorstore_spec')[0]


def is_damage(error: Exception) -> bool:
  """Whether what a reader raised can come of nothing but the files."""
  if isinstance(error, MemoryError | jax.errors.JaxRuntimeError):
    return False
  # TensorStore has a code for everything, and ValueErrors alone.
  if re.search(
    r'RESOURCE_EXHAUSTED|PERMISSION_DENIED|UNAVAILABLE|DEADLINE_EXCEEDED'
    # ENOENT, ENOTDIR, EISDIR and EINVAL are what a damaged directory gives.
    r"|CANCELLED|ABORTED|os_error_code='(?!(?:2|20|21|22)')",
    str(error),
  ):
    return False
  return (
    not isinstance(error, OSError)
    or isinstance(
      error,
      FileNotFoundError | NotADirectoryError | IsADirectoryError | EOFError,
    )
    or error.errno is None
  )
