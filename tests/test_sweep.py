"""Tests of `sweep`: which trials run, what is continued, what is told."""

import csv
import itertools
import math
import pathlib
import sys
import threading
import time

import pytest
import sweeps
from sweeps import Runs

from vit_jax import errors, figures, launch, sweep
from vit_jax.preemption import StoppedError

# ml_collections reads config files so.
pytestmark = pytest.mark.filterwarnings('ignore:the load_module')

LR = 'base_lr=0.003,0.01,0.03'
DROPOUT = 'model.transformer.dropout_rate=0,0.1'


@pytest.fixture(autouse=True)
def plotted(monkeypatch) -> list[list[figures.SweepPoint]]:
  """What would have been drawn, which takes longer than all else."""
  monkeypatch.chdir(pathlib.Path(__file__).parents[1])
  drawn = []

  def plot(points, axes, metric, path, title=''):
    assert all(len(point.values) == len(axes) for point in points)
    path.touch()
    drawn.append(points)

  monkeypatch.setattr(figures, 'plot_sweep', plot)
  return drawn


def by_rate(overrides) -> float:
  """Is best at 0.01."""
  return 0.9 - 0.1 * abs(math.log10(overrides['base_lr']) + 2)


def table_of(out) -> list[dict[str, str]]:
  with (out / 'table.csv').open(encoding='utf-8') as file:
    return [*csv.DictReader(file)]


def test_grid_runs_all_combinations_once(tmp_path):
  runs = Runs(by_rate)
  trials, _ = sweeps.run(sweeps.settings(LR, DROPOUT), tmp_path, runs)
  pairs = [
    (x['base_lr'], x['model.transformer.dropout_rate']) for _, x in runs.calls
  ]
  assert pairs == [*itertools.product((0.003, 0.01, 0.03), (0.0, 0.1))]
  assert runs.names[2] == '002-base_lr=0.01,dropout_rate=0'
  assert all(x['total_steps'] == '40' for _, x in runs.calls)
  assert [trial.number for trial in trials[:2]] == [2, 3]
  assert trials[0].score == pytest.approx(0.9)


def test_files_are_there_after_each_trial(tmp_path):
  seen = []

  def score(overrides):
    seen.append(sorted(x.name for x in tmp_path.glob('[!0]*.*')))
    return by_rate(overrides)

  sweeps.run(sweeps.settings(LR), tmp_path, Runs(score))
  for names in seen[1:]:
    assert {'study.db', 'sweep.json', 'sweep.png', 'table.csv', 'table.md'} <= {
      *names
    }


def test_tables_are_sorted_and_end_with_the_best_command(tmp_path):
  sweeps.run(sweeps.settings(LR, DROPOUT), tmp_path, Runs(by_rate))
  rows = table_of(tmp_path)
  scores = [float(row['test/accuracy']) for row in rows]
  assert scores == sorted(scores, reverse=True)
  assert rows[0]['run'] == '002-base_lr=0.01,dropout_rate=0'
  text = (tmp_path / 'table.md').read_text()
  assert '| 2 | 0.01 | 0 | 90.00 % | finished | 0 |' in text
  command = ' '.join(
    [
      'python -m vit_jax.main --config=configs/vit.py:tiny,digits',
      '--workdir=runs/best',
      *(f'--config.{each}' for each in sweeps.FIXED),
      '--config.base_lr=0.01 --config.model.transformer.dropout_rate=0.0',
    ]
  )
  assert command in text


def test_lower_losses_are_better(tmp_path):
  runs = Runs(lambda x: 1 / by_rate(x), metric='test/loss')
  settings = sweeps.settings(LR, metric='test/loss')
  trials, _ = sweeps.run(settings, tmp_path, runs)
  assert trials[0].params == {'base_lr': 0.01}
  assert '| 1.1111 |' in (tmp_path / 'table.md').read_text()


def test_finished_sweep_runs_nothing_again(tmp_path):
  first, _ = sweeps.run(sweeps.settings(LR), tmp_path, Runs(by_rate))
  runs = Runs(by_rate)
  again, told = sweeps.run(sweeps.settings(LR), tmp_path, runs)
  assert runs.calls == []
  assert again == first
  assert '3 done already' in ''.join(told)


@pytest.mark.parametrize(
  ('sampler', 'pruner'),
  [('grid', 'none'), ('grid', 'median'), ('random', 'none'), ('tpe', 'median')],
)
def test_broken_off_sweep_ends_as_a_whole_one(tmp_path, sampler, pruner):
  options = {'sampler': sampler, 'pruner': pruner, 'prune_after': 2}
  grids = (LR,) if sampler == 'grid' else ()
  if not grids:
    options |= {'ranges': ('base_lr=1e-4..1e-1:log',), 'trials': 7}
  settings = sweeps.settings(*grids, **options)
  whole, _ = sweeps.run(settings, tmp_path / 'whole', Runs(by_rate))
  runs = Runs(by_rate, kill_at=(0, 2))
  for _ in range(2):
    with pytest.raises(StoppedError, match='SIGTERM'):
      sweeps.run(settings, tmp_path / 'broken', runs)
  last, told = sweeps.run(settings, tmp_path / 'broken', runs)
  assert [(t.number, t.params, t.state, t.score) for t in last] == [
    (t.number, t.params, t.state, t.score) for t in whole
  ]
  assert '1 to continue' in ''.join(told)
  # Those broken off went on with their own values, in their own directories.
  assert runs.calls[0] == runs.calls[1]
  assert runs.calls[2] == runs.calls[3]
  assert len({*runs.names}) == len(runs.names) - 2


def test_signal_leaves_the_table_of_what_was_done(tmp_path):
  with pytest.raises(StoppedError):
    sweeps.run(sweeps.settings(LR), tmp_path, Runs(by_rate, kill_at=(1,)))
  assert [row['state'] for row in table_of(tmp_path)] == ['finished', 'running']


def test_more_trials_continue_a_sweep(tmp_path):
  runs = Runs(by_rate)
  for trials in (2, 3):
    settings = sweeps.settings(LR, trials=trials)
    sweeps.run(settings, tmp_path, runs)
    assert len(runs.calls) == trials


def test_other_settings_in_the_same_directory_are_refused(tmp_path):
  sweeps.run(sweeps.settings(LR), tmp_path, Runs(by_rate))
  runs = Runs(by_rate)
  other = sweeps.settings('base_lr=0.003,0.01', more=('warmup_steps=3',))
  with pytest.raises(errors.ConfigError, match='other settings') as raised:
    sweeps.run(other, tmp_path, runs)
  assert 'fields.warmup_steps: 2 there, 3 now' in str(raised.value)
  assert "'base_lr=0.003,0.01,0.03'] there" in str(raised.value)
  assert runs.calls == []


def test_two_sweeps_do_not_share_a_directory(tmp_path):
  def score(overrides):
    with pytest.raises(errors.ConfigError, match='in use.*--out DIR'):
      sweeps.run(sweeps.settings(LR), tmp_path, Runs(by_rate))
    return by_rate(overrides)

  trials, _ = sweeps.run(sweeps.settings(LR, trials=1), tmp_path, Runs(score))
  assert trials[0].state == 'finished'


def test_failed_trial_is_told_and_others_go_on(tmp_path):
  runs = Runs(lambda x: math.nan if x['base_lr'] == 0.01 else by_rate(x))
  trials, told = sweeps.run(sweeps.settings(LR), tmp_path, runs)
  assert [t.state for t in trials] == ['finished', 'finished', 'failed']
  assert any('failed: loss is NaN' in line for line in told)
  assert 'Lower base_lr' in table_of(tmp_path)[-1]['error']
  sweeps.run(sweeps.settings(LR), tmp_path, runs)
  assert len(runs.calls) == 3


def test_failed_trials_are_retried_where_they_were(tmp_path):
  broken = Runs(lambda x: math.nan if x['base_lr'] == 0.01 else by_rate(x))
  sweeps.run(sweeps.settings(LR), tmp_path, broken)
  runs = Runs(by_rate)
  trials, _ = sweeps.run(sweeps.settings(LR), tmp_path, runs, retry_failed=True)
  assert runs.names == [broken.names[1]]
  assert [t.state for t in trials] == ['finished'] * 3
  assert trials[0].params == {'base_lr': 0.01}


def test_run_without_the_metric_or_with_nan_failed(tmp_path):
  def without(config, workdir, *args, **kwargs):
    pathlib.Path(workdir).mkdir(parents=True)
    text = '' if '000' in str(workdir) else '{"step": 1, "test/accuracy": null}'
    pathlib.Path(workdir, 'metrics.jsonl').write_text(f'{text}\n' * bool(text))
    return launch.Outcome(0, 0.5)

  settings = sweeps.settings(LR, trials=2)
  trials = sweep.run_sweep(
    settings, tmp_path, run_training=without, tell=lambda _: None
  )
  texts = [trial.notes['error'] for trial in trials]
  assert 'has no test/accuracy' in texts[0]
  assert 'not finite at step 1' in texts[1]
  assert sweep.best(trials, settings) is None


def test_seeds_give_mean_and_deviation(tmp_path):
  runs = Runs(lambda x: by_rate(x) + 0.01 * x['seed'])
  settings = sweeps.settings(LR, seeds=(0, 1, 2))
  trials, _ = sweeps.run(settings, tmp_path, runs)
  assert len(runs.calls) == 9
  assert runs.names[4] == '001-base_lr=0.01,seed=1'
  assert trials[0].score == pytest.approx(0.91)
  row = table_of(tmp_path)[0]
  assert float(row['sd']) == pytest.approx(0.01)
  assert float(row['seed 2']) == pytest.approx(0.92)
  assert '91.00 ± 1.00 %' in (tmp_path / 'table.md').read_text()


def test_continued_trial_does_not_repeat_its_seeds(tmp_path):
  settings = sweeps.settings(LR, seeds=(0, 1), trials=1)
  runs = Runs(by_rate, kill_at=(1,))
  with pytest.raises(StoppedError):
    sweeps.run(settings, tmp_path, runs)
  sweeps.run(settings, tmp_path, runs)
  assert [x['seed'] for _, x in runs.calls] == [0, 1, 1]


def test_worse_trials_are_pruned(tmp_path):
  settings = sweeps.settings(
    'base_lr=0.01,0.02,0.03,0.0001', pruner='median', prune_after=3
  )
  trials, told = sweeps.run(settings, tmp_path, Runs(by_rate))
  assert [t.state for t in trials] == ['finished'] * 3 + ['pruned']
  assert trials[-1].params == {'base_lr': 0.0001}
  assert trials[-1].steps == (10,)
  assert any('pruned at step 10' in line for line in told)
  assert table_of(tmp_path)[-1]['step'] == '10'


def test_last_evaluation_prunes_nothing_as_it_is_the_result(tmp_path):
  settings = sweeps.settings(
    'base_lr=0.01,0.0001',
    pruner='median',
    prune_after=1,
    more=('total_steps=10', 'eval_every=5'),
  )
  trials, _ = sweeps.run(settings, tmp_path, Runs(by_rate))
  assert [t.state for t in trials] == ['finished'] * 2


def test_same_values_are_not_run_twice(tmp_path):
  runs = Runs(by_rate)
  settings = sweeps.settings(LR, sampler='random', trials=12)
  trials, _ = sweeps.run(settings, tmp_path, runs)
  assert len(trials) == 12
  assert len(runs.calls) == 3
  assert {t.state for t in trials} == {'finished'}


@pytest.mark.parametrize('sampler', ['random', 'tpe'])
def test_samplers_stay_in_range_and_differ_by_seed(tmp_path, sampler):
  found = []
  for seed in (0, 0, 1):
    runs = Runs(lambda x: 0.5 + x['progress_every'] / 1000)
    settings = sweeps.settings(
      ranges=('base_lr=1e-4..1e-1:log', 'progress_every=31..61'),
      sampler=sampler,
      trials=4,
      sampler_seed=seed,
    )
    sweeps.run(settings, tmp_path / f'{len(found)}', runs)
    found.append([(x['base_lr'], x['progress_every']) for _, x in runs.calls])
  assert found[0] == found[1] != found[2]
  assert all(1e-4 <= lr <= 1e-1 for lr, _ in found[0])
  assert all(isinstance(b, int) and 31 <= b <= 61 for _, b in found[0])
  assert len({*found[0]}) == 4


def test_jobs_run_at_once_on_their_own_devices(tmp_path):
  meeting = threading.Barrier(2, timeout=30)

  def score(overrides):
    meeting.wait()
    return by_rate(overrides)

  runs = Runs(score)
  settings = sweeps.settings('base_lr=0.003,0.01,0.02,0.03')
  trials, told = sweeps.run(
    settings, tmp_path, runs, jobs=2, devices=['0', '1', '2']
  )
  assert len(trials) == 4
  assert {*map(str, runs.environments)} == {
    "{'CUDA_VISIBLE_DEVICES': '0,2'}",
    "{'CUDA_VISIBLE_DEVICES': '1'}",
  }
  assert any('job 0 has CUDA 0,2; job 1 has CUDA 1' in line for line in told)


def test_stop_of_one_job_stops_all(tmp_path):
  settings = sweeps.settings('base_lr=0.003,0.01,0.02,0.03')
  runs = Runs(by_rate, kill_at=(0, 1))
  with pytest.raises(StoppedError):
    sweeps.run(settings, tmp_path, runs, jobs=2)
  assert len(runs.calls) == 2
  trials, told = sweeps.run(settings, tmp_path, runs)
  assert '2 to continue' in ''.join(told)
  assert {t.state for t in trials} == {'finished'}


def test_broken_job_has_the_others_begin_no_more_trials(tmp_path):
  meeting = threading.Barrier(2, timeout=5)

  def score(overrides):
    meeting.wait()
    if overrides['base_lr'] == 0.003:
      raise ZeroDivisionError
    time.sleep(0.5)  # Ends after the other has.
    return by_rate(overrides)

  runs = Runs(score)
  settings = sweeps.settings('base_lr=0.003,0.01,0.02,0.03')
  with pytest.raises(ZeroDivisionError):
    sweeps.run(settings, tmp_path, runs, jobs=2)
  assert len(runs.calls) == 2


def test_choosing_on_the_test_split_is_warned_of(tmp_path):
  _, told = sweeps.run(
    sweeps.settings(LR, trials=1), tmp_path / 'a', Runs(by_rate)
  )
  assert any("eval_sets='val=train[90%:]'" in line for line in told)
  held_out = sweeps.settings(
    LR,
    trials=1,
    metric='val/accuracy',
    more=('pp.train=train[:90%]', 'eval_sets=val=train[90%:]'),
  )
  runs = Runs(by_rate, metric='val/accuracy')
  _, told = sweeps.run(held_out, tmp_path / 'b', runs)
  assert not any('warning' in line for line in told)


def test_without_optuna_the_error_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'optuna', None)
  with pytest.raises(errors.ConfigError, match='pip install .optuna'):
    sweeps.run(sweeps.settings(LR), tmp_path, Runs(by_rate))


def test_directory_may_have_any_name(tmp_path):
  out = tmp_path / 'a b,c=d?e%20#f:g'
  sweeps.run(sweeps.settings(LR, trials=1), out, Runs(by_rate))
  assert (out / 'study.db').is_file()


@pytest.mark.slow
def test_real_trials_are_runs_that_go_on_by_hand(tmp_path):
  settings = sweeps.settings(
    'base_lr=0.01,1e30', more=('total_steps=6', 'eval_every=3', 'batch=29')
  )
  trials = sweep.run_sweep(settings, tmp_path, tell=lambda _: None)
  assert [t.state for t in trials] == ['finished', 'failed']
  assert 'loss is nan at step 3' in trials[1].notes['error']
  run = tmp_path / trials[0].notes['run']
  assert (run / 'model.npz').is_file()
  text = (run / 'log.txt').read_text()
  assert f'Finished: {run}' in text
  command = next(x for x in text.splitlines() if x.startswith('# '))
  assert '--config.base_lr=0.01' in command
