r"""Measures the host side of the data, beside the original's tf.data pipeline.

  python scripts/benchmark_data.py
  python scripts/benchmark_data.py --tensorflow_python tf/bin/python

Both decode the same made-up JPEGs of 500 x 375 pixels, cut a random box out and
resize it to 224 x 224, in turns; TensorFlow does so in another environment, as
it is no dependency of this project. What counts is CPU time, so that neither
other work on the machine nor the number of threads has a say. The rest is
ours alone: the cost of a small image that is kept in memory, and the time to
the first batch of a million.
"""

import argparse
import itertools
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from ml_collections import ConfigDict

from vit_jax.data import decode, pipeline, sources

_SIDE = 224
# What the original's input_pipeline.py does to a training image, from decoding
# to resizing. Reads a number of passes from standard input, and answers with
# the CPU seconds that they took; to `resize`, with pixels.
_ORIGINAL = """
import json, sys, time
import numpy as np
import tensorflow as tf

folder, side = sys.argv[1], int(sys.argv[2])
paths = sorted(tf.io.gfile.glob(folder + '/*.jpg'))
encoded = [tf.io.read_file(path).numpy() for path in paths]

def prepare(content):
  image = tf.io.decode_jpeg(content, channels=3)
  begin, size, _ = tf.image.sample_distorted_bounding_box(
      tf.shape(image), tf.zeros([0, 0, 4], tf.float32),
      area_range=(0.05, 1.0), min_object_covered=0,
      use_image_if_no_bounding_boxes=True)
  return tf.image.resize(tf.slice(image, begin, size), [side, side])

data = tf.data.Dataset.from_tensor_slices(encoded)
data = data.map(prepare, tf.data.AUTOTUNE).batch(len(encoded)).prefetch(1)
print(tf.__version__, flush=True)
for line in sys.stdin:
  if line.strip() == 'resize':
    image = tf.io.decode_jpeg(encoded[0], channels=3)
    np.save(folder + '/resized.npy', tf.image.resize(image, [side, side]))
    print('saved', flush=True)
    continue
  start = time.process_time()
  for _ in range(int(line)):
    for batch in data:
      pass
  print(time.process_time() - start, flush=True)
"""


def main() -> None:
  """Prints tables."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument(
    '--tensorflow_python', help='of an environment with tensorflow-cpu'
  )
  parser.add_argument('--num_images', type=int, default=256)
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--json', help='file to write the figures to as well')
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    make_jpegs(pathlib.Path(folder), args.num_images)
    found = compare(pathlib.Path(folder), args)
  found['cifar_microseconds'] = measure_small()
  found['first_batch_seconds'] = measure_first_batch()
  print(
    f'\nimage of CIFAR, kept in memory: {found["cifar_microseconds"]:.2f} us\n'
    f'first batch of a million: {found["first_batch_seconds"]:.2f} s'
  )
  if args.json:
    text = json.dumps(found, indent=2) + '\n'
    pathlib.Path(args.json).write_text(text, encoding='utf-8')


def make_jpegs(folder: pathlib.Path, count: int) -> None:
  """Writes JPEGs that compress like photographs: smooth, with some noise."""
  rng = np.random.default_rng(0)
  for i in range(count):
    coarse = rng.integers(0, 256, (12, 16, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC)
    image = image + rng.normal(0, 6, image.shape)
    pixels = np.clip(image, 0, 255).astype(np.uint8)
    cv2.imwrite(
      str(folder / f'{i:04}.jpg'), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90]
    )


def compare(folder: pathlib.Path, args: argparse.Namespace) -> dict[str, Any]:
  """Prints and returns images per second of one core."""
  encoded = [path.read_bytes() for path in sorted(folder.glob('*.jpg'))]
  size = sum(map(len, encoded)) / len(encoded) / 1000
  print(f'{len(encoded)} JPEGs of 500 x 375, {size:.0f} kB each')
  original = _Original(args.tensorflow_python, folder)
  ours, theirs = [], []
  for i in range(args.rounds + 1):
    pair = our_seconds(encoded, seed=i), original.seconds()
    if i:  # The first is a warm-up.
      ours.append(pair[0])
      theirs.append(pair[1])
  found: dict[str, Any] = {
    'ours': len(encoded) / statistics.median(ours),
    'jpeg_kilobytes': size,
  }
  print(f'  ours      {found["ours"]:7.0f} images/s of one core')
  if original.version:
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    found['original'] = len(encoded) / statistics.median(theirs)
    found['ratio'] = statistics.median(ratios)
    print(
      f'  original  {found["original"]:7.0f} images/s of one core, tensorflow '
      f'{original.version}\n  ratio     {found["ratio"]:7.2f} '
      f'({min(ratios):.2f}-{max(ratios):.2f})'
    )
    image = decode.decode(encoded[0])
    difference = np.abs(original.resized() - decode.resize_squash(image, _SIDE))
    found['largest_difference'] = float(difference.max())
    found['mean_difference'] = float(difference.mean())
    print(
      f'  a whole image resized by both: {difference.mean():.2f} levels apart '
      f'on average, {difference.max():.2f} at most'
    )
  original.close()
  return found


def our_seconds(encoded: list[bytes], seed: int) -> float:
  """Returns CPU seconds to decode, crop and resize each once."""
  rng = np.random.default_rng(seed)
  start = time.process_time()
  for content in encoded:
    decode.random_resized_crop(rng, decode.decode(content), _SIDE)
  return time.process_time() - start


class _Original:
  """The original's pipeline in another environment, if there is one."""

  def __init__(self, python: str | None, folder: pathlib.Path):
    self.version, self._folder = '', folder
    if python:
      self._process = subprocess.Popen(
        [python, '-c', _ORIGINAL, str(folder), str(_SIDE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
      )
      self.version = self._answer()
      if not self.version:
        sys.exit(f'error: {python} has no tensorflow.')

  def seconds(self) -> float:
    return float(self._ask('1')) if self.version else 0.0

  def resized(self) -> np.ndarray:
    self._ask('resize')
    return np.load(self._folder / 'resized.npy')

  def close(self) -> None:
    if self.version:
      self._process.communicate()

  def _ask(self, text: str) -> str:
    print(text, file=self._process.stdin, flush=True)
    return self._answer()

  def _answer(self) -> str:
    assert self._process.stdout is not None
    return self._process.stdout.readline().strip()


def measure_small() -> float:
  """Returns microseconds of CPU time of a 32 x 32 image kept in memory."""
  count, batch, steps = 50_000, 512, 400
  source = sources.Source(
    'small',
    'train',
    ('a',) * 10,
    labels=np.zeros(count, np.int32),
    images=np.zeros((count, 32, 32, 3), np.uint8),
  )
  batches = pipeline.train_batches(_config(batch), 0, source)
  next(batches)
  start = time.process_time()
  for _ in itertools.islice(batches, steps):
    pass
  seconds = time.process_time() - start
  batches.close()
  return 1e6 * seconds / steps / batch


def measure_first_batch() -> float:
  """Returns seconds to the first batch of a million JPEGs."""
  image = cv2.imencode('.jpg', np.zeros((375, 500, 3), np.uint8))[1].tobytes()
  records = _Repeated((image, 0))
  source = sources.Source('many', 'train', ('a',), records=records)
  start = time.perf_counter()
  batches = pipeline.train_batches(_config(64), 0, source)
  next(batches)
  seconds = time.perf_counter() - start
  batches.close()
  return seconds


class _Repeated(Sequence):
  """A million times the same."""

  def __init__(self, record: tuple[bytes, int]):
    self._record = record

  def __len__(self) -> int:
    return 1_000_000

  def __getitem__(self, index: Any) -> Any:
    return self._record


def _config(batch: int) -> ConfigDict:
  return ConfigDict(
    {
      'seed': 0,
      'batch': batch,
      'num_threads': 2,
      'pp': {
        'crop': _SIDE,
        'area_range': (0.05, 1.0),
        'ratio_range': (3 / 4, 4 / 3),
      },
    }
  )


if __name__ == '__main__':
  main()
