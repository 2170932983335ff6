"""The command line: what it starts, and how it answers mistakes."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from vit_jax import main

ROOT = pathlib.Path(__file__).parents[1]
CONFIG = f'{ROOT}/configs/vit.py:tiny,digits'
# Seconds; the longest runs of one take a quarter of it.
TIMEOUT = 120


def run_python(*args, cwd, path=(), **env):
  """Runs Python with the package on its path; not through any cache."""
  return subprocess.run(
    [sys.executable, *args],
    cwd=cwd,
    env={
      **os.environ,
      'PYTHONPATH': os.pathsep.join([*map(str, path), str(ROOT)]),
      **env,
    },
    capture_output=True,
    text=True,
    timeout=TIMEOUT,
  )


def command(*args, cwd):
  return run_python('-m', 'vit_jax.main', *args, cwd=cwd)


def error_of(*args, cwd) -> str:
  """Returns the one message of a command that a mistake ends."""
  result = command(*args, cwd=cwd)
  assert result.returncode == 2, result.stderr
  assert result.stdout == ''
  assert result.stderr.startswith('error: ')
  assert 'Traceback' not in result.stderr
  return result.stderr.removeprefix('error: ')


@pytest.mark.parametrize(
  ('args', 'texts'),
  [
    (['--config.bse_lr=1'], ["'bse_lr'", "Did you mean 'base_lr'?"]),
    (
      ['--config.model.transformer.dropout_rte=0.1'],
      ['of config.model.transformer', "Did you mean 'dropout_rate'?"],
    ),
    (['--config.optimiser.name=sgd'], ["Did you mean 'optimizer'?"]),
    (['--config.base_lr.x=1'], ['base_lr is 0.0', "has no field 'x'"]),
    (['--config.base_lr=abc'], ['--config.base_lr=abc', 'float', 'as 0.0']),
    (['--config.batch', '0.5'], ['--config.batch=0.5', 'int', 'such as']),
    (['--config.pp=3'], ['config.pp', 'crop']),
    (
      ['--config.eval_sets.holdout.split=train[98%:]'],
      ['is one text', "--config.eval_sets='holdout=train[98%:]'"],
    ),
    (
      ['--config.eval_sets.v2', 'imagenet_v2:test'],
      ['NAME=DATASET:SPLIT', "--config.eval_sets='v2=imagenet_v2:test'"],
    ),
    (
      ['--config.eval_sets.v2.dataset=imagenet_v2'],
      ["--config.eval_sets='holdout=train[98%:],v2=imagenet_v2:test'"],
    ),
    (['--confg.batch=1'], ["'--confg'", "Did you mean '--config'?"]),
    (['--wrkdir=x'], ["Did you mean '--workdir'?"]),
    (['--mode=evalute'], ['train|evaluate']),
    (['--workdir'], ['Missing value', '--workdir']),
    (['config.batch=3'], ["Unexpected argument 'config.batch=3'"]),
  ],
  ids=lambda value: value[0] if value[0].startswith(('-', 'c')) else '',
)  # fmt: skip
def test_mistaken_flag_is_answered(args, texts, tmp_path):
  text = error_of('--config', CONFIG, *args, cwd=tmp_path)
  for expected in texts:
    assert expected in text


@pytest.mark.parametrize(
  ('argument', 'texts'),
  [
    ('vit.py:tny,digits', ["'tny'", "Did you mean 'tiny'?"]),
    ('vit.py:tiny,digts', ["'digts'", "Did you mean 'digits'?"]),
    ('vit.py', ['MODEL,DATASET', 'b16', 'cifar10']),
    ('augreg.py:R_Ti16', ["Did you mean 'R_Ti_16'?"]),
    ('vt.py:tiny,digits', ["No config file 'configs/vt.py'", 'vit.py']),
  ],
)
def test_mistaken_config_is_answered(argument, texts):
  text = error_of('--config', f'configs/{argument}', cwd=ROOT)
  for expected in texts:
    assert expected in text


def test_no_config(tmp_path):
  assert '--config configs/vit.py:tiny,digits' in error_of(cwd=tmp_path)
  assert '--config' in error_of('--workdir=x', '--config', cwd=tmp_path)


@pytest.mark.parametrize(
  ('body', 'texts'),
  [
    ('return lr', ["NameError: name 'lr' is not defined", 'mine.py, line 2']),
    ('return None', ['returned no ConfigDict']),
    ("return open('nowhere')", ['returned no ConfigDict']),
  ],
)
def test_broken_config_file_of_the_user(body, texts, tmp_path):
  (tmp_path / 'mine.py').write_text(f'def get_config():\n  {body}\n')
  result = command('--config=mine.py', cwd=tmp_path)
  assert result.returncode == 2
  assert 'Traceback' not in result.stderr
  for expected in texts:
    assert expected in result.stderr


def test_help(tmp_path):
  result = command('--help', cwd=tmp_path)
  assert result.returncode == 0
  assert result.stderr == ''
  for flag in ('--config:', '--workdir:', '--mode:'):
    assert flag in result.stdout


# These get as far as JAX, so the cases are few.


def test_missing_weights_are_named_with_the_command(tmp_path):
  data = f'--config.tfds_data_dir={tmp_path / "data"}'
  text = error_of(
    f'--config={ROOT}/configs/vit.py:b16,digits',
    data,
    '--config.pretrained_dir=gs://vit_models/imagenet21k',
    '--config.pp.crop=32',
    cwd=tmp_path,
  ).splitlines()
  file = 'vit_models/imagenet21k/ViT-B_16.npz'
  cached = f'{os.environ["VIT_JAX_CACHE"]}/storage.googleapis.com/{file}'
  assert "No weights for 'ViT-B_16'" in text[0]
  assert f'  {cached}' in text
  assert f'  gs://{file}: offline' in text
  (fetch,) = (line for line in text if 'curl' in line)
  assert fetch.split()[-2:] == [
    cached,
    f'https://storage.googleapis.com/{file}',
  ]
  assert {p.name for p in tmp_path.iterdir()} <= {'data', 'runs'}


def test_batch_that_is_not_divisible(tmp_path):
  text = error_of(
    '--config', CONFIG, '--config.batch=127', '--config.accum_steps=4',
    '--config.patience=-1', cwd=tmp_path,
  )  # fmt: skip
  assert 'config.batch=127 is not a multiple of' in text
  assert '124, 128' in text
  assert 'config.patience=-1 should not be negative' in text
  assert [*tmp_path.iterdir()] == []


TINY_RUN = (
  '--config.model.hidden_size=10',
  '--config.model.transformer.num_heads=2',
  '--config.model.transformer.mlp_dim=14',
  '--config.model.transformer.num_layers=1',
  '--config.pp.crop=8',
  '--config.pp.train=train[:101]',
  '--config.pp.test=test[:47]',
  '--config.batch=6',
  '--config.batch_eval=23',
  '--config.total_steps=4',
  '--config.warmup_steps=1',
  '--config.eval_every=2',
  '--config.checkpoint_every=3',
  '--config.progress_every=2',
)
# What some libraries import wherever it is installed.
FOREIGN = ('keras', 'tensorboard', 'tensorflow', 'torch', 'torchvision')
RUN_AND_TELL = """
import atexit, json, sys
from vit_jax import main

def tell():
  loaded = sorted({name.split('.')[0] for name in sys.modules})
  print('MODULES ' + json.dumps(loaded))

atexit.register(tell)
main.run()
"""


@pytest.fixture
def stubs(tmp_path):
  """Packages that anything can import, and that leave a file if it does."""
  for name in FOREIGN:
    package = tmp_path / 'stubs' / name
    package.mkdir(parents=True)
    (package / '__init__.py').write_text(
      f'open({str(tmp_path / "imported")!r}, "a").write({name!r} + "\\n")\n'
      '__version__ = "99.0"\n'
    )
  return tmp_path / 'stubs'


def test_training_imports_neither_tensorflow_nor_torch(stubs, tmp_path):
  data = f'--config.tfds_data_dir={tmp_path / "data"}'
  result = run_python(
    '-c', RUN_AND_TELL, '--config', CONFIG, *TINY_RUN, data,
    cwd=tmp_path, path=[stubs],
  )  # fmt: skip
  assert result.returncode == 0, result.stderr
  assert 'Traceback' not in result.stderr
  run = tmp_path / 'runs' / 'vit' / 'tiny,digits'
  last_line = (run / 'metrics.jsonl').read_text().splitlines()[-1]
  assert json.loads(last_line)['step'] == 4
  assert (run / 'model.npz').is_file()
  (line,) = re.findall('^MODULES (.*)$', result.stdout, re.MULTILINE)
  loaded = {*json.loads(line)}
  assert {'jax', 'orbax', 'tensorflow_datasets', 'matplotlib'} <= loaded
  assert not sorted(loaded & {*FOREIGN})
  imported = tmp_path / 'imported'
  assert not imported.exists(), imported.read_text()

  # The stubs would be found: otherwise this test could not fail.
  check = run_python('-c', 'import torch', cwd=tmp_path, path=[stubs])
  assert check.returncode == 0 and imported.read_text() == 'torch\n'

  # The same directory in another mode: no second training for it.
  result = command(
    '--config', CONFIG, *TINY_RUN, data, '--mode=evaluate', cwd=tmp_path
  )
  assert result.returncode == 0, result.stderr
  assert 'test/accuracy' in result.stdout
  assert str(pathlib.Path('runs/vit/tiny,digits/model.npz')) in result.stdout

  # All its checkpoints are damaged; TensorStore's threads answer late.
  (run / 'model.npz').unlink()
  for path in (run / 'checkpoints').glob('*/state/manifest.ocdbt'):
    path.write_bytes(b'')
  result = command('--config', CONFIG, *TINY_RUN, data, cwd=tmp_path)
  assert result.returncode == 2
  message, *found = result.stderr.splitlines()
  assert message.startswith('error: runs/vit/tiny,digits/checkpoints')
  assert '4' in ''.join(found) and 'Event loop' not in result.stderr


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3 B.', True),
    ('RESOURCE_EXHAUSTED: Failed to allocate request for 3 B.', True),
    ('RESOURCE_EXHAUSTED: Error writing "x": No space left on device', False),
    ('INTERNAL: out of memory of another kind', False),
  ],
)
def test_full_disk_is_not_out_of_memory(text, expected):
  assert main._is_out_of_memory(RuntimeError(text)) == expected


@pytest.mark.parametrize(
  ('argument', 'expected'),
  [
    ('configs/vit.py:tiny,digits', 'runs/vit/tiny,digits'),
    ('/some/where/augreg.py:R_Ti_16', 'runs/augreg/R_Ti_16'),
    ('vit.py:tiny,digits/0_to_4', 'runs/vit/tiny,digits_0_to_4'),
    ('vit.py:b16,/my/folder/', 'runs/vit/b16,_my_folder'),
    ('mine.py', 'runs/mine/'),
    ('mine.py:a:b', 'runs/mine/a:b'),
  ],
)
def test_default_workdir(argument, expected):
  assert main.default_workdir(argument) == expected


@pytest.mark.parametrize(
  ('argv', 'expected'),
  [
    (['main', '--config', 'a.py:x'], 'a.py:x'),
    (['main', '--config=a.py:x=1'], 'a.py:x=1'),
    (['main', '-config=a.py', '--config.batch=3'], 'a.py'),
    (['main', '--config=a.py', '--config', 'b.py'], 'b.py'),
    (['main', '--config'], ''),
    (['main', '--config.batch=3'], ''),
  ],
)
def test_config_argument_is_read_as_absl_does(argv, expected):
  assert main._config_argument(argv) == expected
