"""Bad images: skipped, named once, counted over a whole run."""

import itertools

import numpy as np
import pytest
import streams

from vit_jax import errors
from vit_jax.data import pipeline


def test_another_takes_the_place_of_a_bad_image(caplog):
  config = streams.config(on_bad_image='skip', num_threads=2)
  batches = [
    list(itertools.islice(pipeline.train_batches(config, start, source), n))
    for start, n, source in (
      (0, 12, streams.with_bad([5])),
      (4, 8, streams.with_bad([5])),
      (0, 12, streams.with_bad([])),
    )
  ]
  streams.assert_same(batches[0][4:], batches[1])  # Whatever was seen before.
  labels, whole = (
    np.concatenate([batch['label'] for batch in found])
    for found in (batches[0], batches[2])
  )
  assert 5 in whole and 5 not in labels
  np.testing.assert_array_equal(labels[whole != 5], whole[whole != 5])
  told = [r.getMessage() for r in caplog.records if 'Skipped' in r.getMessage()]
  assert told[0].startswith('Skipped (1 of 23 images): some train record 5: ')
  assert len(told) == 2  # Once a source.


def test_evaluation_leaves_out_what_is_skipped():
  config = streams.config(on_bad_image='skip')
  batches = list(pipeline.eval_batches(config, streams.with_bad([5])))
  mask = np.concatenate([batch['mask'] for batch in batches])
  assert mask.tolist() == [i != 5 for i in range(streams.N)] + [False]
  assert not batches[0]['image'][5].any()


def test_bad_image_is_named_once_in_a_run(caplog):
  config, source = streams.config(on_bad_image='skip'), streams.with_bad([5])
  for _ in range(2):
    list(itertools.islice(pipeline.train_batches(config, 0, source), 6))
    list(pipeline.eval_batches(config, source))
  told = [r.getMessage() for r in caplog.records if 'Skipped' in r.getMessage()]
  assert len(told) == 1


def test_bad_images_are_counted_over_all_readings():
  config, bad = streams.config(on_bad_image='skip'), [5, 7]
  source, steps = (
    streams.with_bad(bad),
    streams.steps_with_bad(streams.config(), bad),
  )
  first, second = sorted(steps)
  assert first < second
  next(pipeline.train_batches(config, first, source))
  with pytest.raises(errors.DataError, match='2 of the 23 images'):
    next(pipeline.train_batches(config, second, source))


@pytest.mark.parametrize('num_threads', [0, 2])
def test_no_substitute_is_sought_forever(num_threads):
  config = streams.config(on_bad_image='skip', num_threads=num_threads)
  batches = pipeline.train_batches(config, 0, streams.with_bad([0], 1))
  with pytest.raises(errors.DataError, match='64 images .*, are all bad'):
    next(batches)


@pytest.mark.parametrize(
  'count, bad, batch_eval',
  [(streams.N, [5, 7], 8), (streams.N, [5, 17], 24), (2003, [3, 30, 300], 8)],
)
def test_too_many_bad_images_stop_it(count, bad, batch_eval):
  config = streams.config(on_bad_image='skip', batch_eval=batch_eval)
  source = streams.with_bad(bad, count)
  text = f'{len(bad)} of the {count:,} images of .* more than one in 1,000'
  with pytest.raises(errors.DataError, match=text) as caught:
    list(pipeline.eval_batches(config, source))
  for index in bad:
    assert f'some train record {index}: ' in str(caught.value)
