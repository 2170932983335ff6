"""Which AugReg file a model's name stands for."""

import csv
import sys

import file_server
import pytest
from file_server import Answer, touch
from ml_collections import ConfigDict

from vit_jax import errors
from vit_jax.checkpoints import augreg, locate
from vit_jax.checkpoints.remote import patience

# As published (the original's notebook prints them), with a row for each
# fine-tuning of each file.
COLUMNS = [
  *('name', 'ds', 'epochs', 'lr', 'aug', 'wd', 'do', 'sd'),
  *('best_val', 'final_val', 'final_test'),
  *('adapt_ds', 'adapt_lr', 'adapt_steps', 'adapt_resolution'),
  *('adapt_final_val', 'adapt_final_test', 'params', 'infer_samples_per_sec'),
  *('filename', 'adapt_filename'),
]
BEST = 'R_Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03-do_0.0-sd_0.0'
ROWS = [
  # (filename, ds, final_val, adapt_final_val); best_val is above all of them.
  ('R_Ti_16-i21k-300ep-lr_0.001-aug_light1-wd_0.1', 'i21k', '0.295', '0.9'),
  (BEST, 'i21k', '0.311', '0.7'),
  (BEST, 'i21k', '0.311', '0.8'),
  ('R_Ti_16-i21k-300ep-lr_0.001-aug_strong2-wd_0.1', 'i21k', '0.0999', '0.8'),
  ('R_Ti_16-i21k_30-30ep-lr_0.001-aug_none-wd_0.1', 'i21k_30', '0.4', '0.8'),
  ('R_Ti_16-i1k-300ep-lr_0.001-aug_none-wd_0.1', 'i1k', '0.75', '0.8'),
  ('Ti_16-i21k-300ep-lr_0.001-aug_none-wd_0.03', 'i21k', '0.35', '0.8'),
  ('B_32-i1k-300ep-lr_0.001-aug_none-wd_0.03', 'i1k', '0.6', '0.8'),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('VIT_JAX_CACHE', str(tmp_path / 'cache'))
  monkeypatch.setenv('VIT_JAX_OFFLINE', '1')
  monkeypatch.setitem(sys.modules, 'gcsfs.core', None)
  (tmp_path / 'cache').mkdir()
  return tmp_path / 'cache'


def write_index(directory, rows=ROWS, columns=COLUMNS):
  with open(directory / 'index.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, columns, extrasaction='ignore', restval='0')
    writer.writeheader()
    for filename, ds, final_val, adapt_final_val in rows:
      writer.writerow(
        {
          'name': filename.split('-')[0].replace('_', '/'),
          'epochs': '300',
          'ds': ds,
          'best_val': '0.99',
          'final_val': final_val,
          'adapt_final_val': adapt_final_val,
          'filename': filename,
          'adapt_filename': f'{filename}--cifar10-steps_10k-lr_0.01-res_224',
        }
      )


def test_index_has_the_published_columns():
  assert len(COLUMNS) == 21


def test_model_stands_for_its_best_file_of_imagenet21k(tmp_path):
  write_index(tmp_path)
  assert augreg.file_name('R_Ti_16', str(tmp_path)) == BEST
  assert augreg.file_name('Ti_16', str(tmp_path)).startswith('Ti_16-i21k-')


def test_index_in_the_cache_serves_a_bucket(cache):
  write_index(cache)
  assert augreg.file_name('R_Ti_16', 'gs://vit_models/augreg') == BEST


@pytest.mark.parametrize('suffix', ['', '.npz'])
def test_file_needs_no_index(suffix, tmp_path):
  assert augreg.file_name(BEST + suffix, str(tmp_path)) == BEST


def test_weights_in_person_need_no_index(tmp_path):
  name = augreg.file_name('R_Ti_16', str(tmp_path / 'mine.npz'))
  assert name == 'R_Ti_16'
  (tmp_path / 'model.npz').touch()
  assert augreg.file_name('R_Ti_16', str(tmp_path)) == 'R_Ti_16'


@pytest.mark.parametrize(
  'directory',
  [
    'hf://me/mine', 'https://example.org/w.npz', 'mine.safetensors',
    'augreg/B_16', 'sam/ViT-B_16', BEST,
    f'https://example.org/w.npz#sha256={"0" * 64}',
  ],
)  # fmt: skip
def test_weights_that_have_an_address_need_no_index(directory):
  assert augreg.file_name('R_Ti_16', directory) == 'R_Ti_16'


@pytest.mark.parametrize(
  'file', ['blob', 'clone/model.safetensors', 'one/a.npz']
)
def test_directory_with_one_file_for_all_names_needs_no_index(file, tmp_path):
  touch(tmp_path / file)
  directory = str(tmp_path / file.split('/')[0])
  assert augreg.file_name('R_Ti_16', directory) == 'R_Ti_16'


def test_mistyped_directory_is_told_before_an_index_is_asked_for(tmp_path):
  name = augreg.file_name('R_Ti_16', str(tmp_path / 'wieghts'))
  with pytest.raises(errors.CheckpointNotFoundError, match='is not there'):
    locate.locate(name, tmp_path / 'wieghts')


def test_run_that_is_not_finished_needs_no_index(tmp_path):
  (tmp_path / 'checkpoints').mkdir()
  assert augreg.file_name('R_Ti_16', str(tmp_path)) == 'R_Ti_16'


@pytest.mark.parametrize('directory', ['gs://vit_models/augreg', 'augreg', '.'])
def test_index_is_fetched_once(tmp_path, monkeypatch, directory):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  monkeypatch.setattr(patience, '_useless_hosts', {})
  (tmp_path / 'made').mkdir()
  write_index(tmp_path / 'made')
  content = (tmp_path / 'made' / 'index.csv').read_bytes()
  with file_server.serve() as server:
    monkeypatch.setenv('STORAGE_EMULATOR_HOST', server.address)
    server.give('/vit_models/augreg/index.csv', Answer(content))
    for _ in range(2):
      assert augreg.file_name('R_Ti_16', directory, offline=False) == BEST
    assert len(server.requests) == 1


def test_without_an_index_the_table_names_a_file_on_the_hub(caplog):
  with caplog.at_level('WARNING', 'absl'):
    assert augreg.file_name('R_Ti_16', 'gs://vit_models/augreg') == BEST
    assert f'R_Ti_16 stands for {BEST}. Looked' in caplog.text
    assert 'gs://vit_models/augreg/index.csv: offline' in caplog.text
    name = augreg.file_name('L_16', 'gs://vit_models/augreg')
  assert name == 'L_16-i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.1-sd_0.1'
  assert f'{name} (the best one is L_16-i21k-300ep-lr_0.001-aug_strong1' in (
    caplog.text
  )


def test_best_file_that_is_here_goes_before_one_on_the_hub(tmp_path):
  best = 'L_16-i21k-300ep-lr_0.001-aug_strong1-wd_0.1-do_0.0-sd_0.0'
  (tmp_path / f'{best}.npz').touch()
  assert augreg.file_name('L_16', str(tmp_path)) == best


def test_missing_index_of_a_model_that_is_not_in_the_table(cache):
  with pytest.raises(errors.CheckpointNotFoundError) as caught:
    augreg.file_name('R26_B_32', 'gs://vit_models/augreg')
  target = cache / 'storage.googleapis.com/vit_models/augreg/index.csv'
  assert f'-o {target} https://' in str(caught.value)
  assert '/vit_models/augreg/index.csv' in str(caught.value)


@pytest.mark.parametrize('model', ['B_32', 'R_Ti', ''])
def test_model_without_a_file_of_imagenet21k(model, tmp_path):
  write_index(tmp_path)
  with pytest.raises(errors.CheckpointError) as caught:
    augreg.file_name(model, str(tmp_path))
  assert f'{tmp_path / "index.csv"}: no file' in str(caught.value)
  assert repr(model) in str(caught.value)


@pytest.mark.parametrize('value', ['', ' ', 'nan', 'NaN', 'inf'])
def test_training_without_an_accuracy_is_passed_over(value, tmp_path):
  failed = (BEST.replace('none', 'light0'), 'i21k', value, '0.9')
  write_index(tmp_path, [failed, *ROWS, failed])
  assert augreg.file_name('R_Ti_16', str(tmp_path)) == BEST
  write_index(tmp_path, [failed])
  with pytest.raises(errors.CheckpointError, match='no file of a model'):
    augreg.file_name('R_Ti_16', str(tmp_path))


@pytest.mark.parametrize('missing', ['ds', 'filename', 'final_val'])
def test_index_without_a_column(missing, tmp_path):
  write_index(tmp_path, columns=[name for name in COLUMNS if name != missing])
  with pytest.raises(errors.CheckpointError, match='ds, filename, final_val'):
    augreg.file_name('R_Ti_16', str(tmp_path))


@pytest.mark.parametrize(
  'content', [b'', b'<html>\n404\n</html>',
              b'ds,filename,final_val\na,b,high\n',
              b'ds,filename,final_val\ni21k\n', b'\xff\x00\xfe']
)  # fmt: skip
def test_index_that_is_damaged(content, tmp_path):
  (tmp_path / 'index.csv').write_bytes(content)
  with pytest.raises(
    errors.CheckpointError, match=r'index\.csv: not the index'
  ):
    augreg.file_name('R_Ti_16', str(tmp_path))


@pytest.mark.parametrize(
  ('model_or_filename', 'name'),
  [('', 'R+ViT-Ti_16'), ('R_Ti_16', BEST), ('R_Ti_16-x', 'R_Ti_16-x')],
)
def test_name_of_the_weights_of_a_config(model_or_filename, name, tmp_path):
  write_index(tmp_path)
  config = ConfigDict(
    {
      'model': {'model_name': 'R+ViT-Ti_16'},
      'model_or_filename': model_or_filename,
      'pretrained_dir': str(tmp_path),
    }
  )
  assert augreg.weights_name(config) == name
