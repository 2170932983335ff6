"""What `scripts/inspect_checkpoint.py` prints, for people and for programs."""

import json
import sys

import numpy as np
import parity
import pytest

from scripts import inspect_checkpoint


@pytest.fixture
def run(monkeypatch, capsys):
  """Gives the arguments -> (exit status, standard output, standard error)."""

  def call(*args):
    monkeypatch.setattr(sys, 'argv', ['inspect_checkpoint.py', *map(str, args)])
    status = inspect_checkpoint.main()
    return status, *capsys.readouterr()

  return call


def rows_of(text):
  return dict(line.split('  ', 1) for line in text.splitlines() if '  ' in line)


def test_table(run, checkpoint_file):
  status, out, err = run(checkpoint_file('mini-hybrid'))
  assert (status, err) == (0, '')
  lines = out.splitlines()
  assert len({len(line) - len(line[20:].lstrip()) for line in lines[:5]}) == 1
  rows = {key: value.strip() for key, value in rows_of(out).items()}
  assert rows['family'] == 'hybrid'
  assert rows['model'] == 'none known; the nearest is R+ViT-Ti_16'
  assert rows['patch'] == "1 x 1 of the stem's output, 16 x 16 pixels"
  assert rows['heads'] == '3'
  assert rows['ResNet stages'] == '2, 1, 2; width factor 0.5'
  assert rows['grid'] == '4 x 4'
  assert rows['image size'] == '64 x 64 pixels, from the grid'
  assert rows['head'] == '10 classes'
  assert rows['parameters'] == '860,570'
  assert len(rows['SHA-256']) == 64
  assert lines[-2] == 'fine-tune with'
  assert lines[-1].startswith('  python -m vit_jax.main --config configs/vit')


def test_table_of_a_mixer_has_what_a_mixer_has(run, checkpoint_file):
  _, out, _ = run(checkpoint_file('mini-mixer'))
  rows = rows_of(out)
  assert rows['token-mixing width'].strip() == '24'
  assert not rows.keys() & {'heads', 'pooling', 'ResNet stages'}
  assert '--config configs/mixer.py:' in out and '--config.pp.crop=32' in out


def test_zero_head_and_optimizer_state_are_pointed_out(run, tmp_path):
  arrays = parity.make_checkpoint(parity.layout('mini-vit'), 0)
  arrays['head/kernel'][:] = 0
  state = {f'opt/target/{key}': value for key, value in arrays.items()}
  np.savez(tmp_path / 'state.npz', **state, **{'opt/state/step': np.int32(3)})
  rows = rows_of(run(tmp_path / 'state.npz')[1])
  assert rows['head'].endswith('10 classes, all zeros: to be fine-tuned first')
  assert rows['optimiser state'].strip() == 'yes'


def test_json_of_several_files(run, checkpoint_file):
  names = ('mini-vit', 'mini-mixer')
  status, out, _ = run('--json', *map(checkpoint_file, names))
  assert status == 0
  vit, mixer = map(json.loads, out.splitlines())
  assert vit.keys() == mixer.keys()
  assert vit['family'] == 'ViT' and mixer['family'] == 'Mixer'
  assert vit['grid'] == [8, 8] and vit['zero_head'] is False
  assert mixer['num_heads'] is None


def test_name_in_the_cache(run, tmp_path, checkpoint_file, monkeypatch):
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path))
  data = checkpoint_file('mini-vit').read_bytes()
  (tmp_path / 'my-vit.npz').write_bytes(data)
  status, out, _ = run('my-vit')
  assert status == 0 and str(tmp_path / 'my-vit.npz') in out


def test_mistakes_are_messages_and_the_rest_is_told(
  run, tmp_path, checkpoint_file
):
  (tmp_path / 'broken.npz').write_bytes(b'PK and no more')
  status, out, err = run(
    tmp_path / 'broken.npz', checkpoint_file('mini-vit'), tmp_path / 'none.npz'
  )
  assert status == 2 and 'mini-vit' in out
  assert err.count('error: ') == 2 and 'Traceback' not in err
  assert 'broken.npz' in err and 'none.npz' in err


def test_json_of_what_can_not_be_told(run, tmp_path, checkpoint_file):
  path = tmp_path / 'broken.npz'
  path.write_bytes(b'PK and no more')
  status, out, err = run('--json', path, checkpoint_file('mini-vit'))
  broken, whole = map(json.loads, out.splitlines())
  assert status == 2 and err == ''
  assert broken.keys() == {'path', 'error'}
  assert broken['path'] == str(path) and str(path) in broken['error']
  assert whole['family'] == 'ViT'


@pytest.mark.parametrize('text', ['-4', '0', 'x', '1.5'])
def test_heads_are_a_positive_number(run, checkpoint_file, capsys, text):
  with pytest.raises(SystemExit) as caught:
    run(f'--num_heads={text}', checkpoint_file('mini-vit'))
  assert caught.value.code == 2
  assert f'{text!r} should be a whole number from 1' in capsys.readouterr().err


def test_help_names_what_a_file_can_be(run, capsys):
  with pytest.raises(SystemExit) as caught:
    run('--help')
  assert caught.value.code == 0
  assert 'run directory' in capsys.readouterr().out
