"""What command lines share: exit statuses, messages, types of arguments."""

import argparse
import gc
import io
import os
import pathlib
import subprocess
import sys
import time

import pytest

from vit_jax import command_line, errors, preemption

ROOT = pathlib.Path(__file__).parents[1]


class Sink(io.StringIO):
  """Standard output that fails, at once or when what is in it has to go."""

  def __init__(self, failing: str, error: OSError):
    super().__init__()
    self.failing, self.error = failing, error

  def write(self, text):
    if self.failing == 'write':
      raise self.error
    return super().write(text)

  def flush(self):
    if self.failing == 'flush':
      raise self.error


def status_of(raised: BaseException, **kwargs) -> int:
  def fail():
    raise raised

  return command_line.status_of(fail, **kwargs)


def test_interrupt_that_a_callback_swallows_comes_again(capsys):
  ignored = []

  def swallow(phase, info):
    if not ignored:
      ignored.append(phase)
      raise KeyboardInterrupt

  def command():
    gc.callbacks.append(swallow)
    try:
      gc.collect()
      time.sleep(30)
    finally:
      gc.callbacks.remove(swallow)
    return 0

  hook, start = sys.unraisablehook, time.monotonic()
  assert command_line.status_of(command) == 130
  assert ignored and time.monotonic() - start < 20
  assert capsys.readouterr().err == 'stopped\n'
  assert sys.unraisablehook is hook


def test_other_errors_that_nobody_can_catch_are_told(monkeypatch):
  told = []
  monkeypatch.setattr(sys, 'unraisablehook', told.append)

  class Thing:
    def __del__(self):
      raise ValueError('at the end')

  def command():
    Thing()
    return 0

  assert command_line.status_of(command) == 0
  assert [str(each.exc_value) for each in told] == ['at the end']


@pytest.mark.parametrize(
  ('raised', 'status', 'text'),
  [
    (errors.DataError('a: broken'), 2, 'error: a: broken\n'),
    (errors.DataNotFoundError('a: gone'), 2, 'error: a: gone\n'),
    (PermissionError(13, 'Denied', 'a.txt'), 2, 'error: a.txt: Denied\n'),
    (OSError(28, 'No room'), 2, 'error: No room\n'),
    (BrokenPipeError(32, 'Broken'), 141, ''),
    (KeyboardInterrupt(), 130, 'stopped; nothing is there\n'),
    (preemption.StoppedError('saved', 143), 143, 'saved\n'),
  ],
)
def test_what_ends_a_command(raised, status, text, capsys):
  found = status_of(raised, stopped='stopped; nothing is there')
  assert (found, *capsys.readouterr()) == (status, '', text)


def test_mistakes_of_the_code_are_no_messages():
  with pytest.raises(ZeroDivisionError):
    status_of(ZeroDivisionError())


@pytest.mark.parametrize('failing', ['write', 'flush'])
@pytest.mark.parametrize(
  ('error', 'status', 'text'),
  [
    (BrokenPipeError(32, 'Broken'), 141, ''),
    (OSError(28, 'No room'), 2, 'error: standard output: No room\n'),
  ],
)
def test_standard_output_that_nobody_takes(
  failing, error, status, text, monkeypatch, capsys
):
  sink = Sink(failing, error)
  monkeypatch.setattr(sys, 'stdout', sink)
  assert command_line.status_of(lambda: print('a') or 0) == status
  assert sys.stdout is sink
  assert capsys.readouterr().err == text


def test_failed_output_is_not_taken_for_a_file(monkeypatch):
  monkeypatch.setattr(sys, 'stdout', Sink('write', OSError(28, 'No room')))
  with pytest.raises(command_line.OutputError), command_line.guarded_output():
    try:
      print('a')
    except OSError:
      pytest.fail('a file would be blamed')


def test_output_that_is_closed_from_the_start(monkeypatch):
  monkeypatch.setattr(sys, 'stdout', None)
  assert command_line.status_of(lambda: print('a') or 3) == 3


@pytest.mark.parametrize('args', [['--help'], ['ViT-B_16.npz', '--help']])
def test_help_that_nobody_reads(args):
  end, place = os.pipe()
  os.close(end)
  done = subprocess.run(
    [sys.executable, 'scripts/inspect_checkpoint.py', *args],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
    stdout=place,
    stderr=subprocess.PIPE,
    text=True,
  )
  os.close(place)
  assert (done.returncode, done.stderr) == (141, '')


def test_run_tells_mistakes_by_the_options_that_there_are(monkeypatch, capsys):
  parser = command_line.make_parser('Does nothing.')
  command_line.add_dataset(parser, 'digits')

  def fail(args: argparse.Namespace) -> int:
    raise errors.ConfigError(f'config.dataset is {args.dataset!r}')

  monkeypatch.setattr(sys, 'argv', ['x', '--dataset', 'a'])
  assert command_line.run(fail, lambda: parser) == 2
  assert capsys.readouterr().err == "error: --dataset is 'a'\n"


@pytest.mark.parametrize(
  ('text', 'options', 'expected'),
  [
    ('is in: --config.tfds_data_dir=D', ['tfds_data_dir'], '--tfds_data_dir D'),
    ('is in: --config.tfds_data_dir=D', ['batch'], '--config.tfds_data_dir=D'),
    ('is in: --config.tfds_data_dir=D', ['set'], '--set tfds_data_dir=D'),
    ("is in: config.dataset='a b'", ['dataset'], "--dataset='a b'"),
    ('is in: --config.follow_links=True.', ['follow_links'], '--follow_links.'),
    ('is in: config.dataset.', ['labels'], '--labels.'),
    ('is in: (config.pp.crop)', ['image_size'], '(--image_size)'),
    ('is in: config.pp.test', ['split'], '--split'),
    ('is in: config.pp.test', ['test_split', 'split'], '--test_split'),
    ('is in: runs/config.json', ['json', 'set'], 'runs/config.json'),
    ('is in: --config vit.py', ['set'], '--config vit.py'),
    ('is in: config.base_lr=1', ['set'], 'config.base_lr=1'),
  ],
)
def test_fields_become_options(text, options, expected):
  assert command_line.as_options(text, options) == f'is in: {expected}'


@pytest.mark.parametrize('text', ['0', '-1', '1.5', '', 'x', '2147483648', '²'])
def test_no_positive_int(text):
  with pytest.raises(argparse.ArgumentTypeError, match='should be a whole'):
    command_line.positive_int(text)


def test_positive_ints():
  assert command_line.positive_int('2147483647') == 2**31 - 1
  assert command_line.positive_ints('5, 10,25') == (5, 10, 25)
  assert command_line.positive_ints('') == ()
  with pytest.raises(argparse.ArgumentTypeError):
    command_line.positive_ints('5,')


@pytest.mark.parametrize('text', ['0', '-1e-3', 'nan', 'inf', '', 'x'])
def test_no_positive_float(text):
  with pytest.raises(argparse.ArgumentTypeError, match='above zero'):
    command_line.positive_float(text)
  assert command_line.positive_float('1e-3') == 1e-3


def test_file_to_write(tmp_path):
  file, pipe = tmp_path / 'a.json', tmp_path / 'pipe'
  os.mkfifo(pipe)
  assert command_line.out_file(str(file)) == file
  file.touch()
  assert command_line.out_file(str(file)) == file
  for path, text in (
    (tmp_path, 'is a directory'),
    (pipe, 'is a device, a pipe'),
    (tmp_path / 'no' / 'a.json', 'in no directory'),
    (file / 'a.json', 'in no directory'),
  ):
    with pytest.raises(argparse.ArgumentTypeError, match=text):
      command_line.out_file(str(path))
