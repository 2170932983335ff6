"""Which AugReg file a model's name stands for."""

import csv

import pytest
from ml_collections import ConfigDict

from vit_jax import errors
from vit_jax.checkpoints import augreg

# As published, with a row for each fine-tuning of each file.
COLUMNS = [
  *('name', 'ds', 'lr', 'aug', 'wd', 'do', 'sd'),
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
  (tmp_path / 'cache').mkdir()
  return tmp_path / 'cache'


def write_index(directory, rows=ROWS, columns=COLUMNS):
  with open(directory / 'index.csv', 'w', newline='') as file:
    writer = csv.DictWriter(file, columns, extrasaction='ignore', restval='0')
    writer.writeheader()
    for filename, ds, final_val, adapt_final_val in rows:
      writer.writerow(
        {
          'name': filename.split('-')[0],
          'ds': ds,
          'best_val': '0.99',
          'final_val': final_val,
          'adapt_final_val': adapt_final_val,
          'filename': filename,
          'adapt_filename': f'{filename}--cifar10-steps_10k-lr_0.01-res_224',
        }
      )


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


def test_missing_index_says_how_to_fetch_it(cache):
  with pytest.raises(errors.CheckpointNotFoundError) as caught:
    augreg.file_name('R_Ti_16', 'gs://vit_models/augreg')
  assert f'-o {cache}/index.csv https://' in str(caught.value)
  assert '/vit_models/augreg/index.csv' in str(caught.value)


@pytest.mark.parametrize('model', ['B_32', 'R_Ti', ''])
def test_model_without_a_file_of_imagenet21k(model, tmp_path):
  write_index(tmp_path)
  with pytest.raises(errors.CheckpointError) as caught:
    augreg.file_name(model, str(tmp_path))
  assert f'{tmp_path / "index.csv"}: no file' in str(caught.value)
  assert repr(model) in str(caught.value)


@pytest.mark.parametrize('missing', ['ds', 'filename', 'final_val'])
def test_index_without_a_column(missing, tmp_path):
  write_index(tmp_path, columns=[name for name in COLUMNS if name != missing])
  with pytest.raises(errors.CheckpointError, match='ds, filename, final_val'):
    augreg.file_name('R_Ti_16', str(tmp_path))


@pytest.mark.parametrize(
  'content', [b'', b'<html>\n404\n</html>', b'ds,filename,final_val\na,b,\n',
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
