"""Host batches: the stream is a function of seed and step, and nothing else."""

import functools
import itertools
import multiprocessing
import threading
import time
import types

import numpy as np
import pytest
import streams

from vit_jax import errors, evaluate, sharding
from vit_jax.data import crops, decode, pipeline


@pytest.mark.parametrize('kind', streams.SOURCES)
def test_shapes_and_dtypes(kind):
  (batch,) = streams.take(streams.config(), 0, 1, kind)
  height, width = {'in_memory': (3, 5), 'encoded': (6, 6)}[kind]
  assert batch['image'].shape == (4, height, width, 3)
  assert batch['image'].dtype == np.uint8
  assert batch['label'].shape == (4,)
  assert batch['label'].dtype == np.int32


def test_small_images_go_out_as_they_are():
  source = streams.SOURCES['in_memory']
  for batch in streams.take(streams.config(), 0, 7):
    np.testing.assert_array_equal(batch['image'], source.images[batch['label']])


@pytest.mark.parametrize('kind', streams.SOURCES)
@pytest.mark.parametrize('start', [1, 5, 6, 17])  # Step 5 spans two epochs.
@pytest.mark.parametrize('num_threads', [0, 1, 4])
def test_starting_late_gives_the_tail_of_starting_at_zero(
  kind, start, num_threads
):
  whole = streams.take(streams.config(), 0, 20, kind)
  tail = streams.take(
    streams.config(num_threads=num_threads), start, 20 - start, kind
  )
  streams.assert_same(tail, whole[start:])


@pytest.mark.parametrize('num_threads', [0, 3])
@pytest.mark.parametrize('batch', [1, 7, 8, 12, 22])  # 12 and 22 in parts.
def test_stream_is_the_same_for_any_size_of_batch(num_threads, batch):
  start = 3
  config = streams.config(batch=batch, num_threads=num_threads)
  found = streams.take(config, start, 5, 'encoded')
  whole = streams.take(streams.config(), 0, -(-8 * batch // 4), 'encoded')
  for key in ('image', 'label'):
    stream = np.concatenate([each[key] for each in whole])
    np.testing.assert_array_equal(
      np.concatenate([each[key] for each in found]),
      stream[start * batch : (start + 5) * batch],
    )


@pytest.mark.parametrize('kind', streams.SOURCES)
@pytest.mark.parametrize('process_count', [1, 2, 4])
def test_global_batch_is_the_same_for_any_number_of_processes(
  kind, process_count
):
  parts = [
    streams.take(
      streams.config(), 3, 6, kind, process_index=p, process_count=process_count
    )
    for p in range(process_count)
  ]
  joined = [
    {key: np.concatenate([part[key] for part in batch]) for key in batch[0]}
    for batch in zip(*parts, strict=True)
  ]
  streams.assert_same(joined, streams.take(streams.config(), 3, 6, kind))


def _epochs(config, count, kind='in_memory'):
  batches = streams.take(config, 0, -(-count * streams.N // config.batch), kind)
  stream = np.concatenate([batch['label'] for batch in batches])
  return stream[: count * streams.N].reshape(count, streams.N)


@pytest.mark.parametrize('kind', streams.SOURCES)
def test_each_epoch_has_every_example_once_in_a_new_order(kind):
  epochs = _epochs(streams.config(), 5, kind)
  np.testing.assert_array_equal(np.sort(epochs), [np.arange(streams.N)] * 5)
  assert len({tuple(epoch) for epoch in epochs}) == 5
  assert (epochs != np.arange(streams.N)).any(axis=1).all()


def test_batch_larger_than_the_data_set_goes_over_epochs():
  epochs = _epochs(streams.config(batch=3 * streams.N + 4), 6)
  np.testing.assert_array_equal(np.sort(epochs), [np.arange(streams.N)] * 6)


@pytest.mark.parametrize('kind', streams.SOURCES)
def test_seeds_differ_and_repeat(kind):
  found = {
    tuple(_epochs(streams.config(seed=seed), 2, kind).ravel())
    for seed in (5, 6, -1, 2**40, 5)
  }
  assert len(found) == 4


def test_crops_of_an_example_differ_between_epochs_and_seeds():
  crops = set()
  for seed in (5, 6):
    for batch in streams.take(streams.config(seed=seed), 0, 23, 'encoded'):
      crops |= {
        batch['image'][i].tobytes() for i in np.flatnonzero(batch['label'] == 7)
      }
  assert len(crops) == 8  # Four epochs each.


def test_copies_of_an_example_are_cropped_differently():
  config = streams.config()
  config.pp.repeats = 2
  differ = 0
  for batch in streams.take(config, 0, 17, 'encoded'):
    np.testing.assert_array_equal(batch['label'][::2], batch['label'][1::2])
    for one, other in batch['image'].reshape(2, 2, 6, 6, 3):
      differ += (one != other).any()
  assert 30 < differ <= 34  # Of so few rows and columns, some are alike.


def test_last_box_that_is_tried_has_its_numbers():
  # Of no width, nine times; then all of the image.
  numbers = 9 * [0.0, 0.0] + [1.0, 0.0] + [0.0, 0.0]
  assert len(numbers) == crops.MAX_DRAWS
  rng = types.SimpleNamespace(random=iter(numbers).__next__)
  assert crops._random_box(rng, 7, 7, (0, 1), (1, 1)) == (0, 0, 7, 7)


@pytest.mark.parametrize('augment', ['none', 'affine'])
def test_host_crops_only_for_the_augmentation_that_crops(augment):
  config = streams.config()
  config.pp.augment = augment
  source = streams.SOURCES['encoded']
  for batch in streams.take(config, 0, 6, 'encoded'):
    for image, index in zip(batch['image'], batch['label'], strict=True):
      whole = decode.decode(source.read(index)[0])
      np.testing.assert_array_equal(image, crops.resize_squash(whole, 6))


def test_host_crops_the_same_whether_the_device_mirrors_or_not():
  taken = []
  for augment in ('crop_flip', 'crop'):
    config = streams.config()
    config.pp.augment = augment
    taken.append(streams.take(config, 0, 6, 'encoded'))
  for mirrored, plain in zip(*taken, strict=True):
    np.testing.assert_array_equal(mirrored['image'], plain['image'])


@pytest.mark.parametrize('kind', streams.SOURCES)
@pytest.mark.parametrize('batch_eval', [1, 8, 23, 40])
@pytest.mark.parametrize('num_threads', [0, 3])
def test_evaluation_has_every_example_once_in_order(
  kind, batch_eval, num_threads
):
  config = streams.config(batch_eval=batch_eval, num_threads=num_threads)
  batches = list(pipeline.eval_batches(config, streams.SOURCES[kind]))
  assert len(batches) == -(-streams.N // batch_eval)
  assert {len(batch['mask']) for batch in batches} == {batch_eval}
  joined = {
    key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]
  }
  assert joined['mask'].dtype == bool
  assert joined['label'].dtype == np.int32
  np.testing.assert_array_equal(
    joined['label'][joined['mask']], np.arange(streams.N)
  )
  np.testing.assert_array_equal(
    np.flatnonzero(joined['mask']), np.arange(streams.N)
  )
  assert not joined['image'][~joined['mask']].any()
  source = streams.SOURCES[kind]
  for index, image in enumerate(joined['image'][joined['mask']]):
    expected, _ = source.read(index)
    if kind == 'encoded':
      expected = crops.resize_squash(decode.decode(expected), 6)
    np.testing.assert_array_equal(image, expected)


def test_evaluation_can_cut_the_middle_out():
  config = streams.config(batch_eval=streams.N)
  config.pp.test_resize = 8
  source = streams.SOURCES['encoded']
  (batch,) = pipeline.eval_batches(config, source)
  for index, image in enumerate(batch['image']):
    whole = decode.decode(source.read(index)[0])
    np.testing.assert_array_equal(image, crops.resize_and_crop(whole, 8, 6))


@pytest.mark.parametrize('kind', streams.SOURCES)
@pytest.mark.parametrize('process_count', [2, 4])
def test_evaluation_on_processes_makes_equally_many_batches(
  kind, process_count
):
  config = streams.config()
  parts = [
    list(pipeline.eval_batches(config, streams.SOURCES[kind], p, process_count))
    for p in range(process_count)
  ]
  joined = [
    {key: np.concatenate([part[key] for part in batch]) for key in batch[0]}
    for batch in zip(*parts, strict=True)
  ]
  streams.assert_same(
    joined, list(pipeline.eval_batches(config, streams.SOURCES[kind]))
  )


def _reading_threads():
  names = [thread.name for thread in threading.enumerate()]
  return [name for name in names if name.startswith('grain')]


def test_evaluation_that_fails_leaves_no_threads():
  def fail(*_):
    raise ValueError('by the step')

  with pytest.raises(ValueError, match='by the step') as caught:
    evaluate.evaluate_sets(
      fail,
      {},
      streams.config(num_threads=3),
      {'test': streams.SOURCES['encoded']},
      sharding.make_mesh(),
    )
  # Held by `caught`, they could not end by themselves.
  assert caught.tb is not None
  end = time.monotonic() + 5
  while _reading_threads():
    assert time.monotonic() < end
    time.sleep(0.01)


def test_evaluation_starts_no_processes():
  wanted = list(
    pipeline.eval_batches(streams.config(), streams.SOURCES['encoded'])
  )
  for num_threads in (0, 1):
    config = streams.config(num_workers=2, num_threads=num_threads)
    batches = pipeline.eval_batches(config, streams.SOURCES['encoded'])
    found = [next(batches)]
    assert not multiprocessing.active_children()
    assert _reading_threads()
    streams.assert_same([*found, *batches], wanted)
    batches.close()


@pytest.mark.parametrize('num_threads', [0, 2])
@pytest.mark.parametrize('evaluation', [False, True])
def test_broken_record_raises_what_decoding_raised(num_threads, evaluation):
  source = streams.encoded()
  source.records[19] = (b'broken', 19)
  config = streams.config(num_threads=num_threads)
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
    streams.config(num_threads=2), 0, streams.SOURCES['encoded']
  )
  next(batches)
  batches.close()
  with pytest.raises(ValueError, match='closed'):
    next(batches)


@pytest.mark.parametrize('field', ['batch', 'batch_eval'])
def test_indivisible_batch_names_sizes_that_work(field):
  config = streams.config(**{field: 10})
  make = {
    'batch': functools.partial(pipeline.train_batches, config, 0),
    'batch_eval': functools.partial(pipeline.eval_batches, config),
  }[field]
  with pytest.raises(errors.ConfigError, match=f'{field} is 10.*work: 8, 12'):
    make(streams.SOURCES['in_memory'], 0, 4)
