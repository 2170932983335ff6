"""Runs of the table: skipped, continued, failing, stopped, and what is told."""

import csv
import json
import pathlib
import subprocess
import sys

import pytest

from configs import vit
from vit_jax import errors, launch, preemption
from vit_jax.reproduction import cells, records, running, writing

ROOT = pathlib.Path(__file__).parents[1]
B16 = cells.select(cells.PAPER, ['b16'], ['cifar10'])
ACCURACY = 0.9876


class Trainings:
  """Stands for `launch.run_training`; each call takes what is next.

  'finish' leaves the files of a finished run, 'fail' none, 'break' those of a
  run that has begun, and an exception is raised after these. `is_late` has the
  process killed after all.
  """

  def __init__(self, *plots, device='8 x NVIDIA A100', is_late=False):
    self.plots = [*plots]
    self.device = device
    self.is_late = is_late
    self.calls = []

  def __call__(self, config, workdir, overrides, *, log, signals):
    assert isinstance(signals, launch.Signals)
    self.calls.append((config, pathlib.Path(workdir).name, [*overrides]))
    plot = self.plots.pop(0) if self.plots else 'finish'
    if plot == 'fail':
      return launch.Outcome(2, 0.1, error='No data\n--config.dataset')
    with pathlib.Path(log).open('a', encoding='utf-8') as file:
      file.write(f'# command\ndevices: {self.device}\n')
    workdir.joinpath('config.json').write_text('{"total_steps": 70}')
    lines = [
      {'step': 30, 'train/images_per_sec': 300.0},
      {'step': 40, 'test/accuracy': 0.5},
    ]
    if plot == 'finish':
      lines.append({'step': 70, 'test/accuracy': ACCURACY})
      workdir.joinpath('model.npz').touch()
    workdir.joinpath('metrics.jsonl').write_text(
      ''.join(json.dumps(line) + '\n' for line in lines)
    )
    if isinstance(plot, BaseException):
      raise plot
    status = 0 if plot == 'finish' and not self.is_late else 137
    return launch.Outcome(status, 0.1, error='')


def run(todo, out, train, *settings):
  said = []
  unfinished = running.run_cells(todo, out, settings, said.append, train)
  return unfinished, said


def rows_of(out, name='table'):
  with (out / f'{name}.csv').open(encoding='utf-8') as file:
    return {row['directory']: row for row in csv.DictReader(file)}


def test_finished_cells_stand_beside_published_figures(tmp_path):
  unfinished, said = run(B16, tmp_path, Trainings())
  assert not unfinished
  assert '98.76 % in 0 s on 8 x NVIDIA A100' in said[1]
  row = rows_of(tmp_path)['b16,cifar10,dropout_0.0']
  assert row['status'] == 'finished'
  assert float(row['accuracy']) == pytest.approx(98.76)
  assert float(row['published_accuracy']) == 99.02
  assert float(row['difference']) == pytest.approx(-0.26)
  assert row['device'] == '8 x NVIDIA A100'
  assert (row['published_hours'], row['published_device']) == ('2.2', 'A100')
  assert float(row['images_per_sec']) == 300.0
  text = (tmp_path / 'table.md').read_text(encoding='utf-8')
  assert '2 of 2 cells are finished' in text
  assert '-0.26' in text
  assert 'https://github.com/google-research/vision_transformer' in text


def test_what_a_cell_is_reaches_its_run(tmp_path):
  train = Trainings()
  run(B16, tmp_path, train, 'base_lr=0.01')
  config, name, overrides = train.calls[1]
  assert config == 'configs/vit.py:b16,cifar10'
  assert name == 'b16,cifar10,dropout_0.1'
  assert overrides == ['model.transformer.dropout_rate=0.1', 'base_lr=0.01']
  assert rows_of(tmp_path)[name]['settings'] == 'base_lr=0.01'
  assert '| base_lr=0.01 |' in (tmp_path / 'table.md').read_text()


def test_finished_cells_are_skipped(tmp_path):
  run(B16[:1], tmp_path, Trainings())
  before = (tmp_path / 'table.csv').read_text().splitlines()
  train = Trainings()
  _, said = run(B16, tmp_path, train)
  assert [name for _, name, _ in train.calls] == [B16[1].name]
  assert said[0] == '[1/2] b16,cifar10,dropout_0.0: finished already'
  assert (tmp_path / 'table.csv').read_text().splitlines()[:2] == before


def test_finished_table_does_nothing_but_is_written_again(tmp_path):
  run(B16, tmp_path, Trainings())
  before = (tmp_path / 'table.md').read_text()
  (tmp_path / 'table.md').unlink()
  train = Trainings()
  assert not run(B16, tmp_path, train)[0]
  assert not train.calls
  assert (tmp_path / 'table.md').read_text() == before


def test_failing_cell_stops_no_other_and_is_named(tmp_path):
  unfinished, said = run(B16, tmp_path, Trainings('fail'))
  assert unfinished == B16[:1]
  assert 'failed, status 2. No data\n--set dataset' in said[1]
  failed, finished = (rows_of(tmp_path)[cell.name] for cell in B16)
  assert (failed['status'], finished['status']) == ('failed', 'finished')
  assert failed['accuracy'] == failed['difference'] == ''
  text = (tmp_path / 'table.md').read_text()
  assert f'- {B16[0].name}: No data --set dataset' in text


def test_cell_whose_process_is_killed_after_its_end_is_finished(tmp_path):
  unfinished, said = run(B16[:1], tmp_path, Trainings(is_late=True))
  assert not unfinished
  assert '98.76 %' in said[1]
  assert rows_of(tmp_path)[B16[0].name]['error'] == ''


def test_broken_cell_is_continued_and_its_times_are_summed(tmp_path):
  unfinished, _ = run(B16[:1], tmp_path, Trainings('break'))
  assert unfinished == B16[:1]
  row = rows_of(tmp_path)[B16[0].name]
  assert (row['status'], row['step']) == ('failed', '40')
  assert row['accuracy'] == ''  # Of what is not finished there is none.
  train = Trainings(device='4 x NVIDIA H100')
  unfinished, said = run(B16[:1], tmp_path, train)
  assert not unfinished
  assert 'continues' in said[0]
  record = records.Record(B16[0], tmp_path)
  assert len(record.attempts) == 2
  result = record.result()
  assert result.device == '8 x NVIDIA A100, then 4 x NVIDIA H100'
  assert result.seconds == sum(each.seconds or 0 for each in record.attempts)


@pytest.mark.parametrize('status', [130, 143])
def test_stop_is_noted_and_ends_the_table(status, tmp_path):
  train = Trainings(preemption.StoppedError('Stopped.', status))
  with pytest.raises(preemption.StoppedError):
    run(B16, tmp_path, train)
  assert len(train.calls) == 1
  result = records.Record(B16[0], tmp_path).result()
  assert (result.status, result.step, result.total_steps) == ('stopped', 40, 70)
  assert result.seconds
  text = (tmp_path / 'table.md').read_text()
  assert '| 40 of 70 |' in text
  assert '0 of 2 cells' in text


def test_attempt_that_was_killed_lasted_until_its_last_line(tmp_path):
  with pytest.raises(ZeroDivisionError):
    run(B16[:1], tmp_path, Trainings(ZeroDivisionError()))
  path = tmp_path / B16[0].name / 'reproduction.json'
  record = json.loads(path.read_text())
  log = path.with_name('log.txt')
  last = max(f.stat().st_mtime for f in (log, path.with_name('metrics.jsonl')))
  record['attempts'][0] |= {'started': last - 13, 'seconds': None}
  record['attempts'][0] |= {'status': None, 'device': ''}
  path.write_text(json.dumps(record))
  result = records.Record(B16[0], tmp_path).result()
  assert result.status == 'stopped'
  assert result.seconds == pytest.approx(13)
  assert result.device == '8 x NVIDIA A100'
  run(B16[:1], tmp_path, Trainings())
  first, second = records.Record(B16[0], tmp_path).attempts
  assert first.seconds == pytest.approx(13)
  assert second.status == 0


def test_earlier_cells_stay_in_the_table(tmp_path):
  run(B16[:1], tmp_path, Trainings())
  other = cells.select(cells.PAPER, ['l32'], ['cifar100'], ['0.1'])
  run(other, tmp_path, Trainings())
  assert [*rows_of(tmp_path)] == [B16[0].name, other[0].name]


def test_finished_cells_of_other_settings_are_refused(tmp_path):
  def check(*settings):
    running.check(B16, tmp_path, settings, vit.get_config)

  run(B16[:1], tmp_path, Trainings(), 'base_lr=0.01')
  with pytest.raises(errors.ConfigError, match='but finished cells were run'):
    check()
  with pytest.raises(errors.ConfigError, match='dropout_0.0: base_lr=0.01'):
    check('base_lr=0.02')
  check('base_lr=0.01')
  check('base_lr=0.01', 'pretrained_dir=/weights', 'num_threads=3')


def test_damaged_record_is_named(tmp_path):
  run(B16[:1], tmp_path, Trainings())
  path = tmp_path / B16[0].name / 'reproduction.json'
  path.write_text('{"attempts"')
  with pytest.raises(
    errors.ConfigError, match=r'reproduction\.json can not be'
  ):
    run(B16, tmp_path, Trainings())


def test_file_in_place_of_the_directory_is_told(tmp_path):
  (tmp_path / 'out').touch()
  with pytest.raises(errors.ConfigError, match='part of this path is a file'):
    running.check(B16, tmp_path / 'out', (), vit.get_config)


def test_nothing_is_run_outside_of_the_checkout(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(errors.ConfigError, match='in the root of the checkout'):
    running.check(B16, tmp_path / 'out', (), vit.get_config)
  assert not [*tmp_path.iterdir()]


def test_damaged_metrics_of_a_cell_are_told_beside_the_others(tmp_path):
  run(B16, tmp_path, Trainings())
  (tmp_path / B16[0].name / 'metrics.jsonl').write_text('?\n')
  run(B16, tmp_path, Trainings())
  damaged, whole = (rows_of(tmp_path)[cell.name] for cell in B16)
  assert 'line 1' in damaged['error']
  assert whole['accuracy']


def test_stand_in_is_never_shown_beside_published_figures(tmp_path):
  todo = cells.select(cells.STAND_IN, ['b16'], ['digits'])
  run(B16, tmp_path, Trainings())
  run(todo, tmp_path, Trainings(device='1 x cpu'))
  text = (tmp_path / 'stand_in.md').read_text(encoding='utf-8')
  assert '**No published figure belongs to any of these cells.**' in text
  assert '| published' not in text
  assert 'difference' not in text
  assert 'github' not in text
  assert '1 x cpu (' in text
  for row in rows_of(tmp_path, 'stand_in').values():
    assert row['published_accuracy'] == row['difference'] == ''
    assert row['model'] == 'mini-ViT-B_16'
  assert 'mini' not in (tmp_path / 'table.md').read_text(encoding='utf-8')


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [
    (None, ''),
    (7.4, '7 s'),
    (99.9, '2 min'),
    (1_020, '17 min'),
    (7_920, '2.2 h'),
  ],
)
def test_durations_are_told_as_people_do(seconds, text):
  assert writing.duration(seconds) == text


@pytest.mark.slow
def test_real_cell_is_run_skipped_and_told(tmp_path):
  words = ['--stand_in', '--models=mini-b32', '--datasets=digits/0_to_4']
  words += ['--dropout=0.0', '--schedules=50', f'--out={tmp_path}']

  def reproduce():
    return subprocess.run(
      [sys.executable, 'scripts/reproduce.py', *words],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )

  done = reproduce()
  assert done.returncode == 0, done.stderr
  assert '1 of 1 cells are finished' in done.stdout
  (row,) = rows_of(tmp_path, 'stand_in').values()
  assert row['total_steps'] == row['step'] == '50'
  assert float(row['accuracy']) > 0
  assert ' x ' in row['device']
  again = reproduce()
  assert 'finished already' in again.stderr
  assert again.stdout == done.stdout
