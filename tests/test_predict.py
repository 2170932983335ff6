"""Labels of images: the model's own probabilities, whatever else is there."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading

import file_server
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scripts import predict as script
from vit_jax import class_names, errors, predict, trained
from vit_jax.checkpoints.standing import Standing
from vit_jax.checkpoints.state import StateCheckpoints
from vit_jax.data import images
from vit_jax.predict import predicting

NAMES = [f'name {i}' for i in range(10)]


@pytest.fixture
def run(monkeypatch, capsys):
  """Gives the arguments -> (exit status, standard output, standard error)."""

  def call(*args):
    monkeypatch.setattr(sys, 'argv', ['predict.py', *map(str, args)])
    status = script.main()
    return status, *capsys.readouterr()

  return call


@pytest.fixture
def checkpoint(mini, tmp_path):
  """A run with names of its classes."""
  path = tmp_path / 'run'
  path.mkdir()
  shutil.copy(mini('mini-vit').path, path / 'model.npz')
  (path / 'labels.json').write_text(json.dumps(NAMES))
  return path


def probabilities_of(case, names, fit):
  """Returns what the model says of images, one after the other."""
  size = (case.image_size, case.image_size)
  pixels = [
    images.fit_image(images.read_image(str(name)), size, fit) for name in names
  ]
  batch = (np.stack(pixels).astype('f4') - 127.5) / 127.5
  logits = np.asarray(case.apply(case.params, batch)[0], 'f8')
  shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return shares / shares.sum(axis=-1, keepdims=True)


# --- The library -------------------------------------------------------------


@pytest.mark.parametrize(
  ('name', 'fit', 'batch'),
  [
    ('mini-vit', 'squash', 2),
    ('mini-vit', 'pad', 100),
    ('mini-mixer', 'crop', 1),
    ('mini-hybrid', 'squash', 3),
  ],
)
def test_probabilities_are_those_of_the_model(mini, photos, name, fit, batch):
  case = mini(name)
  opened = trained.load(str(case.path), case.image_size)
  names = [str(photo) for photo in photos]
  found = [*predict.predict(opened, names, batch=batch, fit=fit)]
  assert [each.image for each in found] == names
  np.testing.assert_allclose(
    np.stack([np.asarray(each.probabilities) for each in found]),
    probabilities_of(case, photos, fit),
    rtol=1e-4,
  )


def test_likeliest_classes_come_first():
  shares = np.array([0.1, 0.3, 0.2, 0.3, 0.1], 'f4')
  prediction = predict.Prediction('a.png', shares)
  assert [i for i, _ in prediction.top(3)] == [1, 3, 2]
  assert prediction.top(1)[0][1] == pytest.approx(0.3)
  assert len(prediction.top(9)) == 5
  equal = predict.Prediction('a.png', np.full(1000, 1e-3, 'f4'))
  assert [i for i, _ in equal.top(3)] == [0, 1, 2]


def test_batches_come_as_they_are_done(mini, photos, monkeypatch):
  opened = trained.load(str(mini('mini-vit').path))
  read = []
  monkeypatch.setattr(
    images,
    'read_image',
    lambda name: read.append(name) or np.zeros((9, 9, 3), 'u1'),
  )
  found = predict.predict(opened, [f'{i}.png' for i in range(9)], batch=2)
  assert next(found).image == '0.png'
  assert len(read) <= 4  # And the next batch.
  found.close()


def test_the_end_of_a_program_waits_for_no_image(mini, monkeypatch):
  opened = trained.load(str(mini('mini-vit').path))
  readers = []

  def read(name):
    readers.append(threading.current_thread())
    return np.zeros((9, 9, 3), 'u1')

  monkeypatch.setattr(images, 'read_image', read)
  names = [f'{i}.png' for i in range(23)]
  found = [*predict.predict(opened, names, batch=11)]
  assert [each.image for each in found] == names
  assert len(readers) == 23 and all(each.daemon for each in readers)


def test_who_stops_early_reads_no_more(mini, monkeypatch):
  opened = trained.load(str(mini('mini-vit').path))
  may_read, readers = threading.Event(), []

  def read(name):
    readers.append(threading.current_thread())
    if len(readers) > 20:
      may_read.wait(60)
    return np.zeros((9, 9, 3), 'u1')

  monkeypatch.setattr(images, 'read_image', read)
  found = predict.predict(opened, [f'{i}.png' for i in range(40)], batch=20)
  next(found)
  found.close()
  may_read.set()
  for each in {*readers}:
    each.join(60)
  assert len(readers) <= 20 + predicting._THREADS


def test_guessed_names_are_said_to_be_guessed(mini):
  opened = trained.load(str(mini('mini-vit').path))
  guess = class_names.Names(NAMES, 'ImageNet', is_guess=True)
  opened = dataclasses.replace(opened, names=guess)
  named, (remark,) = predict.with_names(opened)
  assert remark.startswith('The classes are named as those of ImageNet')
  assert named.class_names == NAMES


def test_mistakes_of_ours_are_not_swallowed(mini, monkeypatch):
  opened = trained.load(str(mini('mini-vit').path))
  monkeypatch.setattr(images, 'read_image', lambda name: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    next(predict.predict(opened, ['a.png', 'b.png']))


@pytest.mark.parametrize('number', ['nan', 'inf'])
def test_results_that_are_no_numbers_are_an_error(mini, photos, number):
  opened = trained.load(str(mini('mini-vit').path))
  opened.params['head']['bias'] = np.full(10, float(number), 'f4')
  (found,) = predict.predict(opened, [str(photos[0])])
  assert 'NaN or infinite values' in found.error
  assert found.probabilities is None


@pytest.mark.parametrize(
  ('settings', 'text'),
  [({'batch': 0}, 'batch 0'), ({'fit': 'squahs'}, "Did you mean 'squash'")],
)
def test_settings_that_can_not_be(mini, settings, text):
  opened = trained.load(str(mini('mini-vit').path))
  with pytest.raises(errors.ConfigError, match=text):
    predict.predict(opened, ['a.png'], **settings)


# --- The command -------------------------------------------------------------


def test_table(run, checkpoint, photos, mini):
  status, out, err = run(
    '--checkpoint', checkpoint, photos[0].parent, '--top_k', 2
  )
  assert (status, err) == (0, '')
  head, *rows = out.splitlines()
  assert head.split() == ['image', 'probability', 'class'] and len(rows) == 6
  shares = probabilities_of(mini('mini-vit'), photos, 'squash')
  for row, photo, share in zip(rows[::2], photos, shares, strict=True):
    top = int(share.argmax())
    assert row.startswith(str(photo)[-40:]) or photo.name in row
    assert row.endswith(f'{share[top]:.2%}  name {top} ({top})')


def test_json_lines_are_all_that_is_printed(run, checkpoint, photos):
  (photos[0].parent / 'photo1.png').write_bytes(b'\x89PNG\r\n')
  status, out, err = run(
    *('--checkpoint', checkpoint, photos[0].parent, 'nothing.png'),
    *('--format', 'jsonl', '--top_k', 99, '--batch', 10**9),
  )
  assert status == 1
  lines = [json.loads(line) for line in out.splitlines()]
  assert [line['image'] for line in lines] == [str(photos[0]), str(photos[2])]
  for line in lines:
    shares = [each['probability'] for each in line['top']]
    assert shares == sorted(shares, reverse=True) and len(shares) == 10
    assert sum(shares) == pytest.approx(1)
    assert {each['name'] for each in line['top']} == {*NAMES}
  first, second = err.splitlines()
  assert first.startswith('error: ') and 'photo1.png' in first
  assert second.startswith('error: nothing.png: there is no such file')


def test_address(run, checkpoint, photos, monkeypatch):
  monkeypatch.delenv('VIT_JAX_OFFLINE')
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  with file_server.serve() as server:
    url = server.give('/a b.png', file_server.Answer(photos[0].read_bytes()))
    args = ('--checkpoint', checkpoint, '--format', 'jsonl', '--batch', 1)
    status, out, err = run(*args, url, f'{server.address}/nothing.png')
  assert status == 1 and err.count('\n') == 1 and '/nothing.png' in err
  (line,) = map(json.loads, out.splitlines())
  _, wanted, _ = run(*args, photos[0])
  assert line['top'] == json.loads(wanted)['top']
  assert line['image'] == url


def test_run_under_way(run, mini, photos, tmp_path):
  case = mini('mini-vit')
  path = tmp_path / 'started'
  state = {'params': jax.tree.map(jnp.asarray, case.params)}
  with StateCheckpoints(path / 'checkpoints', 1, None) as saved:
    saved.save(3, state | {'step': jnp.int32(3)}, Standing(), None)
  (path / 'labels.json').write_text(json.dumps(NAMES))
  args = (photos[0], '--format', 'jsonl', '--checkpoint')
  status, out, _ = run(*args, path)
  top = json.loads(out)['top']
  assert status == 0 and top[0]['name'] in NAMES
  _, wanted, _ = run(*args, case.path)
  assert top[0]['probability'] == json.loads(wanted)['top'][0]['probability']


def test_odd_file_names(run, checkpoint, photos):
  folder = photos[0].parent
  odd = [os.fsdecode(b'\xff.png'), 'a\nb.png', '-x.png']
  for photo, name in zip(photos, odd, strict=True):
    photo.rename(folder / name)
  args = ('--checkpoint', checkpoint, folder, '--top_k', 1)
  status, out, _ = run(*args, '--format', 'jsonl')
  found = [json.loads(line)['image'] for line in out.splitlines()]
  assert status == 0 and {*found} == {str(folder / name) for name in odd}
  status, out, _ = run(*args)
  assert status == 0 and len(out.splitlines()) == 4
  out.encode()  # What a terminal can show.


def test_ids_of_imagenet_are_told(run, checkpoint, photos):
  names = ['n01440764', *NAMES[1:9], 'n01443537']
  (checkpoint / 'labels.json').write_text(json.dumps(names))
  args = ('--checkpoint', checkpoint, photos[0], '--format', 'jsonl')
  _, out, _ = run(*args, '--top_k', 10)
  found = {each['class']: each for each in json.loads(out)['top']}
  assert found[0]['name'] == 'tench' and found[0]['wnid'] == 'n01440764'
  assert found[9]['name'] == 'goldfish' and 'wnid' not in found[1]


def test_names_that_are_not_known_or_given(run, mini, photos, tmp_path):
  args = ('--checkpoint', mini('mini-vit').path, photos[0], '--top_k', 1)
  _, out, err = run(*args)
  assert err.startswith('note: The names of the classes are not known')
  assert ' class ' in out.splitlines()[1]
  labels = tmp_path / 'names.txt'
  labels.write_text('\n'.join(NAMES))
  status, out, err = run(*args, '--labels', labels)
  assert (status, err) == (0, '') and ' name ' in out.splitlines()[1]


def test_other_sizes(run, checkpoint, photos):
  args = ('--checkpoint', checkpoint, photos[0])
  assert run(*args, '--image_size', '32x48')[0] == 0
  status, _, err = run(*args, '--image_size', '32x')
  assert status == 2 and err.startswith("error: image size '32x'")


@pytest.mark.parametrize('what', ['empty', 'nothing.npz'])
def test_mistakes_are_one_message(run, checkpoint, photos, tmp_path, what):
  (tmp_path / 'empty').mkdir()
  if what == 'empty':
    args = ('--checkpoint', checkpoint, tmp_path / what)
  else:
    args = ('--checkpoint', tmp_path / what, photos[0])
  status, out, err = run(*args)
  assert (status, out) == (2, '') and err.startswith('error: ')
  assert str(tmp_path / what) in err


def test_closed_pipe_ends_quietly(checkpoint, photos):
  root = pathlib.Path(script.__file__).parents[1]
  command = [sys.executable, 'scripts/predict.py', '--checkpoint', checkpoint]
  with subprocess.Popen(
    [*command, *photos, '--batch', '1'],
    cwd=root,
    env={**os.environ, 'PYTHONPATH': str(root)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # As `head -0` does.
    assert process.stderr.read() == ''
  assert process.returncode == 141
