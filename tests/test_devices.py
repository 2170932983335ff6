"""The same run on one and on eight devices."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

_RUN = [
  sys.executable,
  '-m',
  'vit_jax.main',
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


@pytest.fixture(scope='module')
def losses(tmp_path_factory, pytestconfig):
  """Gives (number of devices) -> {metric at step: value} of a run."""
  data_dir = tmp_path_factory.mktemp('tfds')

  def train(num_devices):
    workdir = tmp_path_factory.mktemp(f'on{num_devices}')
    flag = f'--xla_force_host_platform_device_count={num_devices}'
    done = subprocess.run(
      [*_RUN, f'--workdir={workdir}', f'--config.tfds_data_dir={data_dir}'],
      cwd=pytestconfig.rootpath,
      env=os.environ | {'XLA_FLAGS': flag},
      capture_output=True,
      text=True,
      timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert f'{num_devices} x cpu' in done.stdout
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    return {
      (line['step'], name): value
      for line in map(json.loads, lines)
      for name, value in line.items()
      if name.endswith(('loss', 'accuracy'))
    }

  return train


def test_eight_devices_train_like_one(losses):
  one, eight = losses(1), losses(8)
  assert one.keys() == eight.keys()
  assert len([key for key in one if key[1] == 'train/loss']) == 13
  for key, value in one.items():
    np.testing.assert_allclose(eight[key], value, rtol=1e-5, err_msg=str(key))
