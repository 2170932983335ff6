"""What tells whether a run is continued on the examples that it began with."""

import hashlib
import json
import re
import shutil
import unicodedata

import numpy as np
import pytest
from image_folder import add, add_classes, load, make_config

from vit_jax import errors
from vit_jax.data import sources
from vit_jax.workdir import Workdir

pytestmark = pytest.mark.usefixtures('warned')


@pytest.fixture
def root(tmp_path):
  for split in ('train', 'test'):
    add_classes(tmp_path / 'pets' / split, ant=3, bee=2)
  return tmp_path / 'pets'


def found(path, split='train', **fields) -> str:
  return load(path, split, **fields).fingerprint


def test_fingerprint_is_the_described_one(root):
  places = ('ant/0', 'ant/1', 'ant/2', 'bee/0', 'bee/1')
  names = [f'train/{place}.png' for place in places]
  content = b''
  for part in (
    '\0'.join(names).encode(),
    np.array([0, 0, 0, 1, 1], '<i4').tobytes(),
    b'ant\0bee',
  ):
    content += len(part).to_bytes(8, 'little') + part
  expected = hashlib.blake2b(content, digest_size=8).hexdigest()
  assert found(root) == f'5-{expected}'


def test_place_and_other_splits_do_not_matter(root, tmp_path):
  before = found(root)
  add(root / 'test' / 'bee' / 'new.png')
  (root / 'train' / 'bee' / 'notes.txt').touch()
  shutil.copytree(root, tmp_path / 'copy')
  assert found(root) == found(tmp_path / 'copy') == before
  assert found(root, 'test') != before


def test_any_change_of_names_labels_or_order_is_seen(root):
  train = root / 'train'
  seen = [found(root)]
  add(train / 'bee' / 'new.png')
  seen.append(found(root))
  (train / 'ant' / '0.png').unlink()
  seen.append(found(root))
  (train / 'bee' / 'new.png').rename(train / 'bee' / 'newer.png')
  seen.append(found(root))
  (train / 'bee' / 'newer.png').rename(train / 'ant' / 'newer.png')
  seen.append(found(root))
  add(train / 'aphid' / '0.png')
  seen.append(found(root))
  counts = [each.partition('-')[0] for each in seen]
  assert counts == ['5', '6', '5', '5', '5', '6']
  assert len({*seen}) == len(seen)


def test_file_that_falls_into_the_other_share_changes_nothing(tmp_path):
  add_classes(tmp_path, ant=17, bee=19)
  before = found(tmp_path, 'train'), found(tmp_path, 'test')
  add(tmp_path / 'ant' / 'new.png')
  after = found(tmp_path, 'train'), found(tmp_path, 'test')
  assert [a == b for a, b in zip(before, after, strict=True)].count(True) == 1


def test_spelling_of_the_disk_does_not_matter(tmp_path):
  prints = set()
  for form in ('NFC', 'NFD'):
    for name in ('Öl', 'ant'):
      name = unicodedata.normalize(form, name)
      add(tmp_path / form / 'train' / name / f'{name}.png')
    prints.add(found(tmp_path / form))
  assert len(prints) == 1


def test_manifest_is_known_by_its_rows_in_order(tmp_path):
  add_classes(tmp_path, ant=2, bee=2)
  rows = ['ant/0.png,ant', 'bee/0.png,bee', 'ant/1.png,ant']
  path = tmp_path / 'list.csv'

  def write(rows):
    path.write_text('\n'.join(['path,label', *rows]))
    return found(path, 'train[:100%]')

  first = write(rows)
  assert first == write([f' ./{row}' for row in rows])  # The same, really.
  others = [
    write(rows[::-1]),
    write(rows[:2]),
    write([*rows, 'bee/1.png,bee']),
    write([row.replace(',bee', ',wasp') for row in rows]),
    write([rows[0].replace(',ant', ',bee'), *rows[1:]]),
  ]
  assert len({first, *others}) == 6


def test_contents_do_not_run_into_each_other():
  one = sources.make_fingerprint(7, 'pets/2.3.1', 'cat')
  assert re.fullmatch('7-[0-9a-f]{16}', one)
  assert one == sources.make_fingerprint(7, b'pets/2.3.1', b'cat')
  assert one != sources.make_fingerprint(7, 'pets/2.3.1c', 'at')
  assert one != sources.make_fingerprint(7, 'pets/2.3.1cat')


def test_prepared_set_is_known_by_its_version_and_part(tmp_path):
  config = make_config(
    'digits', tfds_data_dir=str(tmp_path), tfds_manual_dir=None
  )
  whole, again, part, other = (
    sources.load_source(config, split).fingerprint
    for split in ('train', 'train', 'train[:7]', 'train[:-7]')
  )
  assert whole == again
  assert (whole[:5], part[:2], other[:5]) == ('1437-', '7-', '1430-')
  config.dataset = 'digits/0_to_4'
  assert sources.load_source(config, 'train[:7]').fingerprint != part


def test_changed_folder_stops_a_run_from_being_continued(root, tmp_path):
  run = Workdir(tmp_path / 'run')

  def claim():
    settings = {'dataset': str(root)}
    run.claim({**settings, 'data_fingerprint': {'train': found(root)}})

  claim()
  (run.checkpoints / '100').mkdir(parents=True)
  claim()
  before = json.loads(run.config.read_text())
  add(root / 'train' / 'bee' / 'new.png')
  with pytest.raises(errors.ConfigError) as caught:
    claim()
  assert '6 training examples now and had 5 then' in str(caught.value)
  assert json.loads(run.config.read_text()) == before
  (root / 'train' / 'bee' / 'new.png').unlink()
  claim()
