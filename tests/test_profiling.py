"""Traces of steps: which ones, and that the files are there."""

import pytest

from configs import vit
from vit_jax import config_checks, errors, profiling, train

pytestmark = pytest.mark.usefixtures('compile_once')


@pytest.mark.parametrize(
  ('profile', 'start_step', 'expected'),
  [
    ('', 7, None),
    ('10:14', 0, (10, 14)),
    ('10:14', 12, (10, 14)),
    ('0:1', 0, (1, 1)),
    ('5', 0, (3, 7)),
    ('1', 11, (14, 14)),
  ],
)
def test_steps_of_a_profile(profile, start_step, expected):
  assert profiling.parse(profile, start_step) == expected


@pytest.mark.parametrize(
  'profile', ['0', '5:4', ':5', '5:', 'on', '-3', '1:2:3']
)
def test_other_texts_are_refused(profile):
  with pytest.raises(errors.ConfigError, match="such as '10:14'"):
    profiling.parse(profile)


@pytest.mark.parametrize(
  'profile',
  ['9999:10000', '6999:7001', '1:99999999999999999999', '1:' + 9_999 * '9'],
)
def test_steps_that_the_run_does_not_have_are_refused(profile):
  config = vit.get_config('tiny,digits')
  config.update(total_steps=7_000, profile=profile)
  with pytest.raises(errors.ConfigError, match='config.profile='):
    config_checks.check_config(config, 1)
  config.profile = '6999:7000'
  config_checks.check_config(config, 1)


def test_number_of_steps_needs_one_after_the_first_two():
  assert profiling.parse('5', total_steps=3) == (3, 7)
  with pytest.raises(errors.ConfigError, match='config.total_steps=2'):
    profiling.parse('5', total_steps=2)


@pytest.fixture
def traced(monkeypatch):
  """Gives what the profiler was told."""
  calls = []
  monkeypatch.setattr(
    'jax.profiler.start_trace', lambda where: calls.append(where)
  )
  monkeypatch.setattr('jax.profiler.stop_trace', lambda: calls.append('stop'))
  return calls


@pytest.mark.parametrize(
  ('profile', 'steps', 'expected'),
  [
    ('2:3', range(1, 6), [1, 'start', 2, 3, 'stop', 4, 5]),
    ('4', range(1, 6), [1, 2, 'start', 3, 4, 5, 'stop']),
    ('2:3', range(3, 6), ['start', 3, 'stop', 4, 5]),
    ('2:3', range(4, 6), [4, 5]),
    ('', range(1, 3), [1, 2]),
  ],
)
def test_trace_is_of_whole_steps_and_ends(profile, steps, expected, traced):
  told, order = [], []
  with profiling.Profile(profile, 'dir', steps[0] - 1, told.append) as profile:
    for step in steps:
      profile.before(step, None)
      order += [{'dir': 'start'}.get(call, call) for call in traced]
      traced.clear()
      order.append(step)
  order += traced
  assert order == expected
  traces = [text for text in told if text.startswith('Trace in dir;')]
  assert len(traces) == order.count('stop')


class State:
  """Records that it was waited for."""

  def __init__(self, calls):
    self.calls = calls

  def block_until_ready(self):
    self.calls.append('wait')
    return self


def test_state_is_waited_for_before_a_trace_starts_and_ends(traced):
  with profiling.Profile('2:3', 'dir', 0, lambda _: None) as profile:
    for step in range(1, 6):
      profile.before(step, State(traced))
      traced.append(step)
  assert traced == [1, 'wait', 'dir', 2, 3, 'wait', 'stop', 4, 5]


def test_run_without_the_steps_says_that_there_is_no_trace(traced):
  told = []
  with profiling.Profile('2:3', 'dir', 3, told.append):
    assert told == [
      "No trace by config.profile='2:3': 3 steps are done already."
    ]
  with profiling.Profile('5', 'dir', 0, told.append) as profile:
    profile.before(1, None)
  assert told[1:] == ["No trace by config.profile='5': the run ended before."]
  with pytest.raises(KeyError), profiling.Profile('5', 'dir', 0, told.append):
    raise KeyError  # Which says why.
  assert len(told) == 2 and not traced


def test_run_leaves_a_trace(tmp_path):
  config = vit.get_config('tiny,digits')
  config.tfds_data_dir = str(tmp_path / 'data')
  config.model.hidden_size = 10
  config.model.transformer.update(mlp_dim=14, num_heads=2, num_layers=1)
  config.pp.update(train='train[:101]', test='test[:47]', crop=8)
  config.update(batch=6, batch_eval=24, total_steps=4, profile='2:3')
  train.train_and_evaluate(config, tmp_path / 'run')
  (trace,) = (tmp_path / 'run' / 'profile').rglob('*.xplane.pb')
  assert b'train_step' in trace.read_bytes()
