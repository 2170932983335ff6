"""Puts batches on the devices ahead of their use."""

import collections
import itertools
from collections.abc import Callable, Iterator
from typing import Any


def prefetch(
  batches: Iterator[Any], put: Callable[[Any], Any], size: int = 2
) -> Iterator[Any]:
  """Yields `put(batch)` of each batch, `size` of them put ahead of their use.

  The host goes on while devices copy and compute, so a batch that is asked for
  is there already, unless reading is slower than computing.

  Args:
    batches: of the host.
    put: starts a copy to the devices and doesn't wait for it.
    size: how many batches the devices hold beside the one in use.

  Raises:
    Exception: what `batches` raises, after what was put before it.
  """
  ahead = collections.deque()
  source = map(put, batches)
  failure: Exception | None = None
  while True:
    try:
      ahead.extend(itertools.islice(source, size + 1 - len(ahead)))
    except Exception as error:
      failure, source = error, iter(())
    if not ahead:
      break
    yield ahead.popleft()
  if failure is not None:
    raise failure
