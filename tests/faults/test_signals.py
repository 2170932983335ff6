"""SIGTERM and SIGINT: what was done is saved, and the same command goes on."""

import os
import signal
import time

import pytest
import runs
import small_run
from small_run import metrics_of, steps_in, stop, train_with

from vit_jax import evaluate, metrics, preemption, train

NEVER = 1e6  # Seconds of grace: the timer would end the tests.


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return tmp_path_factory.mktemp('tfds')


@pytest.mark.parametrize(
  ('signum', 'status', 'workers'),
  [(signal.SIGTERM, 143, 0), (signal.SIGINT, 130, 1)],
)
def test_step_is_finished_and_saved(
  signum, status, workers, data_dir, tmp_path
):
  fields = {'num_workers': workers, 'total_steps': 10_000}
  fields |= {'checkpoint_every': 0, 'eval_every': 10_000}
  with runs.Run(
    tmp_path / 'run', data_dir, start_new_session=True, **fields
  ) as run:
    assert run.wait_for('10/10,000')
    start = time.monotonic()
    # As a terminal or a scheduler does, to the workers as well.
    os.killpg(run.process.pid, signum)
    assert run.end() == status
  assert time.monotonic() - start < 30
  (step,) = run.steps()
  assert step >= 10
  name = signal.Signals(signum).name
  assert run.text.splitlines()[-1] == (
    f'Stopped by {name} after step {step}, which is saved. The same command '
    'continues from there.'
  )
  assert 'Traceback' not in run.text
  assert not (run.workdir / 'model.npz').exists()
  with pytest.raises(ProcessLookupError):  # No worker is left.
    os.killpg(run.process.pid, 0)

  with runs.Run(tmp_path / 'run', data_dir, **fields) as again:
    assert again.wait_for('Compiling the first step')
    assert again.first_step() == step
    # Nothing new is to be saved, so it doesn't wait for the compiler.
    again.process.send_signal(signum)
    assert again.end() == status
  assert again.steps() == [step]
  assert f'Stopped by {name} before a step was done' in again.text


def test_second_signal_ends_at_once(data_dir, tmp_path):
  with runs.Run(tmp_path / 'run', data_dir, total_steps=10_000) as run:
    assert run.wait_for('10/10,000')
    run.process.send_signal(signal.SIGSTOP)  # So that both are there at once.
    run.process.send_signal(signal.SIGTERM)
    run.process.send_signal(signal.SIGINT)
    run.process.send_signal(signal.SIGCONT)
    assert run.end() in (130, 143)
  assert 'Ended at once by a second signal' in run.text


def test_save_that_takes_too_long_is_given_up(data_dir, tmp_path):
  with runs.Run(
    tmp_path / 'run', data_dir, '--grace=0', total_steps=10_000
  ) as run:
    assert run.wait_for('10/10,000')
    run.process.send_signal(signal.SIGTERM)
    assert run.end() == 143
  assert 'could not be saved within 0 s (--grace)' in run.text


@pytest.fixture(scope='module')
def whole_run(compile_once, tmp_path_factory):
  """A run that nothing disturbs, which no test changes."""
  workdir = tmp_path_factory.mktemp('whole')
  train.train_and_evaluate(best_config(), workdir)
  return workdir


def best_config():
  config = small_run.make_config()
  config.update(best_metric='test/accuracy', patience=3, checkpoint_every=0)
  return config


def assert_ends_like(workdir, whole_run):
  train.train_and_evaluate(best_config(), workdir)
  models = [(path / 'model.npz').read_bytes() for path in (workdir, whole_run)]
  assert models[0] == models[1]
  assert metrics_of(workdir) == metrics_of(whole_run)


def send(signals):
  os.kill(os.getpid(), signal.SIGTERM)
  while not signals.has_come:
    time.sleep(0.001)


def stop_in_evaluation(workdir, step, patch) -> str:
  """Trains until a signal comes in the first batch of an evaluation."""
  do = evaluate.evaluate
  num_batches = 0

  def evaluate_and_count(jit_step, *args, **kwargs):
    def count(params, batch, sums):
      nonlocal num_batches
      num_batches += 1
      if signals._step == step:
        send(signals)
      return jit_step(params, batch, sums)

    return do(count, *args, **kwargs)

  with preemption.Preemption(NEVER) as signals, patch.context() as inside:
    inside.setattr(evaluate, 'evaluate', evaluate_and_count)
    with pytest.raises(preemption.StoppedError) as caught:
      train.train_and_evaluate(best_config(), workdir, signals)
  # Two batches are a whole evaluation.
  assert num_batches % 2 == 1
  return str(caught.value)


def stop_before_evaluation(workdir, step, patch) -> str:
  """Trains until a signal comes in the step before an evaluation."""

  def fail(*args, **kwargs):
    raise AssertionError('it may outlast the grace')

  def event():
    send(signals)
    patch.setattr(evaluate, 'evaluate', fail)

  with (
    preemption.Preemption(NEVER) as signals,
    pytest.raises(preemption.StoppedError) as caught,
  ):
    train_with(workdir, {step: event}, patch, best_config(), signals)
  patch.undo()
  return str(caught.value)


@pytest.mark.parametrize('step', [5, small_run.STEPS])
@pytest.mark.parametrize('end', [stop_in_evaluation, stop_before_evaluation])
def test_evaluation_that_a_signal_puts_off_is_made_up_for(
  end, step, whole_run, tmp_path, monkeypatch
):
  assert f'after step {step}, which is saved' in end(
    tmp_path, step, monkeypatch
  )
  assert steps_in(tmp_path)[-1] == step
  logged = [line['step'] for line in metrics_of(tmp_path) if len(line) > 1]
  assert step not in logged
  assert_ends_like(tmp_path, whole_run)

  if step == small_run.STEPS:  # Its last checkpoint still says that it is due.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    train.train_and_evaluate(best_config(), tmp_path)
    now = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    changed = {path.name for path in now if now[path] != before.get(path)}
    assert changed <= {'config.json', 'labels.json', 'run.lock'}


def test_evaluation_is_not_logged_again_if_the_next_process_is_killed(
  whole_run, tmp_path, monkeypatch
):
  stop_before_evaluation(tmp_path, 5, monkeypatch)
  for _ in range(2):  # Nothing is saved between.
    with pytest.raises(small_run.Stopped):
      train_with(tmp_path, {7: stop}, monkeypatch, best_config())
    assert steps_in(tmp_path) == [5]
  series = metrics.read_metrics(tmp_path)
  assert series['test/accuracy'][0].tolist() == [5]
  assert_ends_like(tmp_path, whole_run)


@pytest.mark.parametrize('is_saved', [True, False])
def test_grace_ends_once_the_state_is_saved(is_saved, monkeypatch):
  ended = []
  monkeypatch.setattr(preemption, '_end', lambda *args: ended.append(args))
  with preemption.Preemption(grace=0.2) as signals:
    assert not signals.reached(3)
    send(signals)
    if is_saved:
      assert 'after step 3, which is saved' in str(signals.stopped(3))
    time.sleep(0.6)
  assert len(ended) == (not is_saved)


def test_signal_does_not_wait_for_the_curves(tmp_path, monkeypatch):
  do = evaluate.evaluate_sets

  def evaluate_and_send(*args):
    found = do(*args)
    send(signals)
    return found

  monkeypatch.setattr(evaluate, 'evaluate_sets', evaluate_and_send)
  with (
    preemption.Preemption(NEVER) as signals,
    pytest.raises(preemption.StoppedError, match='after step 6'),
  ):
    train.train_and_evaluate(best_config(), tmp_path, signals)
  assert not (tmp_path / 'curves.png').exists()
