"""What Orbax leaves behind of a read or a write that failed is not printed.

It reads arrays side by side. When one can't be read, the others are dropped
half way, and whenever they are collected, Python and asyncio print a traceback
for each, around the one error that says what is wrong.
"""

import functools
import logging
import os
import sys
import traceback
from typing import Any

_PLACE = f'{os.sep}orbax{os.sep}'  # In the paths of its files.
_SETTINGS = '[tensorstore_spec='  # In what TensorStore says of an error.


@functools.cache
def drop() -> None:
  """Drops it from now on, in the whole process.

  What others leave is told as before, but for answers to a closed event loop
  and TensorStore's errors, which don't say whose they are.
  """
  logging.getLogger('asyncio').addFilter(lambda record: not _is_logged(record))
  sys.unraisablehook = functools.partial(_report, sys.unraisablehook)


def _report(report: Any, unraisable: Any) -> None:
  code = getattr(unraisable.object, 'cr_code', None)
  is_orbaxs = code is not None and _PLACE in code.co_filename
  # Answered by a thread of TensorStore's, to a loop that Orbax has closed.
  is_late = str(unraisable.exc_value) == 'Event loop is closed'
  if not (is_orbaxs or is_late):
    report(unraisable)


def _is_logged(record: logging.LogRecord) -> bool:
  """Whether asyncio tells of a task of Orbax's, or of TensorStore's for it.

  Those have no line of Orbax in what they say, but the settings of the array.
  """
  text = record.getMessage()
  if record.exc_info and record.exc_info[1]:
    text += ''.join(traceback.format_exception(record.exc_info[1]))
  return _PLACE in text or _SETTINGS in text
