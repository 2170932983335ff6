"""CIFAR from archives of the official format, found where tfds finds them."""

import io
import os
import socket
import tarfile
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
from ml_collections import ConfigDict

from vit_jax import errors
from vit_jax.data import cifar, sources

# Archive name, directory in it, train files, label files, bytes of labels.
_TEN = (
  'cifar-10-binary.tar.gz',
  'cifar-10-batches-bin',
  [f'data_batch_{i}.bin' for i in range(1, 6)] + ['test_batch.bin'],
  {'batches.meta.txt': [f'ten{i}' for i in range(10)]},
)
_HUNDRED = (
  'cifar-100-binary.tar.gz',
  'cifar-100-binary',
  ['train.bin', 'test.bin'],
  {
    'coarse_label_names.txt': [f'coarse{i}' for i in range(20)],
    'fine_label_names.txt': [f'fine{i}' for i in range(100)],
  },
)
_LAYOUTS = {'cifar10': _TEN, 'cifar100': _HUNDRED}
_PER_FILE = 3


def _config(data_dir, dataset='cifar10', manual_dir=None):
  return ConfigDict(
    {
      'dataset': dataset,
      'tfds_data_dir': str(data_dir),
      'tfds_manual_dir': manual_dir and str(manual_dir),
    }
  )


def _write_archive(folder, dataset, monkeypatch, cut=0):
  """Writes a small archive, registers its checksum, returns its arrays.

  Returns:
    (images uint8 [files * 3, 32, 32, 3], labels) in the order of the files.
  """
  archive_name, prefix, files, label_files = _LAYOUTS[dataset]
  rng = np.random.default_rng(len(files))
  images = rng.integers(256, size=(len(files) * _PER_FILE, 32, 32, 3))
  images = images.astype(np.uint8)
  num_classes = len([*label_files.values()][-1])
  labels = rng.integers(num_classes, size=len(images)).astype(np.uint8)
  members = {
    name: '\n'.join([*classes, '']).encode()
    for name, classes in label_files.items()
  }
  for number, file in enumerate(files):
    records = b''
    for index in range(number * _PER_FILE, (number + 1) * _PER_FILE):
      coarse = [labels[index] // 5] if dataset == 'cifar100' else []
      planes = images[index].transpose(2, 0, 1)
      records += bytes([*coarse, labels[index]]) + planes.tobytes()
    members[file] = records[: len(records) - cut]
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / archive_name
  with tarfile.open(path, 'w:gz') as tar:
    for name, content in members.items():
      member = tarfile.TarInfo(f'{prefix}/{name}')
      member.size = len(content)
      tar.addfile(member, io.BytesIO(content))
  _register(path, dataset, monkeypatch)
  return images, labels


def _register(path, dataset, monkeypatch):
  url = f'https://www.cs.toronto.edu/~kriz/{_LAYOUTS[dataset][0]}'
  monkeypatch.setitem(
    tfds.download.checksums.get_all_url_infos(),
    url,
    tfds.download.checksums.compute_url_info(path),
  )


def _sorted_rows(images, labels):
  rows = images.reshape(len(images), -1)
  return sorted(
    row.tobytes() + bytes([y]) for row, y in zip(rows, labels, strict=True)
  )


@pytest.mark.parametrize('dataset', ['cifar10', 'cifar100'])
def test_archive_becomes_its_images_labels_and_names(
  tmp_path, monkeypatch, dataset
):
  images, labels = _write_archive(tmp_path / 'by_hand', dataset, monkeypatch)
  config = _config(tmp_path, dataset, tmp_path / 'by_hand')
  train = sources.load_source(config, 'train')
  test = sources.load_source(config, 'test')
  assert (len(train), len(test)) == (len(images) - _PER_FILE, _PER_FILE)
  for source, part in (
    (train, slice(-_PER_FILE)),
    (test, slice(-_PER_FILE, None)),
  ):
    assert _sorted_rows(source.images, source.labels) == _sorted_rows(
      images[part], labels[part]
    )
  assert train.class_names == tuple([*_LAYOUTS[dataset][3].values()][-1])


def test_directory_is_laid_out_as_tfdss_own(tmp_path, monkeypatch):
  """What we prepare, tfds's own builder reads with all its features."""
  _write_archive(tmp_path / 'downloads' / 'manual', 'cifar100', monkeypatch)
  sources.load_source(_config(tmp_path, 'cifar100'), 'train')
  builder = tfds.builder('cifar100', data_dir=tmp_path)
  assert type(builder).__module__.startswith('tensorflow_datasets.')
  assert builder.data_dir == str(tmp_path / 'cifar100' / '3.0.2')
  examples = list(builder.as_data_source('test'))
  assert {example['id'] for example in examples} == {
    b'test_%05d' % i for i in range(_PER_FILE)
  }
  assert all(e['coarse_label'] == e['label'] // 5 for e in examples)


@pytest.mark.parametrize('name', ['Cifar10', 'Cifar100'])
def test_builders_differ_from_tfdss_in_nothing_public(tmp_path, name):
  ours = getattr(cifar, name)(data_dir=tmp_path)
  theirs = tfds.builder(name.lower(), data_dir=tmp_path)
  assert ours.info.full_name == theirs.info.full_name
  assert ours.data_dir == theirs.data_dir
  assert repr(ours.info.features) == repr(theirs.info.features)


def test_archive_that_tfds_downloaded_is_found(tmp_path, monkeypatch):
  images, _ = _write_archive(tmp_path, 'cifar10', monkeypatch)
  url = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'
  resource = tfds.download.resource
  known = tfds.download.checksums.get_all_url_infos()[url]
  folder = tmp_path / 'data' / 'downloads' / 'cifar10'
  folder.mkdir(parents=True)
  path = folder / resource.get_dl_fname(url, known.checksum)
  (tmp_path / 'cifar-10-binary.tar.gz').rename(path)
  path.with_name(path.name + '.INFO').write_text('{}')
  source = sources.load_source(_config(tmp_path / 'data'), 'train+test')
  assert len(source) == len(images)


def test_wrong_checksum_names_the_archive(tmp_path, monkeypatch):
  _write_archive(tmp_path, 'cifar10', monkeypatch)
  path = tmp_path / 'cifar-10-binary.tar.gz'
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(errors.DataError, match='cifar-10-binary') as raised:
    sources.load_source(_config(tmp_path, manual_dir=tmp_path), 'train')
  assert str(path) in str(raised.value)
  assert 'fetch it again' in str(raised.value)


@pytest.mark.parametrize('kept', [0, 40, -100])
def test_truncated_archive_is_named_even_with_its_checksum(
  tmp_path, monkeypatch, kept
):
  """As left by a download that broke off before it could be checked."""
  _write_archive(tmp_path, 'cifar10', monkeypatch)
  path = tmp_path / 'cifar-10-binary.tar.gz'
  path.write_bytes(path.read_bytes()[:kept])
  _register(path, 'cifar10', monkeypatch)
  with pytest.raises(errors.DataError, match='fetch it again') as raised:
    sources.load_source(_config(tmp_path, manual_dir=tmp_path), 'train')
  assert str(raised.value).count(str(path)) == 1
  assert not list((tmp_path / 'cifar10').glob('*'))


def test_file_with_part_of_a_record_is_named(tmp_path, monkeypatch):
  _write_archive(tmp_path, 'cifar10', monkeypatch, cut=1)
  expected = 'data_batch_1.bin has 9218 bytes, expected a multiple of 3073'
  with pytest.raises(errors.DataError, match=expected):
    sources.load_source(_config(tmp_path, manual_dir=tmp_path), 'train')


def _closed_port():
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    return listener.getsockname()[1]


def test_no_network_says_what_to_fetch_and_where_to_put_it(
  tmp_path, monkeypatch
):
  url = f'http://127.0.0.1:{_closed_port()}/cifar-10-binary.tar.gz'
  real = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'
  known = tfds.download.checksums.get_all_url_infos()
  monkeypatch.setitem(known, url, known[real])
  info = cifar.Cifar10(data_dir=tmp_path)._cifar_info._replace(url=url)
  monkeypatch.setattr(cifar.Cifar10, '_cifar_info', info)
  monkeypatch.setenv('NO_PROXY', '*')
  start = time.monotonic()
  with pytest.raises(errors.DataNotFoundError) as raised:
    sources.load_source(_config(tmp_path, manual_dir=tmp_path / 'm'), 'train')
  assert time.monotonic() - start < 30
  text = str(raised.value)
  assert f'curl -LO {url}' in text
  assert os.path.join(tmp_path, 'm', 'cifar-10-binary.tar.gz') in text
  assert '--config.tfds_manual_dir=DIR' in text
  assert 'refused' in text


def test_silent_server_is_given_up_on(tmp_path, monkeypatch):
  """A host that accepts and never answers, or a resolver that hangs."""
  monkeypatch.setattr(cifar, '_PROBE_LIMIT', 0.1)
  monkeypatch.setenv('NO_PROXY', '*')
  with socket.socket() as listener:
    listener.bind(('127.0.0.1', 0))
    listener.listen()
    port = listener.getsockname()[1]
    assert cifar._probe(f'http://127.0.0.1:{port}/x').startswith('no answer')
