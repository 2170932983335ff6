"""Trials at once: which devices each job sees, and that all of them end."""

import os
import threading
from collections.abc import Callable, Sequence

from vit_jax import errors

# What XLA takes of a GPU for one process.
_MEMORY_SHARE = 0.75


def check_devices(jobs: int, devices: Sequence[str]) -> None:
  """Finds devices that can't be shared out.

  Raises:
    ConfigError: a job would have none, or one is named twice.
  """
  if devices and (len({*devices}) < len(devices) or not all(devices)):
    raise errors.ConfigError(
      f'--devices {",".join(devices)}: expected different devices with commas '
      'between, such as 0,1.'
    )
  # A job without one would train on the CPU, and say nothing.
  if devices and len(devices) < jobs:
    raise errors.ConfigError(
      f'--devices {",".join(devices)} are too few for --jobs {jobs}, as each '
      f'has its own. Name {jobs}, or lower --jobs to {len(devices)}; without '
      '--devices the jobs share all that there are.'
    )


def environments(jobs: int, devices: Sequence[str]) -> list[dict[str, str]]:
  """Returns variables of each job: the devices that it sees, or a share."""
  if devices:
    return [
      {'CUDA_VISIBLE_DEVICES': ','.join(devices[i::jobs])} for i in range(jobs)
    ]
  name = 'XLA_PYTHON_CLIENT_MEM_FRACTION'
  if jobs == 1 or name in os.environ:
    return [{} for _ in range(jobs)]
  # Or the first job would take a GPU's memory from the others.
  return [{name: f'{_MEMORY_SHARE / jobs:.3f}'} for _ in range(jobs)]


def shares_text(jobs: int, devices: Sequence[str]) -> str:
  """Returns which devices each job has, '' for a job that has them all."""
  if jobs == 1 and not devices:
    return ''
  shares = [
    env.get('CUDA_VISIBLE_DEVICES', '') for env in environments(jobs, devices)
  ]
  return '; '.join(
    f'job {i} has {f"CUDA {share}" if share else "all there are"}'
    for i, share in enumerate(shares)
  )


def in_threads(calls: Sequence[Callable[[], None]]) -> None:
  """Makes all calls at once, and raises what the first that failed raised."""
  if len(calls) == 1:
    calls[0]()
    return
  raised: list[BaseException] = []

  def catching(call: Callable[[], None]) -> None:
    try:
      call()
    except BaseException as error:
      raised.append(error)

  threads = [threading.Thread(target=catching, args=(c,)) for c in calls]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  if raised:
    raise raised[0]
