"""Weights that go from one format to others and come back to the same bits."""

import os
import shlex
import sys

import ml_dtypes
import numpy as np
import parity
import pytest
from trees import flat

from scripts import convert_checkpoint
from vit_jax import checkpoints
from vit_jax.checkpoints import safetensors
from vit_jax.checkpoints.digest import file_digest
from vit_jax.checkpoints.names import timm
from vit_jax.inspection import describe

MINIS = (*parity.MINI_VITS, 'mini-mixer')


@pytest.fixture
def run(monkeypatch, capsys):
  """Gives the arguments -> (exit status, standard output, standard error)."""

  def call(*args):
    monkeypatch.setattr(sys, 'argv', ['convert_checkpoint.py', *map(str, args)])
    status = convert_checkpoint.main()
    return status, *capsys.readouterr()

  return call


@pytest.mark.parametrize('name', MINIS)
def test_to_safetensors_and_back_is_bit_exact(
  run, tmp_path, checkpoint_file, name
):
  source = checkpoint_file(name)
  middle, back = tmp_path / 'middle.safetensors', tmp_path / 'back.npz'
  for args in ((source, middle), (middle, back)):
    status, out, err = run(*args)
    assert (status, err) == (0, '')
    assert 'largest difference 0, 0 of' in out
  assert describe(middle).names == 'timm'
  assert back.read_bytes() == source.read_bytes()


def test_file_does_not_replace_a_pipe(run, tmp_path, checkpoint_file):
  pipe = tmp_path / 'pipe.npz'
  os.mkfifo(pipe)
  args = (checkpoint_file('mini-mixer'), pipe, '--overwrite')
  status, _, err = run(*args)
  assert (
    status == 2 and f'{pipe}: the weights can not be written (is a d' in err
  )
  assert [*tmp_path.iterdir()] == [pipe] and pipe.is_fifo()


def test_bfloat16_stays_bfloat16(run, tmp_path):
  arrays = {
    key: value.astype(ml_dtypes.bfloat16)
    for key, value in parity.make_checkpoint(
      parity.layout('mini-vit-gap'), 0
    ).items()
  }
  source, back = tmp_path / 'in.npz', tmp_path / 'back.npz'
  np.savez(source, **arrays)
  for args in (
    (source, tmp_path / 'middle.safetensors'),
    (tmp_path / 'middle.safetensors', back),
  ):
    status, out, _ = run(*args)
    assert status == 0 and 'largest difference 0, 0 of' in out
  assert describe(back).dtypes == ('bfloat16',)
  with np.load(back) as file:
    assert all(file[key].tobytes() == arrays[key].tobytes() for key in arrays)


def test_what_is_printed(run, tmp_path, checkpoint_file):
  source, target = checkpoint_file('mini-vit'), tmp_path / 'a.safetensors'
  _, out, _ = run(source, target, '--names', 'transformers')
  read, written, digest, compared = out.splitlines()
  assert str(source) in read and 'ViT (like small_8)' in read
  assert str(target) in written and 'names of transformers' in written
  assert digest.split() == ['SHA-256', file_digest(target)]
  assert 'logits of 2 random images, 64 x 64 pixels' in compared


@pytest.mark.parametrize('there', [False, True])
def test_directory_gets_a_model_npz(run, tmp_path, checkpoint_file, there):
  run_dir = tmp_path / 'runs' / 'mine'
  if there:
    run_dir.mkdir(parents=True)
  status, out, _ = run(checkpoint_file('mini-vit-gap'), run_dir)
  assert status == 0 and str(run_dir / 'model.npz') in out
  status, _, _ = run(run_dir, tmp_path / 'back.npz')
  wanted = checkpoint_file('mini-vit-gap').read_bytes()
  assert status == 0 and (tmp_path / 'back.npz').read_bytes() == wanted


def test_zero_head_is_compared_by_its_features(run, tmp_path):
  arrays = parity.make_checkpoint(parity.layout('mini-vit-gap'), 0)
  arrays['head/kernel'][:] = 0
  np.savez(tmp_path / 'zero.npz', **arrays)
  _, out, _ = run(tmp_path / 'zero.npz', tmp_path / 'out.npz')
  assert 'compared  logits' in out and 'compared  features' in out


def test_file_without_head_or_grid(run, tmp_path):
  """Of a Mixer for images that are no square."""
  arrays = parity.make_checkpoint(parity.layout('mini-mixer'), 0)
  arrays = {k: v for k, v in arrays.items() if not k.startswith('head/')}
  for key in arrays:
    if '/token_mixing/Dense_0/kernel' in key:
      arrays[key] = arrays[key][:6]
    elif '/token_mixing/Dense_1/' in key:
      arrays[key] = arrays[key][..., :6]
  np.savez(tmp_path / 'in.npz', **arrays)
  status, out, _ = run(tmp_path / 'in.npz', tmp_path / 'out.safetensors')
  assert status == 0
  assert 'features of 2 random images, 8 x 48 pixels' in out


def test_other_image_size(run, tmp_path, checkpoint_file):
  source = checkpoint_file('mini-vit-gap')
  _, out, _ = run(source, tmp_path / 'out.npz', '--image_size', 16)
  assert '16 x 16 pixels: largest difference 0,' in out


def test_a_difference_is_an_error(run, tmp_path, checkpoint_file, monkeypatch):
  save = checkpoints.save_params

  def save_other(params, path, **kwargs):
    params['head'] = {k: v * 1.001 for k, v in params['head'].items()}
    save(params, path, **kwargs)

  monkeypatch.setattr(checkpoints, 'save_params', save_other)
  source = checkpoint_file('mini-vit-gap')
  status, out, err = run(source, tmp_path / 'out.npz')
  assert status == 1 and 'other weights' in err
  assert ', 0.001 of the largest value' in out


def test_heads_that_the_written_file_does_not_say(
  run, tmp_path, checkpoint_file, monkeypatch
):
  """Nobody who gets the file has the source to ask."""

  def save_without_metadata(params, path, **_):
    arrays = timm.from_ours(flat(params))
    with open(path, 'wb') as file:
      safetensors.write_safetensors(arrays, file, {})

  monkeypatch.setattr(checkpoints, 'save_params', save_without_metadata)
  source, target = checkpoint_file('mini-vit'), tmp_path / 'out.safetensors'
  status, out, err = run(source, target)
  assert status == 2 and 'compared' not in out
  assert f'{target}: the file does not say into how many attention' in err
  status, out, _ = run(source, target, '--overwrite', '--num_heads', 3)
  assert status == 0 and 'largest difference 0, 0 of' in out
  status, out, err = run(source, target, '--overwrite', '--num_heads', 4)
  assert status == 1 and 'other weights' in err


def test_other_head_is_an_error(run, tmp_path, checkpoint_file, monkeypatch):
  save = checkpoints.save_params

  def save_without_head(params, path, **kwargs):
    del params['head']
    save(params, path, **kwargs)

  monkeypatch.setattr(checkpoints, 'save_params', save_without_head)
  source = checkpoint_file('mini-vit-gap')
  status, out, _ = run(source, tmp_path / 'out.npz')
  assert status == 1 and 'largest difference inf' in out


@pytest.mark.parametrize('text', ['-4', '0', 'x', '4.5'])
def test_image_size_is_a_positive_number(
  run, tmp_path, checkpoint_file, capsys, text
):
  with pytest.raises(SystemExit) as caught:
    source = checkpoint_file('mini-vit-gap')
    run(source, tmp_path / 'out.npz', f'--image_size={text}')
  assert caught.value.code == 2
  assert f'{text!r} should be a whole number from 1' in capsys.readouterr().err


def test_image_smaller_than_a_patch(run, tmp_path, checkpoint_file):
  source = checkpoint_file('mini-vit-gap')
  status, _, err = run(source, tmp_path / 'out.npz', '--image_size', 3)
  assert status == 2 and err.startswith('error: ')
  assert not (tmp_path / 'out.npz').exists()


def test_examples_of_the_help_work(
  run, tmp_path, checkpoint_file, monkeypatch, capsys
):
  """With a model of the kind that each is of."""
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit):
    run('--help')
  text = capsys.readouterr().out.replace('\\\n', '')
  words = [
    shlex.split(line)[2:]
    for line in text.splitlines()
    if line.startswith('  python scripts/')
  ]
  assert len(words) == 3
  kinds = {'runs/vit/tiny,digits': 'mini-vit-gap', 'ViT-B_16.npz': 'mini-vit'}
  for name, kind in kinds.items():
    path = tmp_path / name
    path = path if path.suffix == '.npz' else path / 'model.npz'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(checkpoint_file(kind).read_bytes())
  for args in words:
    assert run(*args)[0] == 0


def test_nothing_is_overwritten_unasked(run, tmp_path, checkpoint_file):
  source, target = checkpoint_file('mini-vit-gap'), tmp_path / 'out.npz'
  target.write_bytes(b'dear')
  status, _, err = run(source, target)
  assert status == 2 and '--overwrite' in err
  assert target.read_bytes() == b'dear'
  assert run(source, target, '--overwrite')[0] == 0
  assert target.read_bytes() == source.read_bytes()
  status, _, err = run(target, target, '--overwrite')
  assert status == 2 and 'the file that is to be converted' in err


def test_unknown_suffix_is_refused(run, tmp_path, checkpoint_file):
  status, _, err = run(checkpoint_file('mini-vit-gap'), tmp_path / 'out.pth')
  assert status == 2 and "'.pth' is no format to write" in err


def test_weights_that_fit_no_model_are_not_written(run, tmp_path):
  arrays = parity.make_checkpoint(parity.layout('mini-vit-gap'), 0)
  np.savez(tmp_path / 'in.npz', **arrays, **{'decoder/kernel': np.ones(2)})
  status, _, err = run(tmp_path / 'in.npz', tmp_path / 'out.npz')
  assert status == 2 and 'decoder/kernel' in err
  assert not (tmp_path / 'out.npz').exists()
