"""Tests of `sweep`: directories and devices that it can't use are told."""

import pathlib

import pytest
import sweeps
from sweeps import Runs

from vit_jax import errors

# ml_collections reads config files so.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module')


@pytest.fixture(autouse=True)
def _checkout(monkeypatch):
  monkeypatch.chdir(pathlib.Path(__file__).parents[1])


def sweep_in(out, **kwargs):
  runs = Runs(lambda _: 0.5)
  try:
    sweeps.run(sweeps.settings('base_lr=0.01'), out, runs, **kwargs)
  finally:
    assert not runs.calls


@pytest.mark.parametrize('text', ['[1]', '{"config": ', '"x"'])
def test_damaged_settings_are_told(tmp_path, text):
  (tmp_path / 'sweep.json').write_text(text)
  with pytest.raises(errors.ConfigError, match=r'sweep\.json.*--out DIR'):
    sweep_in(tmp_path)


def test_damaged_study_is_told(tmp_path):
  (tmp_path / 'study.db').write_bytes(b'no database, but long enough' * 50)
  with pytest.raises(errors.ConfigError, match=r'study\.db can not be opened'):
    sweep_in(tmp_path)


@pytest.mark.parametrize(
  ('devices', 'text'),
  [
    (['0', '1'], '--devices 0,1 are too few for --jobs 3.*lower --jobs to 2'),
    (['0', '', '1'], '--devices 0,,1: expected'),
    (['0', '1', '0'], 'expected different devices'),
  ],
)
def test_no_job_is_left_without_a_device(tmp_path, devices, text):
  with pytest.raises(errors.ConfigError, match=text):
    sweep_in(tmp_path / 'x', jobs=3, devices=devices)
  assert not (tmp_path / 'x').exists()
