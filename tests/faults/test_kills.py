"""SIGKILL: the next start goes on from a whole checkpoint, to the same end.

Five kills; `record_kills.py` makes as many as one likes.
"""

import random

import kills
import pytest
import runs


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('tfds')


def test_killed_runs_end_like_the_uninterrupted(data_dir, tmp_path):
  kills.finish(tmp_path / 'whole', data_dir)
  rng = random.Random(0)
  found = 0
  moments = ('compiling', 'saving', 'evaluating', 'saving', 'saving')
  for moment in moments:
    with runs.Run(tmp_path / 'run', data_dir) as run:
      kill = kills.kill(run, moment, rng)
    assert kill is not None, f'not while {moment}: {run.text}'
    assert kill.continued_from == found
    found = kill.found
  last = kills.finish(tmp_path / 'run', data_dir)
  assert last.first_step() == found > 0
  assert not last.is_saving()  # What was cut short is gone.
  assert runs.differences(tmp_path / 'run', tmp_path / 'whole') == []
