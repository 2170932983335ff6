"""Holds back what C libraries print about damaged images, to tell it better."""

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator

# What libjpeg, libpng and libtiff print begins so.
_FROM_LIBRARIES = re.compile(
  rb'Corrupt JPEG|Premature end of JPEG|Invalid SOS|Inconsistent progression|'
  rb'Warning: unknown JFIF|JPEGLib|libpng |_?TIFF\w*: |\w+Decode\w*: |'
  rb'tempfile\.tif: |MissingRequired: |Unknown Adobe'
)
_LOCK = threading.RLock()  # Blocks may be nested.


def is_complaint(line: bytes) -> bool:
  """Tells whether a line is one that a library prints about an image."""
  return _FROM_LIBRARIES.match(line) is not None


@contextlib.contextmanager
def overheard() -> Iterator[list[str]]:
  """Gives the lines that C libraries print in the block, and keeps them quiet.

  They write to the process's standard error, past Python, which is why this is
  for one image now and then, not for the threads of a pipeline. What anything
  else writes there meanwhile appears after the block.

  Yields:
    A list that is filled when the block is left.
  """
  lines: list[str] = []
  with _LOCK, contextlib.ExitStack() as stack:
    try:
      shown = os.dup(2)
    except OSError:  # Closed, as of a daemon: nothing appears anyway.
      yield lines
      return
    stack.callback(os.close, shown)
    held = stack.enter_context(tempfile.TemporaryFile())
    os.dup2(held.fileno(), 2)
    try:
      yield lines
    finally:
      os.dup2(shown, 2)
      held.seek(0)
      for line in held:
        if is_complaint(line):
          lines.append(line.decode(errors='replace').strip())
        elif line.strip():
          os.write(2, line)
