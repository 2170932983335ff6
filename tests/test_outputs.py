"""Tests of what a model says of every example."""

import numpy as np
import pytest

from configs import vit
from vit_jax import outputs, sharding
from vit_jax.data import sources


@pytest.fixture(scope='module')
def config():
  config = vit.get_config('tiny,digits')
  config.update(batch_eval=19, num_threads=1)
  config.pp.crop = 8
  return config


@pytest.mark.parametrize('num_examples', [1, 19, 47])
def test_every_example_once_and_in_order(config, num_examples):
  source = sources.load_source(config, f'test[:{num_examples}]')
  batch = outputs.whole_split(
    lambda factor, images: {'mean': factor * images.mean((1, 2, 3))},
    np.float32(3),
    config,
    source,
    sharding.make_mesh(config.mesh),
  )
  np.testing.assert_array_equal(batch.indices, np.arange(num_examples))
  np.testing.assert_array_equal(batch.labels, source.labels)
  assert source.images is not None
  expected = 3 * ((source.images - 127.5) / 127.5).mean((1, 2, 3))
  np.testing.assert_allclose(batch.values['mean'], expected, atol=1e-5)


def test_what_can_not_be_read_is_left_out(config, tmp_path):
  from PIL import Image

  config = config.copy_and_resolve_references()
  for i, name in enumerate('abcde'):
    path = tmp_path / 'train' / ('even', 'odd')[i % 2] / f'{name}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', (8 + i, 11), (10 * i, 0, 0)).save(path)
  (tmp_path / 'train/even/c.png').write_bytes(b'no image')
  config.update(dataset=str(tmp_path), on_bad_image='skip')
  source = sources.load_source(config, 'train')
  batch = outputs.whole_split(
    lambda _, images: {'red': images[:, 0, 0, 0]},
    (),
    config,
    source,
    sharding.make_mesh(config.mesh),
  )
  names = [source.describe(int(i))[-5] for i in batch.indices]
  assert sorted(names) == ['a', 'b', 'd', 'e']
  reds = [10 * 'abcde'.index(name) for name in names]
  np.testing.assert_allclose(
    batch.values['red'] * 127.5 + 127.5, reds, atol=1e-3
  )
