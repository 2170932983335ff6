"""Which of several processes this is, as launchers say it."""

import pytest

from vit_jax import distributed, errors, native_errors
from vit_jax.distributed import Cluster

OPEN_MPI = {
  'OMPI_COMM_WORLD_SIZE': '6',
  'OMPI_COMM_WORLD_RANK': '5',
  'OMPI_COMM_WORLD_LOCAL_RANK': '2',
  'OMPI_COMM_WORLD_LOCAL_SIZE': '3',
}
SLURM = {
  'SLURM_JOB_ID': '1234',
  'SLURM_NTASKS': '6',
  'SLURM_STEP_NODELIST': 'node[01-02]',
  'SLURM_STEP_NUM_TASKS': '6',
  'SLURM_STEP_TASKS_PER_NODE': '3(x2)',
  'SLURM_PROCID': '4',
  'SLURM_LOCALID': '1',
}
POD = {'KUBERNETES_SERVICE_HOST': '10.0.0.1', 'JOB_COMPLETION_INDEX': '3'}
JAX = {'JAX_COORDINATOR_ADDRESS': 'a:1', 'JAX_NUM_PROCESSES': '5'}


@pytest.mark.parametrize(
  'env',
  [
    {},
    {'JAX_NUM_PROCESSES': '1', **SLURM},
    # An allocation of several tasks, in which this was started without srun.
    {**SLURM, 'SLURM_STEP_NUM_TASKS': '1'},
    {k: v for k, v in SLURM.items() if k != 'SLURM_STEP_NUM_TASKS'},
    {**OPEN_MPI, 'OMPI_COMM_WORLD_SIZE': '1'},
    {'KUBERNETES_SERVICE_HOST': '10.0.0.1'},
    {'TPU_WORKER_HOSTNAMES': 'localhost'},
  ],
)
def test_process_is_alone(env):
  assert distributed.find_cluster(env=env) is None


def test_one_process_is_alone_whatever_is_around_it():
  env = {**SLURM, **JAX, 'JAX_PROCESS_ID': '7'}
  assert distributed.find_cluster(num_processes=1, env=env) is None


@pytest.mark.parametrize(
  ('given', 'env', 'expected'),
  [
    (('a:1', 3, 2), {}, Cluster('a:1', 3, 2)),
    ((None, None, None), {**JAX, 'JAX_PROCESS_ID': '4'}, Cluster('a:1', 5, 4)),
    (('b:2', None, 1), {**JAX, 'JAX_PROCESS_ID': '4'}, Cluster('b:2', 5, 1)),
    ((None, None, None), SLURM, Cluster(None, 6, 4, (1,))),
    (('b:2', None, None), SLURM, Cluster('b:2', 6, 4, (1,))),
    # One process a node has all its GPUs, and so has one that is bound to one.
    (
      (None, None, None),
      {**SLURM, 'SLURM_STEP_TASKS_PER_NODE': '1(x6)'},
      Cluster(None, 6, 4, ()),
    ),
    (
      (None, None, None),
      {**SLURM, 'CUDA_VISIBLE_DEVICES': '0'},
      Cluster(None, 6, 4, ()),
    ),
    (
      (None, None, None),
      {**SLURM, 'CUDA_VISIBLE_DEVICES': '0,1,2'},
      Cluster(None, 6, 4, (1,)),
    ),
    (('b:2', None, None), OPEN_MPI, Cluster('b:2', 6, 5, (2,))),
    (
      (None, None, None),
      {**OPEN_MPI, 'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1:3'},
      Cluster(None, 6, 5, (2,)),
    ),
    # Open MPI's processes may be in a step of SLURM's, of one task a node.
    (('b:2', None, None), {**SLURM, **OPEN_MPI}, Cluster('b:2', 6, 5, (2,))),
    ((None, None, None), {**POD, **JAX}, Cluster('a:1', 5, 3)),
  ],
)
def test_place_in_the_cluster(given, env, expected):
  assert distributed.find_cluster(*given, env=env) == expected


@pytest.mark.parametrize(
  ('given', 'env', 'texts'),
  [
    (('a:1', 3, None), {}, ['num_processes=3', 'but no --process_id.']),
    (('a:1', None, None), {}, ['no --num_processes and no --process_id.']),
    ((None, 3, 2), {}, ['process_id=2', 'but no --coordinator_address']),
    ((None, None, None), OPEN_MPI, ['by Open MPI', '--coordinator_address']),
    (('a:1', 3, 3), {}, ['--process_id=3', '--num_processes=3']),
    (('a', 3, 2), {}, ['--coordinator_address=a ', 'HOST:PORT']),
    ((':1', 3, 2), {}, ['--coordinator_address=:1 ', 'HOST:PORT']),
    (('a:99999', 3, 2), {}, ['--coordinator_address=a:99999 ']),
    (
      (None, None, None),
      {**JAX, 'JAX_NUM_PROCESSES': 'two', 'JAX_PROCESS_ID': '1'},
      ["JAX_NUM_PROCESSES='two'"],
    ),
    ((None, None, None), {**POD, 'JAX_NUM_PROCESSES': '4'}, ['process_id=3']),
    ((None, None, None), POD, ['JAX_COORDINATOR_ADDRESS', 'indexed job']),
  ],
)
def test_what_is_missing_is_named(given, env, texts, monkeypatch):
  find_spec = distributed.importlib.util.find_spec
  monkeypatch.setattr(
    distributed.importlib.util,
    'find_spec',
    lambda name: None if name == 'kubernetes' else find_spec(name),
  )
  with pytest.raises(errors.ConfigError) as info:
    distributed.find_cluster(*given, env=env)
  for text in texts:
    assert text in str(info.value)


def test_pod_asks_kubernetes_where_it_can(monkeypatch):
  monkeypatch.setattr(
    distributed.importlib.util, 'find_spec', lambda name: object()
  )
  assert distributed.find_cluster(env=POD) == Cluster()


@pytest.mark.parametrize(
  ('env', 'expected'),
  [
    ({}, Cluster()),
    ({'TPU_WORKER_HOSTNAMES': 'a,b'}, Cluster()),
    ({'TPU_WORKER_HOSTNAMES': 'a'}, None),
    (
      {'TPU_WORKER_HOSTNAMES': 'a', 'MEGASCALE_COORDINATOR_ADDRESS': 'c:1'},
      Cluster(),
    ),
    ({'JAX_PLATFORMS': 'cpu'}, None),
  ],
)
def test_tpu_asks_its_machine(env, expected, monkeypatch):
  monkeypatch.setattr(
    distributed.importlib.util, 'find_spec', lambda name: object()
  )
  monkeypatch.setattr(distributed.pathlib.Path, 'glob', lambda *_: ['accel0'])
  assert distributed.find_cluster(env=env) == expected


# As JAX's runtime writes them.
_DIED = """\
ours
E1121 19:59:19.383068    2212 coordination_service.cc:1549] [735496] Use error:
1
The tasks have crashed. [type.googleapis.com/tensorflow.CoordinationService='']
E1121 19:59:19.383716    2223 coordination_service_agent.cc:289] Polled an error
F1121 19:59:19.383884    2223 client.h:80] Terminating process because the JAX \
distributed service detected fatal errors. absl::Status: {reason}
*** Check failure stack trace: ***
    @     0x7fd158c40634  absl::lts_20260107::log_internal::LogMessage()
"""


@pytest.mark.parametrize(
  ('reason', 'texts'),
  [
    (
      'UNAVAILABLE: The following tasks are unhealthy (stopped sending '
      'heartbeats):\n1\n3\nThe tasks have crashed.\n\nRPC: /PollForError [x]',
      ['Process 1, 3 has died or hangs', 'continues from the last checkpoint'],
    ),
    (
      'UNAVAILABLE: failed to connect\n\nRPC: /PollForError [x]',
      ['Process 0, at a:1, has died', '(UNAVAILABLE: failed to connect)'],
    ),
    (
      'DEADLINE_EXCEEDED: Deadline Exceeded\n\nRPC: /RegisterTask',
      ['did not all meet at a:1 within --start_timeout'],
    ),
    (
      'INVALID_ARGUMENT: Unexpected task registered with task=2\n\n'
      'RPC: /RegisterTask',
      ['expects fewer processes', '--num_processes=N'],
    ),
    (
      'ALREADY_EXISTS: Aborted connect attempt as there is a request from a '
      'newer incarnation.\n\nRPC: /RegisterTask',
      ['the same --process_id'],
    ),
    ('INTERNAL: Barrier failed.', ['(INTERNAL: Barrier failed.)']),
  ],
)
def test_screenful_becomes_one_message(reason, texts):
  lines = _DIED.format(reason=reason).splitlines(keepends=True)
  ours, message = native_errors.shortened(lines, 'a:1')
  assert ours == 'ours\n'
  assert message.startswith('error: ') and message.count('\n') == 1
  for text in texts:
    assert text in message


def test_other_lines_pass():
  lines = [
    'W1121 20:00:20.345084    2387 preemption_notifier.cc:90] SIGTERM caught\n',
    'one\n',
    'W1121 20:00:20.345084    2387 allocator.cc:90] low on memory\n',
    'F1121 20:00:20.345084    2387 allocator.cc:90] out of memory\n',
    '\n',
    'two\n',
  ]
  assert [*native_errors.shortened(lines, 'a:1')] == lines[1:]


def test_lost_process_is_seen_through_other_errors():
  gloo = ValueError('UNKNOWN: Gloo all-reduce failed: closed\nmore')
  assert distributed.lost_process(gloo).endswith('failed: closed')
  outer = errors.CheckpointError('a checkpoint can not be written')
  assert distributed.lost_process(outer) == ''
  outer.__cause__ = gloo
  assert 'Gloo' in distributed.lost_process(outer)
