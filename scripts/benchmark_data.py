r"""Measures the host side of the data, beside the original's tf.data pipeline.

  python scripts/benchmark_data.py --folder 100000
  python scripts/benchmark_data.py --tensorflow_python tf/bin/python

Both decode the same made-up JPEGs of 500 x 375 pixels, cut a random box out,
resize it to 224 x 224 and make batches, in turns; TensorFlow does so in another
environment, as it is no dependency of this project. What counts is CPU time, so
that neither other work on the machine nor the number of threads has a say. The
rest is ours alone: the cost of a small image that is kept in memory, the time
to the first batch of a million, and the memory that a large folder takes.
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

from vit_jax import command_line, errors, whole_files
from vit_jax.data import crops, decode, pipeline, reading, sources

_SIDE = 224
_BATCH = 64  # Of both.
# What the original's input_pipeline.py does on the host to a training image.
# Reads from standard input what to do once with all images, and answers with
# the CPU seconds that it took: 'resize' for decoding, cropping and resizing,
# 'all' for flipping and normalising besides, which are done on the device here.
# To 'pixels' it saves a resized image.
_ORIGINAL = """
import sys, time
import numpy as np
tf = __import__('tensorflow')

folder, side = sys.argv[1], int(sys.argv[2])
paths = sorted(tf.io.gfile.glob(folder + '/*.jpg'))
encoded = [tf.io.read_file(path).numpy() for path in paths]

def resized(content):
  image = tf.io.decode_jpeg(content, channels=3)
  begin, size, _ = tf.image.sample_distorted_bounding_box(
      tf.shape(image), tf.zeros([0, 0, 4], tf.float32),
      area_range=(0.05, 1.0), min_object_covered=0,
      use_image_if_no_bounding_boxes=True)
  return tf.image.resize(tf.slice(image, begin, size), [side, side])

def everything(content):
  image = tf.image.random_flip_left_right(resized(content))
  return (image - 127.5) / 127.5

def dataset(prepare):
  data = tf.data.Dataset.from_tensor_slices(encoded)
  return data.map(prepare, tf.data.AUTOTUNE).batch(64).prefetch(1)

work = {'resize': dataset(resized), 'all': dataset(everything)}
print(tf.__version__, flush=True)
for line in map(str.strip, sys.stdin):
  start = time.process_time()
  if line == 'pixels':
    image = tf.io.decode_jpeg(encoded[0], channels=3)
    np.save(folder + '/resized.npy', tf.image.resize(image, [side, side]))
  else:
    for batch in work[line]:
      pass
  print(time.process_time() - start, flush=True)
"""


def main() -> int:
  """Returns the exit status."""
  return command_line.run(_measure, _parser)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__doc__)
  parser.add_argument(
    '--tensorflow_python', help='of an environment with tensorflow-cpu'
  )
  parser.add_argument(
    '--num_images', type=command_line.positive_int, default=256
  )
  parser.add_argument('--rounds', type=command_line.positive_int, default=7)
  parser.add_argument(
    '--folder',
    type=command_line.positive_int,
    metavar='N',
    help='measure a folder of N images, too',
  )
  parser.add_argument('--listed', help=argparse.SUPPRESS)
  parser.add_argument(
    '--json',
    type=command_line.out_file,
    help='file to write the figures to as well',
  )
  return parser


def _measure(args: argparse.Namespace) -> int:
  if args.listed:
    print(json.dumps(measure_folder(args.listed)))
    return 0
  with tempfile.TemporaryDirectory() as folder:
    make_jpegs(pathlib.Path(folder), args.num_images)
    found = compare(pathlib.Path(folder), args)
  found['cifar_microseconds'] = measure_small()
  found['first_batch_seconds'] = measure_first_batch()
  print(
    f'\nimage of CIFAR, kept in memory: {found["cifar_microseconds"]:.2f} us\n'
    f'first batch of a million: {found["first_batch_seconds"]:.2f} s'
  )
  if args.folder:
    found['folder'] = report_folder(args.folder)
  if args.json:
    whole_files.write_text(args.json, json.dumps(found, indent=2) + '\n')
  return 0


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
  batches = _endless_batches(encoded)
  seconds: dict[str, list[float]] = {'ours': [], 'work': []}
  if original.version:
    seconds |= {'resize': [], 'all': []}
  for i in range(args.rounds + 1):
    for name, found in seconds.items():
      if name == 'ours':
        value = pipeline_seconds(batches, len(encoded) // _BATCH)
      elif name == 'work':
        value = work_seconds(encoded, seed=i)
      else:
        value = original.seconds(name)
      if i:  # The first is a warm-up.
        found.append(value)
  results: dict[str, Any] = {'jpeg_kilobytes': size}
  names = {
    'ours': 'ours: decode, crop, resize, batch',
    'work': 'of which decode, crop, resize',
    'resize': f'the same four in TensorFlow {original.version}',
    'all': 'the original: also flip, normalise',
  }
  for name, found in seconds.items():
    speed = len(encoded) / statistics.median(found)
    ratios = [b / a for a, b in zip(seconds['ours'], found, strict=True)]
    results[name] = {'images_per_sec': speed, 'ours_over_it': ratios}
    print(
      f'  {names[name]:38} {speed:6.0f} images/s of one core, ours '
      f'{statistics.median(ratios):.2f} x ({min(ratios):.2f}-{max(ratios):.2f})'
    )
  if original.version:
    image = decode.decode(encoded[0])
    difference = np.abs(original.resized() - crops.resize_squash(image, _SIDE))
    results['largest_difference'] = float(difference.max())
    results['mean_difference'] = float(difference.mean())
    print(
      f'  a whole image resized by both: {difference.mean():.2f} levels apart '
      f'on average, {difference.max():.2f} at most'
    )
  original.close()
  batches.close()
  return results


def _endless_batches(encoded: list[bytes]) -> reading.Batches:
  source = sources.Source(
    'jpegs', 'train', ('a',), records=[(content, 0) for content in encoded]
  )
  return pipeline.train_batches(_config(_BATCH), 0, source)


def pipeline_seconds(batches: reading.Batches, count: int) -> float:
  """Returns CPU seconds of `count` batches, all threads together."""
  start = _settled_time()
  for _ in itertools.islice(batches, count):
    pass
  return _settled_time() - start


def _settled_time() -> float:
  """Returns this process's CPU time once its threads have read ahead."""
  before = -1.0
  while time.process_time() - before > 0.01:
    before = time.process_time()
    time.sleep(0.3)
  return time.process_time()


def work_seconds(encoded: list[bytes], seed: int) -> float:
  """Returns CPU seconds to decode, crop and resize each once, in a loop."""
  rng = np.random.default_rng(seed)
  start = time.process_time()
  for content in encoded:
    crops.random_resized_crop(rng, decode.decode(content), _SIDE)
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
        raise errors.ConfigError(f'{python} has no tensorflow.')

  def seconds(self, work: str) -> float:
    return float(self._ask(work))

  def resized(self) -> np.ndarray:
    self._ask('pixels')
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


def report_folder(count: int) -> dict[str, float]:
  """Prints and returns what a folder of `count` images takes to begin with."""
  encoded = cv2.imencode('.png', np.zeros((4, 4, 3), np.uint8))[1].tobytes()
  with tempfile.TemporaryDirectory() as folder:
    for i in range(count):
      path = pathlib.Path(folder, f'class_{i % 100:02}', f'{i:08}.png')
      path.parent.mkdir(exist_ok=True)
      path.write_bytes(encoded)
    # In a process of its own, whose peak is nobody else's.
    output = subprocess.run(
      [sys.executable, __file__, '--listed', folder],
      stdout=subprocess.PIPE,
      check=True,
    ).stdout
  found = json.loads(output.splitlines()[-1])
  peak, base = (found[f'{key}_bytes'] / 1e6 for key in ('peak', 'base'))
  print(
    f'folder of {count:,} images: listed in {found["list_seconds"]:.2f} s, '
    f'first batch after {found["first_batch_seconds"]:.2f} s, peak '
    f'{peak:,.0f} MB above {base:,.0f}'
  )
  return found


def measure_folder(folder: str) -> dict[str, float]:
  """Returns times and memory of listing a folder and ten batches of 512."""
  config = _config(512)
  config.update({'dataset': folder, 'num_threads': 16})
  config.pp.update({'train': 'train[:90%]', 'test': 'train[90%:]'})
  # Not getrusage's peak, which begins with that of the parent.
  pathlib.Path('/proc/self/clear_refs').write_text('5')
  base = _memory('VmRSS')
  start = time.perf_counter()
  source = sources.load_source(config, config.pp.train)
  listed = time.perf_counter()
  batches = pipeline.train_batches(config, 0, source)
  next(batches)
  first = time.perf_counter()
  for _ in itertools.islice(batches, 10):
    pass
  batches.close()
  return {
    'list_seconds': listed - start,
    'first_batch_seconds': first - start,
    'base_bytes': base,
    'peak_bytes': _memory('VmHWM') - base,
  }


def _memory(field: str) -> int:
  """Returns bytes of this process's memory, as Linux counts them."""
  status = pathlib.Path('/proc/self/status').read_text()
  return 1024 * int(status.split(f'{field}:')[1].split()[0])


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
  command_line.start(main)
