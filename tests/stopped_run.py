"""A program for tests: the command line, stopped after a step.

It takes the number of the step and the arguments of `vit_jax.main`.
"""

import sys

from vit_jax import main, step_window


class StoppedError(Exception):
  """Stands for whatever ends a process."""


def stop_after(num_steps):
  next_batch = step_window.StepWindow.next_batch
  left = iter(range(num_steps))

  def next_or_stop(self, batches):
    if next(left, None) is None:
      raise StoppedError
    return next_batch(self, batches)

  step_window.StepWindow.next_batch = next_or_stop


if __name__ == '__main__':
  stop_after(int(sys.argv.pop(1)))
  main.run()
