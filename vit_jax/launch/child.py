"""What the started process does: trains, and ends with the one that began it.

  python -m vit_jax.launch.child --config=... --workdir=...

It takes the flags of `python -m vit_jax.main`, and a pipe as standard input.
"""

import os
import runpy
import signal
import sys
import threading


def end_with_caller() -> None:
  """Has this process end, saved, once the one that began it is gone."""
  # The file alone: the object's lock may be needed when this process ends.
  threading.Thread(
    target=_end_with, args=(sys.stdin.fileno(),), daemon=True
  ).start()


def _end_with(descriptor: int) -> None:
  """Ends this process, saved, once nobody holds the other end of a pipe."""
  while os.read(descriptor, 1):
    pass
  os.kill(os.getpid(), signal.SIGTERM)


def _main() -> None:
  """Is the command, in a process that ends when the one that began it does."""
  end_with_caller()
  runpy.run_module('vit_jax.main', run_name='__main__', alter_sys=True)


if __name__ == '__main__':
  _main()
