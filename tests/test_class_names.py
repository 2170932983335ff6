"""Names of classes: ImageNet's, and where those of weights are found."""

import json
import pathlib
import shutil

import pytest

from vit_jax import class_names, errors, trained
from vit_jax.class_names import finding


def test_the_order_is_that_of_tfds():
  import tensorflow_datasets as tfds

  place = pathlib.Path(str(tfds.__file__)).parent / 'datasets/imagenet2012'
  assert [*class_names.wnids()] == (place / 'labels.txt').read_text().split()


def test_names_are_readable_and_no_two_the_same():
  names = [class_names.readable(wnid) for wnid in class_names.wnids()]
  assert names[:2] == ['tench', 'goldfish'] and names[-1] == 'toilet tissue'
  assert names[134] == 'crane (n02012849)'
  assert len({*names}) == 1000
  assert class_names.readable('n99999999') == 'n99999999'


def test_the_license_of_the_words_comes_with_them():
  package = pathlib.Path(class_names.__file__).parent
  text = (package / 'NOTICE.md').read_text()
  assert 'WordNet 3.0 Copyright 2006 by Princeton University.' in text


@pytest.mark.parametrize(
  ('checkpoint', 'is_imagenets'),
  [
    ('ViT-B_16.npz', True),
    ('sam/ViT-B_16', True),
    ('augreg+imagenet2012/B_16-224', True),
    ('gs://vit_models/imagenet21k+imagenet2012/ViT-B_16.npz', True),
    ('hf://timm/vit_base_patch16_384.orig_in21k_ft_in1k@main', True),
    ('runs/vit/b16,things', False),
    ('things.npz', False),
    ('hf://someone/else', False),
  ],
)
def test_published_weights_have_imagenets_classes(
  tmp_path, checkpoint, is_imagenets
):
  path = str(tmp_path / 'model.npz')
  found = class_names.of_weights(checkpoint, path, 1000)
  assert (found is not None) == is_imagenets
  if found:
    assert found.is_guess and found.names[0] == 'n01440764'
  assert class_names.of_weights(checkpoint, path, 999) is None
  assert class_names.of_weights(checkpoint, path, None) is None


@pytest.mark.parametrize(
  'config',
  [
    {'id2label': {'1': 'b', '0': 'a', '2': 'c'}},
    {'label_names': ['a', 'b', 'c']},
  ],
)
def test_config_beside_the_weights(tmp_path, config):
  (tmp_path / 'config.json').write_text(json.dumps(config))
  path = str(tmp_path / 'model.safetensors')
  found = class_names.of_weights(path, path, 3)
  assert found is not None and found.names == ['a', 'b', 'c']
  assert class_names.of_weights(path, path, 4) is None


@pytest.mark.parametrize(
  'text',
  [
    '',
    '[]',
    '{"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}',
    '{"id2label": {"0": "a", "7": "b"}}',
    '{"label_names": ["a", 2]}',
  ],
)
def test_configs_that_tell_nothing(tmp_path, text):
  (tmp_path / 'config.json').write_text(text)
  path = str(tmp_path / 'model.safetensors')
  assert class_names.of_weights(path, path, 2) is None


@pytest.mark.parametrize(
  'text', ['a\nb b\nc\n', ' ["a", "b b", "c"]', 'a\r\nb b\r\nc']
)
def test_file_of_names(tmp_path, text):
  path = tmp_path / 'names'
  path.write_bytes(text.encode())
  assert class_names.of_user(str(path), 3).names == ['a', 'b b', 'c']


@pytest.mark.parametrize(
  ('asked', 'content', 'text'),
  [
    ('imagenet', None, '1,000 class names, and the weights have 3'),
    ('names.txt', None, 'there is no such file'),
    ('names.txt', b'a\nb\n', '2 class names, and the weights have 3'),
    ('names.txt', b'["a", 2, "c"]', 'Expected a JSON list of strings'),
    ('names.txt', b'["a", ', 'begins as a JSON list and is none'),
    ('names.txt', b'\xff\xfea', 'Expected a text in UTF-8'),
    ('names.txt', b' {"0": "a"}', 'a JSON object. Expected a name a line'),
    ('digitz', None, "no file with class names.*Did you mean 'digits'"),
  ],
)
def test_names_that_can_not_be(tmp_path, monkeypatch, asked, content, text):
  monkeypatch.chdir(tmp_path)
  if content:
    pathlib.Path(asked).write_bytes(content)
  with pytest.raises(errors.UserError, match=text):
    class_names.of_user(asked, 3, str(tmp_path))


def test_names_of_a_data_set(tmp_path):
  found = class_names.of_user('digits/5_to_9', 5, str(tmp_path))
  assert found.names == ['5', '6', '7', '8', '9']


def test_ids_of_a_run_are_read_as_words(mini, tmp_path):
  shutil.copy(mini('mini-vit').path, tmp_path / 'model.npz')
  names = [*class_names.wnids()[:9], 'other']
  (tmp_path / 'labels.json').write_text(json.dumps(names))
  opened = trained.load(str(tmp_path))
  assert opened.class_names == names
  assert opened.class_name(1) == 'goldfish' and opened.class_name(9) == 'other'
  assert opened.names == finding.Names(names, str(tmp_path / 'labels.json'))
