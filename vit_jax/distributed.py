"""Several processes that train as one: which of them this is, where they meet.

JAX's own runtime does the work. Here is decided whether there are several at
all, as a process that waits for others which nobody started would hang.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from vit_jax import errors, native_errors, run_settings

# What launchers tell a process: how many there are, which it is, and which on
# its machine. Open MPI first, as its processes may run in a step of SLURM's.
_LAUNCHERS = {
  'Open MPI': (
    'OMPI_COMM_WORLD_SIZE',
    'OMPI_COMM_WORLD_RANK',
    'OMPI_COMM_WORLD_LOCAL_RANK',
  ),
  # Of the step, not of the allocation: what is started in that without srun is
  # one process.
  'SLURM': ('SLURM_STEP_NUM_TASKS', 'SLURM_PROCID', 'SLURM_LOCALID'),
}
# By which JAX itself finds the coordinator of these.
_FINDS_COORDINATOR = {
  'Open MPI': 'OMPI_MCA_orte_hnp_uri',  # Gone in version 5.
  'SLURM': 'SLURM_STEP_NODELIST',
}
# In what XLA raises, on CPUs and on GPUs.
_LOST = ('Gloo', 'oordination service', 'remote process exited')


@dataclasses.dataclass(frozen=True)
class Cluster:
  """What this process knows of the processes that train as one.

  Attributes:
    coordinator_address: 'HOST:PORT' of process 0; None if JAX finds it.
    num_processes: at least 2; None if JAX finds it.
    process_id: of this one, from 0; None if JAX finds it.
    local_device_ids: the devices of this machine that are this process's; none
      are all that it sees. None leaves it to JAX.
  """

  coordinator_address: str | None = None
  num_processes: int | None = None
  process_id: int | None = None
  local_device_ids: tuple[int, ...] | None = None


def find_cluster(
  coordinator_address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  env: Mapping[str, str] = os.environ,
) -> Cluster | None:
  """Returns the cluster that this process is part of, None if it is alone.

  What is not given is taken from the variables JAX_COORDINATOR_ADDRESS,
  JAX_NUM_PROCESSES and JAX_PROCESS_ID, then from what Open MPI, SLURM, an
  indexed job of Kubernetes or a Cloud TPU say.

  Args:
    coordinator_address: 'HOST:PORT' of process 0.
    num_processes: 1 is to be alone, whatever a launcher says.
    process_id: from 0.
    env: variables of the environment.

  Raises:
    ConfigError: some of the three are known and others are not, or they can't
      be.
  """
  address = coordinator_address or env.get('JAX_COORDINATOR_ADDRESS')
  count = _first(num_processes, env, 'JAX_NUM_PROCESSES')
  index = _first(process_id, env, 'JAX_PROCESS_ID')
  if count == 1:
    return None
  launcher = _launcher(env)
  is_asked = address is not None or count is not None or index is not None
  if not is_asked and launcher is None:
    return _managed_cluster(env)
  devices = None
  if launcher:
    names = _LAUNCHERS[launcher]
    count, index = _first(count, env, names[0]), _first(index, env, names[1])
    devices = _local_devices(launcher, env)
  elif 'JOB_COMPLETION_INDEX' in env:
    index = _first(index, env, 'JOB_COMPLETION_INDEX')
  found: dict[str, str | int | None] = {
    'num_processes': count,
    'process_id': index,
  }
  if launcher is None or _FINDS_COORDINATOR[launcher] not in env:
    found['coordinator_address'] = address
  _check(found, launcher)
  _check_address(address)
  return Cluster(address, count, index, devices)


def start(
  cluster: Cluster, start_timeout: int = 300, heartbeat_timeout: int = 60
) -> None:
  """Meets the other processes. Call it before anything asks for a device.

  Whatever goes wrong afterwards ends the process with one message: JAX's
  runtime does so when another one dies.

  Args:
    cluster: from `find_cluster`.
    start_timeout: seconds to wait for all processes.
    heartbeat_timeout: seconds without a sign of life after which a process
      counts as dead.

  Raises:
    ConfigError: there is no cluster where one was expected, or process 0 can't
      listen at its address.
  """
  import jax

  native_errors.shorten(cluster.coordinator_address or 'the coordinator')
  devices = cluster.local_device_ids
  try:
    jax.distributed.initialize(
      cluster.coordinator_address,
      cluster.num_processes,
      cluster.process_id,
      # None would restrict it to the one that has its number on the machine.
      local_device_ids=None if devices is None else list(devices),
      initialization_timeout=start_timeout,
      heartbeat_timeout_seconds=heartbeat_timeout,
    )
  except (RuntimeError, ValueError, OSError) as error:
    raise errors.ConfigError(
      f'The processes can not meet ({errors.first_line(error)}). Give each of '
      'them --coordinator_address=HOST:PORT, --num_processes=N and '
      '--process_id=I; HOST is where process 0 runs, PORT is free there.'
    ) from error


def check_agreement(settings: Mapping[str, Any]) -> None:
  """Makes sure that all processes train the same on the same data.

  All of them call it, before they do anything else together.

  Args:
    settings: of this process, plain values.

  Raises:
    ConfigError: those of another process differ, in every process; the text
      lists the fields.
  """
  import jax

  if jax.process_count() == 1:
    return
  lines = run_settings.conflicts([json.loads(x) for x in _gather(settings)])
  if lines:
    raise errors.ConfigError(
      'The processes were not started with the same settings and data:\n'
      + ''.join(f'  {line}\n' for line in lines)
      + 'Give all of them the same command, but for --process_id.'
    )


def _gather(settings: Mapping[str, Any]) -> list[bytes]:
  """Returns the settings of each process as JSON."""
  import numpy as np
  from jax.experimental import multihost_utils

  text = json.dumps(settings).encode()
  lengths = multihost_utils.process_allgather(np.int32(len(text)))
  padded = np.zeros(max(lengths), np.uint8)
  padded[: len(text)] = np.frombuffer(text, np.uint8)
  rows = multihost_utils.process_allgather(padded)
  return [
    row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)
  ]


def lost_process(error: BaseException | None) -> str:
  """Returns the line that says another process is gone, '' for none.

  Args:
    error: of XLA, or raised where one was being handled.
  """
  while error is not None:
    if any(sign in str(error) for sign in _LOST):
      return str(error).splitlines()[0]
    error = error.__cause__ or error.__context__
  return ''


def _launcher(env: Mapping[str, str]) -> str | None:
  """Returns who started this process as one of several, None for nobody."""
  for name, (count, *_) in _LAUNCHERS.items():
    if env.get(count, '1') != '1':
      return name
  return None


def _first(known: int | None, env: Mapping[str, str], name: str) -> int | None:
  if known is not None or name not in env:
    return known
  if not env[name].isdigit():
    raise errors.ConfigError(f'{name}={env[name]!r} should be a number.')
  return int(env[name])


def _check(found: Mapping[str, str | int | None], launcher: str | None) -> None:
  """Raises ConfigError for what is missing or out of range."""
  missing = [f'--{name}' for name, value in found.items() if value is None]
  if missing:
    known = [f'{key}={val}' for key, val in found.items() if val is not None]
    raise errors.ConfigError(
      f'One of several processes ({", ".join(known)}'
      f'{f", by {launcher}" if launcher else ""}), but no '
      f'{" and no ".join(missing)}. Give each process --coordinator_address='
      'HOST:PORT of process 0, --num_processes=N and --process_id=I (or '
      'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID); '
      '--num_processes=1 trains alone.'
    )
  count, index = found['num_processes'], found['process_id']
  assert isinstance(count, int) and isinstance(index, int)
  if not 0 <= index < count:
    raise errors.ConfigError(
      f'--process_id={index} should be in 0 ... N - 1 for '
      f'--num_processes={count}.'
    )


def _check_address(address: str | None) -> None:
  host, _, port = (address or 'host:1').rpartition(':')
  if not host or not port.isdigit() or not 0 < int(port) < 65536:
    raise errors.ConfigError(
      f'--coordinator_address={address} should be HOST:PORT, such as '
      '10.0.0.1:12345: where process 0 runs, and a port that is free there.'
    )


def _local_devices(launcher: str, env: Mapping[str, str]) -> tuple[int, ...]:
  """Returns which of the machine's GPUs are this process's, () for all.

  JAX by itself would take the one of its number, also where the process is the
  only one on its machine or the launcher has left it but one.
  """
  visible = env.get('CUDA_VISIBLE_DEVICES', '').split(',')
  if launcher == 'SLURM':
    # Such as '8(x2)' or '1'.
    a_node = env.get('SLURM_STEP_TASKS_PER_NODE', '').split('(')[0]
  else:
    a_node = env.get('OMPI_COMM_WORLD_LOCAL_SIZE', '')
  if a_node == '1' or (len(visible) == 1 and visible[0]):
    return ()
  local_id = _first(None, env, _LAUNCHERS[launcher][2])
  return () if local_id is None else (local_id,)


def _managed_cluster(env: Mapping[str, str]) -> Cluster | None:
  """Returns a cluster of which JAX finds out everything, None for none."""
  if 'KUBERNETES_SERVICE_HOST' in env and 'JOB_COMPLETION_INDEX' in env:
    if importlib.util.find_spec('kubernetes') is None:
      raise errors.ConfigError(
        'This is a pod of an indexed job. Set JAX_COORDINATOR_ADDRESS='
        'HOST:PORT of the pod with index 0 and JAX_NUM_PROCESSES=N, or '
        'JAX_NUM_PROCESSES=1 for pods that train alone.'
      )
    return Cluster()
  return Cluster() if _has_tpu(env) else None


def _has_tpu(env: Mapping[str, str]) -> bool:
  """Whether JAX will train on a TPU that may be part of a pod's slice."""
  platforms = env.get('JAX_PLATFORMS', 'tpu').split(',')
  if 'tpu' not in platforms or importlib.util.find_spec('libtpu') is None:
    return False
  workers = env.get('TPU_WORKER_HOSTNAMES')
  if workers is not None and ',' not in workers:
    return 'MEGASCALE_COORDINATOR_ADDRESS' in env
  places = ('accel[0-9]*', 'vfio/[0-9]*')
  return any([*pathlib.Path('/dev').glob(place)] for place in places)
