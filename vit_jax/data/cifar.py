"""CIFAR-10 and CIFAR-100 from the official archives, without TensorFlow.

The classes are tfds's own in name, version, splits, features and checksums, so
a directory prepared by either is read by both. Only reading the archive and
encoding the images differ: tfds calls TensorFlow for these.
"""

import os
import tarfile
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import PIL.Image
from tensorflow_datasets.core.download import checksums, resource
from tensorflow_datasets.image_classification import cifar as tfds_cifar

from vit_jax import errors

# tfds's registry has these names already.
_UNREGISTERED = {'skip_registration': True}
_IMAGE_BYTES = 3 * 32 * 32
# Connecting, then each read. Name resolution heeds no timeout, hence the last.
_PROBE_TIMEOUT = (5.0, 5.0)
_PROBE_LIMIT = 20.0


class Cifar10(tfds_cifar.Cifar10, **_UNREGISTERED):
  """CIFAR-10: 50,000 and 10,000 images of 32x32 in 10 classes."""

  def _split_generators(self, dl_manager):
    source = self._cifar_info
    features: Any = self.info.features
    archive = os.fspath(dl_manager.download(source.url))
    for key, file in zip(source.label_keys, source.label_files, strict=True):
      text = _read_member(archive, source.prefix + file).decode()
      features[key].names = [name for name in text.split('\n') if name]
    return {
      'train': self._examples(archive, 'train_', source.train_files),
      'test': self._examples(archive, 'test_', source.test_files),
    }

  def _examples(self, archive, id_prefix, files):
    source = self._cifar_info
    index = 0  # As a key it fixes tfds's order on disk, so it must be tfds's.
    for file in files:
      data = _read_member(archive, source.prefix + file)
      for labels, image in _records(
        data, len(source.label_keys), archive, file
      ):
        yield (
          index,
          {
            'id': f'{id_prefix}{index:05d}',
            'image': PIL.Image.fromarray(image),
            **dict(zip(source.label_keys, labels, strict=True)),
          },
        )
        index += 1


class Cifar100(Cifar10, tfds_cifar.Cifar100, **_UNREGISTERED):
  """CIFAR-100: 50,000 and 10,000 images of 32x32 in 100 classes."""


def check_archive(builder: Any, manual_dir: str | None) -> None:
  """Makes sure that the archive is here or can be downloaded.

  Without this, tfds would retry for minutes where there is no network.

  Args:
    builder: a `Cifar10` or `Cifar100` that is not prepared.
    manual_dir: where the user may have put the archive, or None for tfds's
      own `downloads/manual`.

  Raises:
    DataNotFoundError: within 30 s, if it is neither.
  """
  url = builder._cifar_info.url
  known = checksums.get_all_url_infos()[url]
  downloads = builder.data_dir_root / 'downloads'
  by_hand = os.path.join(manual_dir or downloads / 'manual', known.filename)
  cached = resource.get_dl_fname(url, known.checksum)
  if os.path.exists(by_hand) or any(
    resource.is_locally_cached(folder / cached)
    for folder in (downloads / builder.name, downloads)
  ):
    return
  problem = _probe(url)
  if problem:
    raise errors.DataNotFoundError(
      f'Data set {builder.name!r} is not prepared in {builder.data_dir}, its '
      f"archive is neither at {by_hand} nor in {downloads}, and it can't be "
      f'downloaded: {problem}.\nFetch it where there is a network:\n'
      f'  curl -LO {url}\nand give the directory it is in: '
      '--config.tfds_manual_dir=DIR'
    )


def _probe(url: str) -> str | None:
  """Returns why `url` can't be reached, or None if it can."""
  import requests  # tfds downloads by it, so proxies and certificates agree.

  outcome: list[str | None] = [f'no answer within {_PROBE_LIMIT:.0f} s']

  def ask():
    try:
      reply = requests.head(url, timeout=_PROBE_TIMEOUT, allow_redirects=True)
      reply.raise_for_status()
    except requests.RequestException as error:
      cause: BaseException = error
      while cause.__context__ is not None:  # The first error is the plainest.
        cause = cause.__context__
      outcome[0] = str(cause)
    else:
      outcome[0] = None

  thread = threading.Thread(target=ask, daemon=True)
  thread.start()
  thread.join(_PROBE_LIMIT)
  return outcome[0]


def _read_member(archive: str, name: str) -> bytes:
  """Returns one file of the archive; DataError if it isn't whole."""
  try:
    with tarfile.open(archive, 'r:gz') as tar:
      for member in tar:  # Looking it up would decompress all of the archive.
        if member.name == name and (file := tar.extractfile(member)):
          return file.read()
  # What is raised depends on where the damage is.
  except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
    problem = str(error)
  else:
    problem = 'there is no such file in it'
  raise errors.DataError(
    f"{archive}: {name} can't be read ({problem}). Remove the archive and "
    'fetch it again.'
  )


def _records(
  data: bytes, num_labels: int, archive: str, file: str
) -> Iterator[tuple[list[int], np.ndarray]]:
  """Yields (labels, uint8 [32, 32, 3]) for each record of a CIFAR file."""
  size = num_labels + _IMAGE_BYTES
  if len(data) % size:
    raise errors.DataError(
      f'{archive}: {file} has {len(data)} bytes, expected a multiple of '
      f'{size}. Remove the archive and fetch it again.'
    )
  for record in np.frombuffer(data, np.uint8).reshape(-1, size):
    planes = record[num_labels:].reshape(3, 32, 32)
    yield (
      record[:num_labels].tolist(),
      np.ascontiguousarray(planes.transpose(1, 2, 0)),
    )
