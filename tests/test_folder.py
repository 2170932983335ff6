"""Folders of images: layouts, classes, splits, links, and what is wrong."""

import io
import os
import pickle
import shutil

import numpy as np
import PIL.Image
import pytest
from image_folder import add, add_classes, load, make_config, relative_paths

from vit_jax import errors
from vit_jax.data import decode, files, images, pipeline

ENDINGS = ('.jpg', '.JPEG', '.png', '.Png', '.webp', '.BMP', '.gif', '.TIF')


pytestmark = pytest.mark.usefixtures('warned')


@pytest.mark.parametrize(
  ('train', 'test', 'asked'),
  [
    ('train', 'test', 'test'),
    ('train', 'val', 'test'),
    ('train', 'validation', 'test'),
    ('train', 'val', 'validation'),
    ('train', 'validation', 'val'),
    ('Train', 'VAL', 'Val'),
  ],
)
def test_folder_of_splits(train, test, asked, root):
  add_classes(root / train, cat=2, dog=3)
  add_classes(root / test, cat=1, dog=1)
  source = load(root)
  assert (len(source), source.class_names) == (5, ('cat', 'dog'))
  assert source.labels.dtype == np.int32
  assert source.labels.tolist() == [0, 0, 1, 1, 1]
  assert relative_paths(source, root) == [
    f'{train}/{name}'
    for name in ('cat/0.png', 'cat/1.png', 'dog/0.png', 'dog/1.png')
  ] + [f'{train}/dog/2.png']
  encoded, label = source.read(4)
  assert (label, decode.decode(encoded)[0, 0, 0]) == (1, 2)
  held_out = load(root, asked)
  assert held_out.split == ('test' if test == 'test' else 'validation')
  assert relative_paths(held_out, root) == [
    f'{test}/cat/0.png',
    f'{test}/dog/0.png',
  ]


def test_test_and_validation_are_two_splits_where_both_are_there(root):
  for count, split in enumerate(('train', 'test', 'val'), 1):
    add_classes(root / split, cat=count, dog=1)
  sizes = {split: len(load(root, split)) for split in ('test', 'val')}
  assert sizes == {'test': 3, 'val': 4}
  both = load(root, 'train+validation')
  assert (both.split, len(both)) == ('train+validation', 6)
  assert both.labels.tolist() == [0, 1, 0, 0, 0, 1]


@pytest.mark.parametrize('ending', ENDINGS)
def test_images_of_every_kind_in_any_letter_case(ending, root):
  kind = ending[1:].upper().replace('JPG', 'JPEG').replace('TIF', 'TIFF')
  add(root / 'cat' / f'a{ending}', 200, kind.replace('TIFFF', 'TIFF'))
  add(root / 'dog' / f'b{ending}', 200, kind)
  source = load(root, 'train[:100%]')
  assert len(source) == 2
  image = decode.decode(source.read(0)[0])
  assert image.shape == (5, 7, 3)
  assert abs(int(image[2, 2, 1]) - 200) < 4


def test_every_ending_that_is_decoded_is_taken():
  assert {e.lower() for e in ENDINGS} | {'.jpeg', '.tiff'} == {*images.SUFFIXES}


def test_what_is_no_image_is_left_out_and_named(root, warned):
  add_classes(root, cat=2, dog=1)
  add(root / 'cat' / '.hidden.png')
  add(root / '.cache' / '0.png')
  add(root / '__MACOSX' / '0.png')
  add(root / 'dog' / '__MACOSX' / '0.png')
  add(root / 'readme.png')
  (root / 'dog' / 'Thumbs.db').touch()
  assert len(load(root, 'train[:100%]')) == 3
  assert 'left out 2 files that are no images' in warned()
  assert ': dog/Thumbs.db, readme.png.' in warned()


def test_others_are_named_once_for_both_splits(root, warned):
  add_classes(root, cat=30, dog=30)
  (root / 'dog' / 'notes').touch()
  load(root, 'train')
  load(root, 'test')
  assert warned().count('left out 1 file ') == 1


def test_folders_in_class_folders_belong_to_the_class(root):
  add_classes(root, cat=1, dog=1)
  add(root / 'dog' / '2019' / 'may' / '0.png')
  source = load(root, 'train[:100%]')
  assert relative_paths(source, root) == [
    'cat/0.png',
    'dog/0.png',
    'dog/2019/may/0.png',
  ]


def test_classes_are_in_the_order_of_code_points(root):
  names = ['émeu', 'emu', 'Zebra', '10', '9', 'a b', 'ä', '日本', 'zoo']
  add_classes(root, **dict.fromkeys(names, 1))
  source = load(root, 'train[:100%]')
  expected = ['10', '9', 'Zebra', 'a b', 'emu', 'zoo', 'ä', 'émeu', '日本']
  assert [*source.class_names] == expected
  assert source.labels.tolist() == list(range(9))


def test_forms_of_unicode_are_one_class(root):
  add(root / 'train' / 'e\u0301meu' / '0.png')
  add(root / 'train' / 'yak' / '0.png')
  add(root / 'test' / '\u00e9meu' / '0.png')
  assert load(root).class_names == ('yak', '\u00e9meu')
  assert load(root, 'test').labels.tolist() == [1]


def test_classes_come_from_the_training_split(root, warned):
  add_classes(root / 'train', ant=1, bee=1, cat=1)
  add_classes(root / 'test', bee=2)
  source = load(root, 'test')
  assert source.class_names == ('ant', 'bee', 'cat')
  assert source.labels.tolist() == [1, 1]
  assert 'test: 2 of 3 classes have no image: ant, cat.' in warned()


def test_unknown_class_in_test_is_named(root):
  add_classes(root / 'train', cat=1, dog=1)
  add_classes(root / 'test', cat=1, dgo=1, Cat=1, owl=1)
  with pytest.raises(errors.DataError) as caught:
    load(root, 'test')
  text = str(caught.value)
  assert 'test has classes that train has no image of' in text
  assert "'dgo' (did you mean 'dog'?)" in text
  assert "'owl'\n" in text
  assert str(root) in text


def test_empty_class_folders_are_left_out(root, warned):
  add_classes(root / 'train', cat=1, dog=1)
  (root / 'train' / 'owl').mkdir()
  (root / 'test' / 'owl' / 'deep').mkdir(parents=True)
  add_classes(root / 'test', cat=1, dog=1)
  assert load(root).class_names == ('cat', 'dog')
  assert 'left out 1 folder without an image: owl.' in warned()
  assert len(load(root, 'test')) == 2


def test_where_a_folder_is_does_not_matter(root, tmp_path, monkeypatch):
  add_classes(root, cat=20, dog=20)
  before = relative_paths(load(root), root)
  shutil.move(root, tmp_path / 'moved')
  monkeypatch.chdir(tmp_path)
  source = load('./moved')
  monkeypatch.chdir('/')
  assert relative_paths(source, tmp_path / 'moved') == before
  assert source.read(0)[0]


def test_home_is_found(root, monkeypatch):
  add_classes(root, cat=2, dog=1)
  monkeypatch.setenv('HOME', str(root.parent))
  source = load('~/pets', 'train[:100%]')
  assert (source.name, len(source)) == ('~/pets', 3)


def prepare_nothing(root):
  root.rmdir()


def prepare_file(root):
  root.rmdir()
  root.write_text('')


def prepare_loose_images(root):
  add(root / '0.png')


def prepare_empty_classes(root):
  (root / 'cat').mkdir()
  (root / 'dog').mkdir()


def prepare_one_class(root):
  add_classes(root, cat=2)


def prepare_no_classes_in_train(root):
  add(root / 'train' / '0.png')
  add(root / 'test' / '0.png')


def prepare_test_alone(root):
  add_classes(root / 'test', cat=1, dog=1)


def prepare_same_split_twice(root):
  add_classes(root / 'val', cat=1, dog=1)
  add_classes(root / 'validation', cat=1, dog=1)


def prepare_bad_name(root):
  os.makedirs(os.fsencode(root) + b'/\xff')


@pytest.mark.parametrize(
  ('prepare', 'kind', 'texts'),
  [
    (prepare_nothing, errors.DataNotFoundError, ['is not there', '.jsonl']),
    (prepare_file, errors.DataNotFoundError, ['is a file. Exp', '.csv']),
    (lambda _: None, errors.DataNotFoundError, ['no image to train on']),
    (prepare_loose_images, errors.DataNotFoundError, ['PATH/CLASS/IMAGE']),
    (prepare_empty_classes, errors.DataNotFoundError, ['.webp']),
    (prepare_one_class, errors.DataError, ["one class, 'cat'"]),
    (
      prepare_no_classes_in_train,
      errors.DataNotFoundError,
      ['no image to train on', 'PATH/train/CLASS/IMAGE'],
    ),
    (prepare_test_alone, errors.ConfigError, ['has test, but no train']),
    (prepare_same_split_twice, errors.DataError, ["'val' and 'validation'"]),
    (prepare_bad_name, errors.DataError, ['is not UTF-8. Rename it']),
  ],
)
def test_folder_that_is_no_data_set_is_answered(prepare, kind, texts, root):
  prepare(root)
  with pytest.raises(kind) as caught:
    load(root)
  for text in ['pets', *texts]:
    assert text in str(caught.value)


def test_class_may_be_called_as_a_split(root):
  add_classes(root, bus=1, train=1, tram=1)
  assert load(root, 'train[:100%]').class_names == ('bus', 'train', 'tram')


def test_what_is_beside_the_splits_is_told(root, warned):
  add_classes(root / 'train', cat=1, dog=1)
  add_classes(root / 'test', cat=1, dog=1)
  (root / 'annotations').mkdir()
  assert load(root).class_names == ('cat', 'dog')
  assert 'left out what is beside the splits: annotations.' in warned()


def test_folder_that_can_not_be_read_is_named(root, monkeypatch):
  add_classes(root, cat=2, dog=1)
  scandir = os.scandir

  def refuse(path):
    if str(path).endswith('dog'):
      raise PermissionError(13, 'Permission denied')
    return scandir(path)

  monkeypatch.setattr(os, 'scandir', refuse)
  with pytest.raises(errors.DataError, match=r'dog: this folder can.t be read'):
    load(root)


def vanish(path):
  path.unlink()


def become_folder(path):
  path.unlink()
  path.mkdir()


def become_device(path):
  path.unlink()
  path.symlink_to(os.devnull)


@pytest.mark.parametrize('change', [vanish, become_folder, become_device])
def test_image_that_is_gone_is_named(change, root):
  add_classes(root, cat=2, dog=1)
  source = load(root, 'train[:100%]')
  change(root / 'cat' / '1.png')
  with pytest.raises(errors.DataError, match=r'cat/1\.png: this image .*back'):
    source.read(1)
  assert source.read(2)[1] == 1


def test_file_that_is_too_large_for_an_image_is_named(root, monkeypatch):
  add_classes(root, cat=2, dog=1)
  path = root / 'cat' / '1.png'
  size = path.stat().st_size
  source = load(root, 'train[:100%]')
  monkeypatch.setattr(files, 'MAX_BYTES', size)
  assert source.read(1)[0] == path.read_bytes()
  monkeypatch.setattr(files, 'MAX_BYTES', size - 1)
  with pytest.raises(errors.DataError, match=f'more than the {size - 1} that'):
    source.read(1)


@pytest.mark.parametrize('content', [b'', b'<html>', b'\x89PNG\r\n'])
def test_image_that_is_damaged_is_named(content, root):
  add_classes(root, cat=2, dog=1)
  path = root / 'cat' / '0.png'
  path.write_bytes(content)
  source = load(root, 'train[:100%]')
  config = batch_config(root)
  config.pp.train = 'train[:100%]'
  with pytest.raises(errors.DataError) as caught:
    next(pipeline.train_batches(config, 0, source))
  assert str(path) in str(caught.value)


def batch_config(root):
  config = make_config(root, seed=0, batch=3, batch_eval=3, num_threads=0)
  config.update(num_workers=0, on_bad_image='fail')
  config.pp.update(crop=8, area_range=(0.5, 1.0), ratio_range=(1.0, 1.0))
  return config


def test_pipeline_reads_a_folder(root):
  add_classes(root, cat=2, dog=1)
  source = load(root, 'train[:100%]')
  batch = next(pipeline.train_batches(batch_config(root), 0, source))
  assert batch['image'].shape == (3, 8, 8, 3)
  assert sorted(batch['label'].tolist()) == [0, 0, 1]


def test_source_can_be_sent_to_other_processes(root):
  add_classes(root, cat=2, dog=3)
  source = load(root, 'train[:100%]')
  copy = pickle.loads(pickle.dumps(source))
  assert [*copy.paths] == [*source.paths]
  assert [copy.read(i) for i in range(5)] == [source.read(i) for i in range(5)]
  with pytest.raises(IndexError):
    copy.read(5)


def test_names_that_are_not_utf8_or_not_printable_are_read(root):
  add_classes(root, cat=1, dog=1)
  for name in (b'\xff.png', b'a\nb.png'):
    content = io.BytesIO()
    PIL.Image.new('RGB', (1, 1)).save(content, 'PNG')
    with open(os.path.join(os.fsencode(root), b'cat', name), 'wb') as file:
      file.write(content.getvalue())
  source = load(root, 'train[:100%]')
  assert [source.read(i)[1] for i in range(4)] == [0, 0, 0, 1]
