"""Settings of runs compared; `tests/test_workdir.py` has those continued."""

from vit_jax import run_settings


def test_what_processes_that_train_as_one_must_agree_on():
  first = {'pp': {'crop': 8, 'area_range': (0.05, 1.0)}, 'base_lr': 0.1}
  first |= {'num_threads': 1, 'tfds_data_dir': '/a', 'seed': 0}
  # As JSON gives it to other processes.
  same = first | {'num_threads': 9, 'tfds_data_dir': '/b'}
  same['pp'] = {'crop': 8, 'area_range': [0.05, 1.0]}
  assert run_settings.conflicts([first]) == []
  assert run_settings.conflicts([first, same, same]) == []
  other = same | {'seed': 3, 'checkpoint_every': 7}
  assert run_settings.conflicts([first, same, other]) == [
    'checkpoint_every: None in process 0, 7 in process 2',
    'seed: 0 in process 0, 3 in process 2',
  ]
