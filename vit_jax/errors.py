"""The exceptions a user meets, and the wording that names the closest match.

Each text says what was found, where, what was expected and what to do. The
command line prints it without a traceback and exits with status 2.
"""

import difflib
from collections.abc import Iterable


class UserError(Exception):
  """A mistake or a missing thing that the user, not the code, can mend."""


class ConfigError(UserError, ValueError):
  """A field, name or combination of settings that can't work."""


class CheckpointError(UserError, ValueError):
  """A weight file that can't be read or doesn't fit the model."""


class CheckpointNotFoundError(UserError, FileNotFoundError):
  """A weight file that is in none of the places looked at."""


class DataError(UserError, ValueError):
  """A data set that is broken or lacks what was asked of it."""


class DataNotFoundError(UserError, FileNotFoundError):
  """A data set that is neither prepared nor can be prepared here."""


class NonFiniteError(UserError, ValueError):
  """A loss or gradient that became NaN or infinite."""


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> str:
  """Returns the text for a name that is not among `valid`.

  Args:
    kind: what is named, such as 'model'.
    name: what the user wrote.
    valid: all the names that would have worked.

  Returns:
    One sentence with the closest match, if any is close, and all valid names.
  """
  valid = sorted(set(valid))
  # Upper and lower case are mixed up more often than letters are.
  by_folded = {option.lower(): option for option in valid}
  close = difflib.get_close_matches(name.lower(), by_folded, n=1, cutoff=0.5)
  guess = f' Did you mean {by_folded[close[0]]!r}?' if close else ''
  return f'Unknown {kind} {name!r}.{guess} Valid: {", ".join(valid)}.'


def first_line(error: Exception) -> str:
  """Returns the first line of the text, or the kind where there is none."""
  return [*str(error).splitlines(), type(error).__name__][0]
