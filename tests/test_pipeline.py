"""Host batches: the stream is a function of seed and step, and nothing else."""

import functools
import itertools
import multiprocessing
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from vit_jax import errors
from vit_jax.data import decode, pipeline, sources

_N = 23  # Examples; the batch of 4 below doesn't divide it.


def _config(**changes):
  config = ConfigDict(
    {
      'seed': 5,
      'batch': 4,
      'batch_eval': 8,
      'num_threads': 1,
      'pp': {
        'crop': 6,
        'area_range': (0.3, 1.0),
        'ratio_range': (3 / 4, 4 / 3),
      },
    }
  )
  config.update(changes)
  return config


def _in_memory():
  rng = np.random.default_rng(0)
  return sources.Source(
    name='small',
    split='train',
    class_names=('a',) * _N,
    labels=np.arange(_N, dtype=np.int32),
    images=rng.integers(256, size=(_N, 3, 5, 3)).astype(np.uint8),
  )


def _encoded():
  """Images of several sizes, with the index as the label."""
  rng = np.random.default_rng(0)
  records = []
  for index in range(_N):
    image = rng.integers(256, size=(9 + index, 13, 3)).astype(np.uint8)
    records.append((cv2.imencode('.png', image)[1].tobytes(), index))
  return sources.Source('large', 'train', ('a',) * _N, records=records)


_SOURCES = {'in_memory': _in_memory(), 'encoded': _encoded()}


def _take(config, start, count, kind='in_memory', **process):
  batches = pipeline.train_batches(config, start, _SOURCES[kind], **process)
  taken = list(itertools.islice(batches, count))
  batches.close()
  return taken


def _assert_same(first, second):
  assert len(first) == len(second)
  for one, other in zip(first, second, strict=True):
    assert one.keys() == other.keys()
    for key in one:
      np.testing.assert_array_equal(one[key], other[key])


@pytest.mark.parametrize('kind', _SOURCES)
def test_shapes_and_dtypes(kind):
  (batch,) = _take(_config(), 0, 1, kind)
  height, width = {'in_memory': (3, 5), 'encoded': (6, 6)}[kind]
  assert batch['image'].shape == (4, height, width, 3)
  assert batch['image'].dtype == np.uint8
  assert batch['label'].shape == (4,)
  assert batch['label'].dtype == np.int32


def test_small_images_go_out_as_they_are():
  source = _SOURCES['in_memory']
  for batch in _take(_config(), 0, 7):
    np.testing.assert_array_equal(batch['image'], source.images[batch['label']])


@pytest.mark.parametrize('kind', _SOURCES)
@pytest.mark.parametrize('start', [1, 5, 6, 17])  # Step 5 spans two epochs.
@pytest.mark.parametrize('num_threads', [0, 1, 4])
def test_starting_late_gives_the_tail_of_starting_at_zero(
  kind, start, num_threads
):
  whole = _take(_config(), 0, 20, kind)
  tail = _take(_config(num_threads=num_threads), start, 20 - start, kind)
  _assert_same(tail, whole[start:])


@pytest.mark.parametrize('kind', _SOURCES)
@pytest.mark.parametrize('process_count', [1, 2, 4])
def test_global_batch_is_the_same_for_any_number_of_processes(
  kind, process_count
):
  parts = [
    _take(_config(), 3, 6, kind, process_index=p, process_count=process_count)
    for p in range(process_count)
  ]
  joined = [
    {key: np.concatenate([part[key] for part in batch]) for key in batch[0]}
    for batch in zip(*parts, strict=True)
  ]
  _assert_same(joined, _take(_config(), 3, 6, kind))


def _epochs(config, count, kind='in_memory'):
  batches = _take(config, 0, -(-count * _N // config.batch), kind)
  stream = np.concatenate([batch['label'] for batch in batches])
  return stream[: count * _N].reshape(count, _N)


@pytest.mark.parametrize('kind', _SOURCES)
def test_each_epoch_has_every_example_once_in_a_new_order(kind):
  epochs = _epochs(_config(), 5, kind)
  np.testing.assert_array_equal(np.sort(epochs), [np.arange(_N)] * 5)
  assert len({tuple(epoch) for epoch in epochs}) == 5
  assert (epochs != np.arange(_N)).any(axis=1).all()


def test_batch_larger_than_the_data_set_goes_over_epochs():
  epochs = _epochs(_config(batch=3 * _N + 4), 6)
  np.testing.assert_array_equal(np.sort(epochs), [np.arange(_N)] * 6)


@pytest.mark.parametrize('kind', _SOURCES)
def test_seeds_differ_and_repeat(kind):
  streams = {
    tuple(_epochs(_config(seed=seed), 2, kind).ravel())
    for seed in (5, 6, -1, 2**40, 5)
  }
  assert len(streams) == 4


def test_crops_of_an_example_differ_between_epochs_and_seeds():
  crops = set()
  for seed in (5, 6):
    for batch in _take(_config(seed=seed), 0, 23, 'encoded'):
      crops |= {
        batch['image'][i].tobytes() for i in np.flatnonzero(batch['label'] == 7)
      }
  assert len(crops) == 8  # Four epochs each.


@pytest.mark.parametrize('augment', ['none', 'affine'])
def test_host_crops_only_for_the_augmentation_that_crops(augment):
  config = _config()
  config.pp.augment = augment
  source = _SOURCES['encoded']
  for batch in _take(config, 0, 6, 'encoded'):
    for image, index in zip(batch['image'], batch['label'], strict=True):
      whole = decode.decode(source.read(index)[0])
      np.testing.assert_array_equal(image, decode.resize_squash(whole, 6))


@pytest.mark.parametrize('kind', _SOURCES)
@pytest.mark.parametrize('batch_eval', [1, 8, 23, 40])
@pytest.mark.parametrize('num_threads', [0, 3])
def test_evaluation_has_every_example_once_in_order(
  kind, batch_eval, num_threads
):
  config = _config(batch_eval=batch_eval, num_threads=num_threads)
  batches = list(pipeline.eval_batches(config, _SOURCES[kind]))
  assert len(batches) == -(-_N // batch_eval)
  assert {len(batch['mask']) for batch in batches} == {batch_eval}
  joined = {
    key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]
  }
  assert joined['mask'].dtype == bool
  assert joined['label'].dtype == np.int32
  np.testing.assert_array_equal(joined['label'][joined['mask']], np.arange(_N))
  np.testing.assert_array_equal(np.flatnonzero(joined['mask']), np.arange(_N))
  assert not joined['image'][~joined['mask']].any()
  source = _SOURCES[kind]
  for index, image in enumerate(joined['image'][joined['mask']]):
    expected, _ = source.read(index)
    if kind == 'encoded':
      expected = decode.resize_squash(decode.decode(expected), 6)
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize('kind', _SOURCES)
@pytest.mark.parametrize('process_count', [2, 4])
def test_evaluation_on_processes_makes_equally_many_batches(
  kind, process_count
):
  config = _config()
  parts = [
    list(pipeline.eval_batches(config, _SOURCES[kind], p, process_count))
    for p in range(process_count)
  ]
  joined = [
    {key: np.concatenate([part[key] for part in batch]) for key in batch[0]}
    for batch in zip(*parts, strict=True)
  ]
  _assert_same(joined, list(pipeline.eval_batches(config, _SOURCES[kind])))


@pytest.mark.parametrize('num_threads', [0, 2])
@pytest.mark.parametrize('evaluation', [False, True])
def test_broken_record_raises_what_decoding_raised(num_threads, evaluation):
  source = _encoded()
  source.records[19] = (b'broken', 19)
  config = _config(num_threads=num_threads)
  batches = (
    pipeline.eval_batches(config, source)
    if evaluation
    else pipeline.train_batches(config, 0, source)
  )
  with pytest.raises(errors.DataError, match='large train record 19'):
    list(itertools.islice(batches, 6))
  batches.close()


def test_closed_iterator_gives_no_more():
  batches = pipeline.train_batches(
    _config(num_threads=2), 0, _SOURCES['encoded']
  )
  next(batches)
  batches.close()
  with pytest.raises(ValueError, match='closed'):
    next(batches)


@pytest.mark.parametrize('field', ['batch', 'batch_eval'])
def test_indivisible_batch_names_sizes_that_work(field):
  config = _config(**{field: 10})
  make = {
    'batch': functools.partial(pipeline.train_batches, config, 0),
    'batch_eval': functools.partial(pipeline.eval_batches, config),
  }[field]
  with pytest.raises(errors.ConfigError, match=f'{field} is 10.*work: 8, 12'):
    make(_SOURCES['in_memory'], 0, 4)


# --- Bad images --------------------------------------------------------------


def _with_bad(bad, count=_N):
  """A source in which some images are cut short."""
  records = [_SOURCES['encoded'].records[i % _N] for i in range(count)]
  for index in bad:
    records[index] = (records[index][0][:40], index)
  records = [(image, i) for i, (image, _) in enumerate(records)]
  return sources.Source('some', 'train', ('a',) * count, records=records)


def test_another_takes_the_place_of_a_bad_image(caplog):
  config = _config(on_bad_image='skip', num_threads=2)
  batches = [
    list(itertools.islice(pipeline.train_batches(config, start, source), n))
    for start, n, source in (
      (0, 12, _with_bad([5])),
      (4, 8, _with_bad([5])),
      (0, 12, _with_bad([])),
    )
  ]
  _assert_same(batches[0][4:], batches[1])  # Whatever was seen before.
  labels, whole = (
    np.concatenate([batch['label'] for batch in found])
    for found in (batches[0], batches[2])
  )
  assert 5 in whole and 5 not in labels
  np.testing.assert_array_equal(labels[whole != 5], whole[whole != 5])
  told = [r.getMessage() for r in caplog.records if 'Skipped' in r.getMessage()]
  assert told[0].startswith('Skipped (1 of 23 images): some train record 5: ')
  assert len(told) == 2  # Once an iterator.


def test_evaluation_leaves_out_what_is_skipped():
  config = _config(on_bad_image='skip')
  batches = list(pipeline.eval_batches(config, _with_bad([5])))
  mask = np.concatenate([batch['mask'] for batch in batches])
  assert mask.tolist() == [i != 5 for i in range(_N)] + [False]
  assert not batches[0]['image'][5].any()


@pytest.mark.parametrize('count, bad', [(_N, [5, 7]), (2003, [3, 30, 300])])
def test_too_many_bad_images_stop_it(count, bad):
  config = _config(on_bad_image='skip')
  source = _with_bad(bad, count)
  text = f'{len(bad)} of the {count:,} images of .* more than one in 1,000'
  with pytest.raises(errors.DataError, match=text) as caught:
    list(pipeline.eval_batches(config, source))
  for index in bad:
    assert f'some train record {index}: ' in str(caught.value)


# --- Processes ---------------------------------------------------------------


@pytest.fixture
def of_workers():
  """Gives the arguments of `train_batches` -> an iterator that is closed."""
  made = []

  def make(config, start, source, *args):
    made.append(pipeline.train_batches(config, start, source, *args))
    return made[-1]

  yield make
  for batches in made:
    batches.close()


def test_worker_processes_give_the_same_stream(of_workers):
  source = _SOURCES['encoded']
  wanted = _take(_config(), 3, 7, 'encoded')
  found = of_workers(_config(num_workers=2), 3, source)
  _assert_same(list(itertools.islice(found, 7)), wanted)


def test_error_in_a_worker_is_ours(of_workers):
  batches = of_workers(_config(num_workers=1, batch=_N), 0, _with_bad([5]))
  with pytest.raises(errors.DataError, match='some train record 5: '):
    next(batches)


def test_dead_worker_is_told(of_workers):
  batches = of_workers(_config(num_workers=2), 0, _SOURCES['encoded'])
  next(batches)
  children = multiprocessing.active_children()
  assert len(children) >= 2
  for child in children:
    child.kill()
  start = time.monotonic()
  with pytest.raises(errors.DataError, match='2 processes .* died'):
    for _ in range(1000):
      next(batches)
  assert time.monotonic() - start < 5


def test_workers_end_with_their_parent(tmp_path):
  script = tmp_path / 'parent.py'
  script.write_text(_PARENT)
  process = subprocess.run(
    [sys.executable, script], capture_output=True, text=True, check=False
  )
  assert process.returncode == -signal.SIGKILL, process.stderr
  workers = [int(pid) for pid in process.stdout.split()]
  assert len(workers) == 2
  end = time.monotonic() + 5
  while any(pathlib.Path(f'/proc/{pid}/cmdline').exists() for pid in workers):
    assert time.monotonic() < end
    time.sleep(0.05)


_PARENT = """
import multiprocessing, os, signal
import grain
from vit_jax.data import workers

def read(index):
  return index

if __name__ == '__main__':
  batches = workers.Batches(grain.MapDataset.range(10**6).map(read).batch(2), 2)
  next(batches), next(batches)
  pids = [child.pid for child in multiprocessing.active_children()]
  print(*pids, flush=True)
  os.kill(os.getpid(), signal.SIGKILL)
"""
