"""The same run on one device, on eight, and on any mesh of them."""

import itertools
import json
import math
import os
import subprocess
import sys

import compiling
import numpy as np
import pytest

_RUN = [
  '--config=configs/vit.py:tiny,digits',
  '--config.model.hidden_size=20',
  '--config.model.transformer.num_layers=2',
  '--config.model.transformer.dropout_rate=0.1',
  '--config.model.transformer.drop_path_rate=0.1',
  '--config.pp.train=train[:211]',
  '--config.pp.test=test[:101]',
  '--config.pp.crop=8',
  '--config.batch=16',
  '--config.batch_eval=24',
  '--config.accum_steps=2',
  '--config.total_steps=13',
  '--config.warmup_steps=3',
  '--config.eval_every=7',
  '--config.progress_every=1',
  '--config.base_lr=0.01',
]


_MAIN = ('-m', 'vit_jax.main')
_ALONE, _MIXED = (1, 1, 1), (2, 2, 2)
_QUICK = (_ALONE, (1, 8, 1), (1, 1, 8), _MIXED)
_SLOW = tuple(
  mesh
  for mesh in itertools.product((1, 2, 4, 8), repeat=3)
  if math.prod(mesh) <= 8 and mesh not in _QUICK
)
_OTHER_MODELS = ('map', 'hybrid', 'mixer', 'convnet', 'transformer')


@pytest.fixture(scope='module')
def run_python(pytestconfig):
  """Gives (number of devices, arguments) -> a process that is done."""

  def run(num_devices, *args):
    return subprocess.run(
      [sys.executable, *args],
      cwd=pytestconfig.rootpath,
      env=os.environ
      | {
        'XLA_FLAGS': compiling.flags(num_devices),
        'PYTHONPATH': '.',
        # Of XLA's threads. Devices are threads too, and wait for each other for
        # ever where several programs are under way on too few.
        'NPROC': '64',
      },
      capture_output=True,
      text=True,
      timeout=900,
    )

  return run


@pytest.fixture(scope='module')
def options(tmp_path_factory):
  """Gives (workdir, mesh) -> the arguments of a run."""
  data_dir = tmp_path_factory.mktemp('tfds')

  def make(workdir, mesh):
    sizes = zip(('data', 'fsdp', 'tensor'), mesh, strict=True)
    return [
      *_RUN,
      f'--workdir={workdir}',
      f'--config.tfds_data_dir={data_dir}',
      *(f'--config.mesh.{axis}={size}' for axis, size in sizes),
    ]

  return make


@pytest.fixture(scope='module')
def train(run_python, options):
  """Gives (workdir, mesh, devices) -> {metric at step: value} of a run."""

  def call(workdir, mesh, num_devices):
    done = run_python(num_devices, *_MAIN, *options(workdir, mesh))
    assert done.returncode == 0, done.stderr
    assert f'{num_devices} x cpu' in done.stdout
    return read_metrics(workdir)

  return call


def read_metrics(workdir):
  lines = (workdir / 'metrics.jsonl').read_text().splitlines()
  return {
    (line['step'], name): value
    for line in map(json.loads, lines)
    for name, value in line.items()
    if name.endswith(('loss', 'accuracy'))
  }


def assert_same_metrics(found, wanted):
  assert found.keys() == wanted.keys()
  for key, value in wanted.items():
    np.testing.assert_allclose(found[key], value, rtol=1e-5, err_msg=str(key))


@pytest.fixture(scope='module')
def on_one(train, tmp_path_factory):
  metrics = train(tmp_path_factory.mktemp('on1'), _ALONE, 1)
  assert len([key for key in metrics if key[1] == 'train/loss']) == 13
  return metrics


def test_eight_devices_train_like_one(train, on_one, tmp_path):
  assert_same_metrics(train(tmp_path, (-1, 1, 1), 8), on_one)


def test_run_goes_on_and_is_evaluated_on_another_mesh(
  run_python, options, train, on_one, tmp_path
):
  stopped = run_python(
    8, 'tests/stopped_run.py', '9', *options(tmp_path, (1, 4, 2))
  )
  assert 'StoppedError' in stopped.stderr
  assert [path.name for path in (tmp_path / 'checkpoints').iterdir()] == ['7']
  assert_same_metrics(train(tmp_path, (1, -1, 1), 2), on_one)
  evaluated = run_python(
    4, *_MAIN, *options(tmp_path, (2, 1, 2)), '--mode=evaluate'
  )
  assert f'{on_one[13, "test/loss"]:.4f}'[:6] in evaluated.stdout


@pytest.fixture(scope='module')
def meshes(run_python, tmp_path_factory):
  """Gives [(model, mesh)] -> what `mesh_runs.py` says of each."""
  directory = tmp_path_factory.mktemp('weights')

  def run(pairs):
    jobs = [
      {'model': model, 'mesh': mesh, 'weights': f'{directory}/{model}.npz'}
      for model, mesh in pairs
    ]
    done = run_python(8, 'tests/mesh_runs.py', json.dumps(jobs))
    assert done.returncode == 0, done.stderr
    found = map(json.loads, done.stdout.splitlines())
    return dict(zip(pairs, found, strict=True))

  return run


@pytest.fixture(scope='module')
def quick(meshes):
  return meshes([('vit', mesh) for mesh in _QUICK])


@pytest.fixture(scope='module')
def slow(meshes):
  others = itertools.product(_OTHER_MODELS, (_ALONE, _MIXED))
  return meshes([*(('vit', mesh) for mesh in (_ALONE, *_SLOW)), *others])


def assert_trains_like_one(found, model, mesh):
  one, many = found[model, _ALONE], found[model, mesh]
  assert many['loaded'] == one['loaded']
  np.testing.assert_allclose(many['losses'], one['losses'], rtol=1e-5)
  assert np.ptp(one['losses']) > 0.05
  # The compiled step leaves the state in the layout that was planned.
  assert {*many['bytes']} == {many['planned_bytes']}
  if mesh[1] * mesh[2] > 1:
    assert many['planned_bytes'] < one['planned_bytes']
  else:
    assert many['planned_bytes'] == one['planned_bytes']


@pytest.mark.parametrize('mesh', _QUICK[1:])
def test_mesh_trains_like_one_device(quick, mesh):
  assert_trains_like_one(quick, 'vit', mesh)


@pytest.mark.slow
@pytest.mark.parametrize('mesh', _SLOW)
def test_every_mesh_trains_like_one_device(slow, mesh):
  assert_trains_like_one(slow, 'vit', mesh)


@pytest.mark.slow
@pytest.mark.parametrize('model', _OTHER_MODELS)
def test_other_models_train_on_a_mesh_like_on_one_device(slow, model):
  assert_trains_like_one(slow, model, _MIXED)


@pytest.mark.slow
def test_step_of_the_largest_model_takes_an_eighth_of_its_state(run_python):
  """Of one of its blocks, beside which the rest is small."""
  job = {'model': 'G14', 'mesh': [1, 8, 1]}
  done = run_python(8, 'tests/mesh_runs.py', json.dumps([job]))
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout)
  batch_bytes = 224 * 224 * 3 + 4  # An image and its label.
  assert found['compiled_bytes'] - found['planned_bytes'] == pytest.approx(
    batch_bytes, abs=64
  )
  share = found['planned_bytes'] / found['whole_bytes']
  assert share == pytest.approx(1 / 8, rel=0.01)
