"""Tests of progress.py: true speeds and times, plain lines, untorn bars."""

import contextlib
import io
import re

import pytest
from rich.console import Console

from vit_jax import progress


class Clock:
  """Tells the time that the test sets."""

  def __init__(self):
    self.now = 1_000.0

  def __call__(self):
    return self.now


@pytest.fixture
def clock():
  return Clock()


def plain(clock, total=1600, start=0, batch=128):
  file = io.StringIO()
  console = Console(file=file, width=40)
  shown = progress.Progress(total, start, batch, console=console, clock=clock)
  return shown, file


@pytest.mark.parametrize(
  ('seconds', 'text'),
  [
    (0, '0:00:00'),
    (59.4, '0:00:59'),
    (59.6, '0:01:00'),
    (3723, '1:02:03'),
    (360_000, '100:00:00'),
  ],
)
def test_durations(seconds, text):
  assert progress.format_duration(seconds) == text


def test_summary_is_aligned(capsys):
  progress.print_summary({'Data': 'digits', 'Devices': '1 x cpu [0]'})
  assert capsys.readouterr().out == ('Data:    digits\nDevices: 1 x cpu [0]\n')


def test_metrics_on_a_line_have_shares_in_percent():
  assert (
    progress.format_metrics({'test/loss': 0.12345, 'test/accuracy': 0.97778})
    == 'test/loss 0.1235, test/accuracy 97.78%'
  )
  assert progress.format_metrics({'a/top5': 1}) == 'a/top5 100.00%'


def test_rate_counts_from_the_first_update(clock):
  rate = progress.Rate(clock)
  clock.now += 30  # Compilation.
  rate.update(710)
  assert rate.seconds_per_step() is None
  assert rate.seconds_left(90) is None
  clock.now += 5
  rate.update(720)
  assert rate.seconds_per_step() == pytest.approx(0.5)
  assert rate.seconds_left(80) == pytest.approx(40)


def test_rate_leaves_out_pauses_but_the_time_left_has_them(clock):
  rate = progress.Rate(clock)
  rate.update(100)
  clock.now += 10
  with rate.pause():
    clock.now += 20
  rate.update(110)
  assert rate.seconds_per_step() == pytest.approx(1)
  assert rate.seconds_left(7) == pytest.approx(7 * (1 + 2))


def test_rate_forgets_pauses_before_the_first_update(clock):
  rate = progress.Rate(clock)
  with rate.pause():
    clock.now += 50
  rate.update(0)
  clock.now += 3
  rate.update(3)
  assert rate.seconds_left(5) == pytest.approx(5)


def test_pause_ends_with_an_error_inside(clock):
  rate = progress.Rate(clock)
  rate.update(0)
  with contextlib.suppress(ValueError), rate.pause():
    clock.now += 20
    raise ValueError
  clock.now += 2
  rate.update(2)
  assert rate.seconds_per_step() == pytest.approx(1)


def test_rate_follows_a_machine_that_slows_down(clock):
  rate = progress.Rate(clock)
  for step in range(200):
    clock.now += 1 if step < 100 else 3
    rate.update(step)
  assert rate.seconds_per_step() == pytest.approx(3)


def test_rate_survives_the_same_step_twice(clock):
  rate = progress.Rate(clock)
  rate.update(5)
  rate.update(5)
  assert rate.seconds_per_step() is None


def test_plain_lines_show_what_is_known(clock):
  shown, file = plain(clock, total=1600, start=800)
  with shown:
    shown.update(810, {'train/loss': 0.5, 'train/accuracy': 0.875})
    clock.now += 2
    shown.update(820, {'train/loss': 0.25, 'train/accuracy': 1.0})
    shown.message('test [/tmp] accuracy 97.8%')
  assert file.getvalue().splitlines() == [
    '  810/1,600  loss 0.5000, accuracy 87.50%',
    '  820/1,600  loss 0.2500, accuracy 100.00%  640 images/s  0:02:36 left',
    'test [/tmp] accuracy 97.8%',
  ]
  assert shown.images_per_sec() == pytest.approx(640)


def test_last_line_has_no_time_left(clock):
  shown, file = plain(clock, total=20, batch=1)
  shown.update(10, {})
  clock.now += 4
  shown.update(20, {})
  assert file.getvalue().splitlines()[-1] == '20/20  2.5 images/s'


def test_plain_lines_are_neither_wrapped_nor_styled(clock):
  shown, file = plain(clock)
  shown.message('[bold]:smile: ' + 97 * 'x')
  assert file.getvalue() == '[bold]:smile: ' + 97 * 'x' + '\n'


def test_other_processes_show_nothing(clock, capsys):
  with progress.Progress(20, 0, 1, enabled=False, clock=clock) as shown:
    shown.update(10, {'train/loss': 2.0})
    shown.message('evaluated')
  assert capsys.readouterr().out == ''


def test_terminal_has_a_bar_and_whole_messages_above_it(clock):
  file = io.StringIO()
  console = Console(
    file=file, force_terminal=True, width=80, legacy_windows=False, _environ={}
  )
  with progress.Progress(1600, 0, 128, console=console, clock=clock) as shown:
    shown.update(10, {'train/loss': 2.25, 'train/accuracy': 0.125})
    clock.now += 1
    shown.update(20, {'train/loss': 2.125, 'train/accuracy': 0.125})
    shown.message('test accuracy 97.8%')
  text = re.sub(r'\x1b\[[0-9;?]*[a-zA-Z]', '', file.getvalue())
  rows = [row.rstrip() for row in re.split(r'[\r\n]+', text)]
  assert 'test accuracy 97.8%' in rows
  last = [row for row in rows if row][-1]
  bar, text = last.split(maxsplit=1)
  assert len(bar) >= 3
  assert text == (
    '20/1,600  loss 2.1250, accuracy 12.50%  1,280 images/s  0:02:38 left'
  )
  assert len(last) <= 80


def test_bar_is_taken_down_when_the_run_fails(clock):
  file = io.StringIO()
  console = Console(
    file=file, force_terminal=True, width=80, legacy_windows=False, _environ={}
  )
  shown = progress.Progress(10, 0, 1, console=console, clock=clock)
  with pytest.raises(ValueError, match='the run'), shown:
    raise ValueError('the run')
  assert file.getvalue().endswith('\x1b[?25h')  # The cursor is back.
