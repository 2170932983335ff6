"""Tests of metrics.py: whole lines, no step twice, the same in TensorBoard."""

import errno
import json
import math
import struct

import numpy as np
import pytest
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto import event_pb2

from vit_jax import errors, metrics


def lines(workdir):
  text = (workdir / 'metrics.jsonl').read_text()
  return [json.loads(line) for line in text.splitlines()]


def events(workdir):
  """Returns the events of all files, in order."""
  found = []
  for path in sorted(workdir.glob('events.out.tfevents.*')):
    data = path.read_bytes()
    while data:
      (length,) = struct.unpack('<Q', data[:8])
      # Length, its checksum, the event, its checksum.
      found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
      data = data[12 + length + 4 :]
  return found


def write(workdir, steps, restored_step=0):
  with metrics.MetricWriter(workdir, restored_step) as writer:
    for step in steps:
      writer.write(step, {'train/loss': 1 / step})


def test_line_begins_with_step_and_has_floats_by_name(tmp_path):
  with metrics.MetricWriter(tmp_path / 'new' / 'run') as writer:
    writer.write(np.int64(7), {'train/loss': np.float32(0.5), 'b': 3})
  text = (tmp_path / 'new/run/metrics.jsonl').read_text()
  assert text == '{"step": 7, "train/loss": 0.5, "b": 3.0}\n'


def test_read_gives_what_was_written(tmp_path):
  with metrics.MetricWriter(tmp_path) as writer:
    writer.write(5, {'train/loss': 0.1, 'train/accuracy': 0.25})
    writer.write(5, {'test/accuracy': 0.75})
    writer.write(10, {'train/loss': 1e-30, 'train/accuracy': 0.5})
  read = metrics.read_metrics(tmp_path)
  assert list(read) == ['train/loss', 'train/accuracy', 'test/accuracy']
  steps, values = read['train/loss']
  assert (steps.dtype, values.dtype) == (np.int64, np.float64)
  assert steps.tolist() == [5, 10]
  assert values.tolist() == [0.1, 1e-30]
  assert read['test/accuracy'][0].tolist() == [5]


@pytest.mark.parametrize('value', [math.nan, math.inf, -math.inf])
def test_line_is_json_when_a_value_is_not_finite(tmp_path, value):
  with metrics.MetricWriter(tmp_path) as writer:
    writer.write(3, {'train/loss': value, 'train/accuracy': 0.5})

  def refuse(word):
    raise AssertionError(f'{word} is no JSON')

  text = (tmp_path / 'metrics.jsonl').read_text()
  assert json.loads(text, parse_constant=refuse)['train/loss'] is None
  read = metrics.read_metrics(tmp_path / 'metrics.jsonl')
  assert np.isnan(read['train/loss'][1]).tolist() == [True]
  assert read['train/accuracy'][1].tolist() == [0.5]


def test_lines_are_there_before_close(tmp_path):
  writer = metrics.MetricWriter(tmp_path)
  writer.write(1, {'a': 1.0})
  assert lines(tmp_path) == [{'step': 1, 'a': 1.0}]
  writer.close()
  writer.close()


def test_resume_drops_steps_that_are_made_again(tmp_path):
  write(tmp_path, [10, 20, 30])
  write(tmp_path, [30, 40], restored_step=20)
  assert [line['step'] for line in lines(tmp_path)] == [10, 20, 30, 40]


def test_run_that_restored_nothing_begins_anew(tmp_path):
  with metrics.MetricWriter(tmp_path) as writer:
    writer.write(0, {'test/accuracy': 0.1})
  write(tmp_path, [10])
  assert [line['step'] for line in lines(tmp_path)] == [10]


@pytest.mark.parametrize(
  'torn',
  [b'{"step": 20, "train/lo', b'{"step": 20, "a": 1}', b'{"step": 2', b'\xc3'],
)
def test_torn_last_line_is_dropped(tmp_path, torn):
  write(tmp_path, [10])
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(path.read_bytes() + torn)
  assert metrics.read_metrics(path)['train/loss'][0].tolist() == [10]
  write(tmp_path, [30], restored_step=20)
  assert [line['step'] for line in lines(tmp_path)] == [10, 30]


def test_kill_while_dropping_leaves_the_old_file(tmp_path, monkeypatch):
  write(tmp_path, [10, 20])
  before = (tmp_path / 'metrics.jsonl').read_bytes()

  def killed(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(metrics.os, 'replace', killed)
  with pytest.raises(KeyboardInterrupt):
    metrics.MetricWriter(tmp_path, restored_step=10)
  assert (tmp_path / 'metrics.jsonl').read_bytes() == before


def test_file_that_needs_no_dropping_is_left_alone(tmp_path):
  write(tmp_path, [10, 20])
  inode = (tmp_path / 'metrics.jsonl').stat().st_ino
  write(tmp_path, [30], restored_step=20)
  assert (tmp_path / 'metrics.jsonl').stat().st_ino == inode


def test_other_processes_write_nothing(tmp_path):
  with metrics.MetricWriter(tmp_path / 'run', enabled=False) as writer:
    writer.write(1, {'a': 1.0})
  assert not (tmp_path / 'run').exists()


class FullDisk:
  """A file that takes nothing."""

  def write(self, text):
    raise OSError(errno.ENOSPC, 'No space left on device')

  flush = close = lambda self: self.write('')


@pytest.mark.parametrize('method', ['write', 'close'])
def test_full_disk_is_an_error_that_names_the_file(method, tmp_path):
  writer = metrics.MetricWriter(tmp_path)
  writer._file.close()
  writer._file = FullDisk()
  with pytest.raises(errors.ConfigError, match='No space left') as caught:
    writer.write(1, {'a': 1.0}) if method == 'write' else writer.close()
  assert f'{tmp_path / "metrics.jsonl"}: metrics can not' in str(caught.value)
  assert '--workdir=DIR' in str(caught.value)
  if method == 'write':
    writer._board.close()


def test_full_disk_at_the_end_hides_no_other_error(tmp_path):
  with (
    pytest.raises(ZeroDivisionError),
    metrics.MetricWriter(tmp_path) as writer,
  ):
    writer._file.close()
    writer._file = FullDisk()
    raise ZeroDivisionError
  with (
    pytest.raises(errors.ConfigError),
    metrics.MetricWriter(tmp_path) as writer,
  ):
    writer._file.close()
    writer._file = FullDisk()


@pytest.mark.parametrize('method', ['write_event', 'flush'])
def test_full_disk_is_seen_when_the_event_file_is_written(
  method, tmp_path, monkeypatch
):
  def fail(*_):
    raise OSError(errno.ENOSPC, 'No space left on device')

  with metrics.MetricWriter(tmp_path) as writer, monkeypatch.context() as patch:
    patch.setattr(EventsWriter, method, fail)
    patch.setattr(metrics, '_FLUSH_SECONDS', 0)
    writer._board._next_flush = 0.0
    for step in range(1, 31):  # More than a queue would take.
      with pytest.raises(errors.ConfigError, match='No space left'):
        writer.write(step, {'a': 1.0})


def test_tensorboard_has_the_same_names_and_values(tmp_path):
  with metrics.MetricWriter(tmp_path) as writer:
    writer.write(5, {'train/loss': 0.5, 'train/learning_rate': 0.25})
    writer.write(7, {'test/accuracy': 0.75})
  found = {
    (event.step, value.tag, value.simple_value)
    for event in events(tmp_path)
    for value in event.summary.value
  }
  assert found == {
    (5, 'train/loss', 0.5),
    (5, 'train/learning_rate', 0.25),
    (7, 'test/accuracy', 0.75),
  }


def test_tensorboard_hides_the_steps_that_are_made_again(tmp_path):
  write(tmp_path, [10, 20, 30])
  write(tmp_path, [30], restored_step=20)
  starts = [
    event.step
    for event in events(tmp_path)
    if event.session_log.status == event_pb2.SessionLog.START
  ]
  assert starts == [0, 21]
  # Both files are there though they were written within one second.
  steps = [event.step for event in events(tmp_path) if event.summary.value]
  assert steps == [10, 20, 30, 30]


def test_missing_file_says_where_it_looked(tmp_path):
  with pytest.raises(
    errors.DataNotFoundError, match=r'metrics\.jsonl.*workdir'
  ):
    metrics.read_metrics(tmp_path)


@pytest.mark.parametrize(
  'bad', ['loss 3', '[1]', '{"a": 1.0}', '{"step": 1, "a": "b"}', '']
)
def test_damaged_line_is_named(tmp_path, bad):
  path = tmp_path / 'metrics.jsonl'
  path.write_text(f'{{"step": 1, "a": 1.0}}\n{bad}\n{{"step": 2, "a": 1.0}}\n')
  with pytest.raises(errors.DataError, match='line 2'):
    metrics.read_metrics(path)
