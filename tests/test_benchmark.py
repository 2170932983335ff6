"""The benchmark: its rows, its settings, what is refused and what fails."""

import json
import subprocess
import sys

import pytest

from configs import common
from scripts import benchmark
from vit_jax import errors
from vit_jax.benchmark import cases, rows

CASE = {
  'kind': 'train',
  'model': 'tiny',
  'batch': 6,
  'dtype': 'float32',
  'mesh': 'data=-1',
  'settings': 'model.transformer.num_layers=1 scan_layers=True remat=full',
  'compile_only': False,
  'image_size': 8,
  'num_classes': 5,
  'rounds': 3,
  'steps': 2,
  'accelerator': '',
}


def parse(monkeypatch, *options):
  monkeypatch.setattr(sys, 'argv', ['benchmark.py', *options])
  return benchmark._parser().parse_args()


def test_every_combination_is_a_row(monkeypatch):
  args = parse(
    monkeypatch, '--models=b16,l16', '--batches=3,5', '--dtypes=float32',
    '--meshes', 'data=8', 'data=2,fsdp=4', '--set', 'remat=full', 'x=1',
    '--set', 'remat=none',
  )  # fmt: skip
  found = benchmark.make_cases(args)
  assert len(found) == 2 * 2 * 2 * 2 * 2
  assert len({json.dumps(row) for row in found}) == len(found)
  assert {row['settings'] for row in found} == {'remat=full x=1', 'remat=none'}
  assert all({*row} == {*CASE} for row in found)


@pytest.mark.parametrize(
  ('option', 'expected'),
  [
    ('--kinds=infer', "Did you mean 'inference'?"),
    ('--batches=8x', "'8x' should be a whole number from 1"),
    ('--batches=8,', "'8,' has an empty part"),
    ('--batches=0', "'0' should be a whole number from 1"),
    ('--rounds=-1', "'-1' should be a whole number from 1"),
    ('--out=no/where/rows.json', 'is in no directory there is'),
  ],
)
def test_bad_option_is_refused(option, expected, monkeypatch, capsys):
  with pytest.raises(SystemExit) as stopped:
    parse(monkeypatch, option)
  assert stopped.value.code == 2
  assert expected in capsys.readouterr().err


def test_settings_reach_the_config():
  case = CASE | {'mesh': 'fsdp=4,tensor=2'}
  defaults = common.get_config()
  config = cases.configure(case, defaults)
  assert config.model.transformer.num_layers == 1
  assert config.scan_layers is True
  assert config.remat == 'full'
  assert config.mesh.to_dict() == {'data': 1, 'fsdp': 4, 'tensor': 2}
  assert (config.batch, config.pp.crop) == (6, 8)
  assert defaults.mesh.fsdp == 1


@pytest.mark.parametrize(
  ('edit', 'expected'),
  [
    ({'model': 'tinny'}, "Did you mean 'tiny'?"),
    ({'mesh': 'dat=2'}, "Did you mean 'mesh.data'?"),
    ({'mesh': 'data=x'}, "mesh.data='x' is of type str"),
    ({'mesh': 'data=None'}, 'config.mesh.data is not set'),
    ({'mesh': 'data=3'}, 'there are 2 devices'),
    ({'mesh': 'data=0'}, 'at least 1, or -1 for all devices'),
    ({'batch': 7}, 'config.batch=7 is not a multiple of 2'),
    ({'dtype': 'float23'}, "Did you mean 'float32'?"),
    ({'settings': 'rematt=full'}, "Did you mean 'remat'?"),
    ({'settings': 'remat=ful'}, "Did you mean 'full'?"),
    ({'settings': 'remat'}, "'remat' should be FIELD=VALUE"),
    ({'settings': 'scan_layers=yes'}, "scan_layers='yes' is of type str"),
    ({'accelerator': 'h1000'}, "Did you mean 'h100'?"),
  ],
)
def test_bad_combinations_are_found_before_any_is_measured(edit, expected):
  good = CASE | {'settings': ''}
  defaults = common.get_config()
  cases.check_cases([good, good | {'mesh': 'data=1'}], defaults, 2)
  with pytest.raises(errors.ConfigError) as refused:
    cases.check_cases([good, good | edit, good | edit], defaults, 2)
  assert str(refused.value).count(expected) == 1


def run_main(monkeypatch, found, *options):
  """Returns the exit status, and the models of the rows that were run."""
  run = []

  def run_case(script, case, timeout):
    run.append(case['model'])
    return found

  monkeypatch.setattr(rows, 'run_case', run_case)
  monkeypatch.setattr(rows, 'count_devices', lambda: 1)
  parse(monkeypatch, '--kinds=train', *options)
  return benchmark.main(), run


def test_exit_status_says_whether_rows_failed(monkeypatch, tmp_path, capsys):
  out = tmp_path / 'rows.json'
  options = ('--models=tiny,s16', f'--out={out}')
  both = ['tiny', 's16']
  assert run_main(monkeypatch, {'step_ms': 1.0}, *options) == (0, both)
  assert run_main(monkeypatch, {'error': 'no'}, *options) == (1, both)
  assert [row['error'] for row in json.loads(out.read_text())] == ['no', 'no']
  capsys.readouterr()
  assert run_main(monkeypatch, {}, '--models=tiny,tinny') == (2, [])
  assert capsys.readouterr().err.startswith('error: Nothing is measured')


@pytest.mark.parametrize(
  ('status', 'stderr', 'expected'),
  [
    (1, 'x\nRESOURCE_EXHAUSTED: Out of memory\n at y', 'out of memory'),
    (-9, '', 'out of memory'),
    (1, 'Traceback\nConfigError: no\n  config.x=1\n\n', 'config.x=1'),
    (3, '', 'status 3'),
  ],
)
def test_failure_is_a_row(status, stderr, expected, monkeypatch):
  done = subprocess.CompletedProcess([], status, '', stderr)
  monkeypatch.setattr('subprocess.run', lambda *args, **kwargs: done)
  row = CASE | rows.run_case('benchmark.py', CASE, 1)
  assert row['error'] == expected
  assert f'| {expected} |' in rows.table([row])
  with pytest.raises(errors.ConfigError, match='JAX finds no devices'):
    rows.count_devices()


def test_time_out_is_a_row(monkeypatch):
  def run(*args, timeout, **kwargs):
    raise subprocess.TimeoutExpired(args, timeout)

  monkeypatch.setattr('subprocess.run', run)
  found = rows.run_case('benchmark.py', CASE, 7)
  assert found == {'error': 'more than 7 s'}


def test_row_is_measured():
  row = rows.run_case(benchmark.__file__, CASE, 240)
  assert 'error' not in row
  low, high = row['step_ms_range']
  assert 0 < low <= row['step_ms'] <= high
  assert row['images_per_sec'] == pytest.approx(6_000 / row['step_ms'])
  assert 0 < row['mfu'] < 1
  assert row['compile_s'] > 0
  assert row['peak_mb'] > row['compiled_mb'] > row['planned_mb'] / 3 > 0
  heading = rows.table([CASE | row]).splitlines()[0]
  assert 'MFU' in heading and 'error' not in heading
