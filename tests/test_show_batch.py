"""The sheet of `scripts/show_batch.py`, and what it says of mistakes."""

import os
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

from configs import vit
from scripts import show_batch
from vit_jax import figures, train_step
from vit_jax.data import pipeline, sources


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return str(tmp_path_factory.mktemp('tfds'))


@pytest.fixture
def config(data_dir):
  config = vit.get_config('tiny,digits')
  config.tfds_data_dir = data_dir
  config.pp.update(train='train[:101]', crop=8)
  config.update(batch=6, accum_steps=2, num_threads=0, cutmix_alpha=1.0)
  return config


def test_images_are_the_inputs_of_the_step(config):
  images, captions = show_batch.batch_of(config, step=3, num=5)
  source = sources.load_source(config, config.pp.train)
  host_batch = next(pipeline.train_batches(config, 2, source))
  make_inputs = train_step.make_inputs(config, 10, cropped=False)
  inputs, targets = make_inputs(
    train_step.run_keys(config.seed)[1], 2, host_batch
  )
  assert images.dtype == np.uint8
  np.testing.assert_allclose(images / 127.5 - 1, inputs[:5], atol=0.5 / 127)
  for text, target, label in zip(
    captions, targets, host_batch['label'], strict=False
  ):
    assert str(label) in text
    assert text.count('\n') + 1 == (np.asarray(target) > 0.005).sum()


@pytest.mark.parametrize(
  ('target', 'expected'),
  [
    ([0, 1, 0], 'dog'),
    ([0.002, 0, 0.998], 'axolotl'),
    ([0.3, 0.7, 0], 'dog 70%\ncat 30%'),
    ([0.5, 0, 0.5], 'cat 50%\naxolotl 50%'),
  ],
)
def test_captions_name_classes_and_shares(target, expected):
  names = ['cat', 'dog', 'axolotl']
  assert show_batch.caption(np.array(target), names) == expected


def test_sheet_does_not_replace_a_pipe(tmp_path):
  pipe = tmp_path / 'pipe.png'
  os.mkfifo(pipe)
  image = np.zeros((1, 8, 8, 3), np.uint8)
  with pytest.raises(OSError, match='is a device, a pipe'):
    figures.plot_batch(image, ['a'], pipe, 'title')
  assert [*tmp_path.iterdir()] == [pipe] and pipe.is_fifo()


@pytest.mark.parametrize('num_images', [1, 11])
def test_every_image_is_on_the_sheet(num_images, tmp_path):
  colours = np.arange(num_images)[:, None] * [5, 3, 7] + [40, 90, 10]
  images = np.tile(colours[:, None, None].astype(np.uint8), (1, 13, 17, 1))
  path = tmp_path / 'sheet.png'
  figures.plot_batch(images, ['a $ label\nof two lines'] * num_images, path)
  with PIL.Image.open(path) as opened:
    sheet = np.asarray(opened.convert('RGB'))
  counts = [(sheet == colour).all(axis=-1).sum() for colour in colours]
  assert min(counts) == max(counts)
  assert counts[0] % (13 * 17) == 0  # Each pixel is so many of the sheet's.
  assert counts[0] > 100 * 100


def _run(*args, root):
  return subprocess.run(
    [sys.executable, 'scripts/show_batch.py', *args],
    cwd=root,
    env=os.environ | {'PYTHONPATH': str(root)},
    capture_output=True,
    text=True,
    timeout=300,
  )


def test_command_writes_a_sheet(data_dir, tmp_path, pytestconfig):
  path = tmp_path / 'sheet.png'
  done = _run(
    '--config=configs/vit.py:tiny,digits',
    f'--out={path}',
    '--step=2',
    '--num=3',
    '--config.batch=4',
    f'--config.tfds_data_dir={data_dir}',
    root=pytestconfig.rootpath,
  )
  assert (done.returncode, done.stdout) == (0, f'{path}\n'), done.stderr
  with PIL.Image.open(path) as sheet:
    assert sheet.width > 400


@pytest.mark.parametrize(
  ('args', 'expected'),
  [
    (['--out=sheet.jpg'], "--out 'sheet.jpg' is no file that can be written"),
    (['--out=a.png', '--num=0'], '--num 0 is not positive'),
    (['--out=no/such/a.png'], 'no/such/a.png: No such file'),
    (['--ot=a.png'], "Did you mean '--out'? Valid: --config, --config.FIELD, "),
    (
      ['--out=a.png', '--config.pp.preset=mediun1'],
      "Did you mean 'medium1'?",
    ),
  ],
)
def test_mistakes_are_one_line(args, expected, data_dir, pytestconfig):
  done = _run(
    '--config=configs/vit.py:tiny,digits',
    f'--config.tfds_data_dir={data_dir}',
    *args,
    root=pytestconfig.rootpath,
  )
  assert done.returncode == 2
  assert done.stderr.startswith('error: ')
  assert expected in done.stderr
  # Those of a config are a list.
  is_list = 'config can not work:' in done.stderr
  assert len(done.stderr.splitlines()) == 1 + is_list
