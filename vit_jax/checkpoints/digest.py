"""The sums by which a file's content is known."""

import hashlib
import os
import threading

# Small enough for the processor's cache, and large enough that a thread which
# imports meanwhile isn't waited for too often.
_CHUNK_BYTES = 4 << 20


def file_digest(
  path: str | os.PathLike,
  name: str = 'sha256',
  stop: threading.Event | None = None,
) -> str:
  """Returns a sum of a file's content, in hexadecimal digits.

  Args:
    path: of the file.
    name: 'sha256' or 'md5'.
    stop: once it is set, the result is of no use and comes at once.
  """
  digest = hashlib.new(name, usedforsecurity=False)
  # Not by a memory map: a file that shrinks would end the process.
  buffer = bytearray(min(_CHUNK_BYTES, max(1, os.path.getsize(path))))
  with open(path, 'rb', buffering=0) as file, memoryview(buffer) as view:
    while not (stop and stop.is_set()) and (size := file.readinto(buffer)):
      digest.update(view[:size])
  return digest.hexdigest()
