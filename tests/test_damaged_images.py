"""A thousand damaged images: an image or our error, soon, small and silent."""

import random
import resource
import time

import damaged_images
import numpy as np
import pytest

from vit_jax import errors
from vit_jax.data import complaints, decode

# (first seed, number of cases) for each of the kinds.
FAST = (0, 34)
THOROUGH = (34, 700)
MAX_SECONDS = 1
MAX_BYTES = 500 << 20  # Above what the process has had before.
# Whether their compressed data are damaged is only known to the libraries that
# decode them, and these print it; all others are silent.
_MAY_PRINT = ('jpeg', 'tiff')


def test_there_are_a_thousand():
  assert len(damaged_images.whole()) * FAST[1] >= 1000


@pytest.mark.parametrize(
  'seeds', [FAST, pytest.param(THOROUGH, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('read', [decode.decode, decode.decode_alone])
@pytest.mark.parametrize('kind', damaged_images.whole())
def test_damaged_images_are_read_or_told(kind, read, seeds, capfd):
  content = damaged_images.whole()[kind]
  assert read(content, kind).shape in ((29, 37, 3), (37, 29, 3))
  assert capfd.readouterr() == ('', '')
  texts, (first, count) = [], seeds
  memory = _most_memory()
  for seed in range(first, first + count):
    damaged = damaged_images.damaged(content, random.Random(f'{kind} {seed}'))
    start = time.thread_time()
    try:
      image = read(damaged, kind)
    except errors.DataError as error:
      texts.append(str(error))
    else:
      assert (image.dtype, image.ndim, image.shape[2]) == (np.uint8, 3, 3)
      assert image.size
    assert time.thread_time() - start < MAX_SECONDS, seed
    out, printed = capfd.readouterr()
    may_print = read is decode.decode and kind.startswith(_MAY_PRINT)
    assert not out
    assert may_print or not printed, seed
    lines = printed.encode().splitlines()
    assert all(map(complaints.is_complaint, lines)), (seed, printed)
  assert len(texts) > count / 5
  assert all(text.startswith(f'{kind}: ') for text in texts)
  assert _most_memory() - memory < MAX_BYTES


def _most_memory() -> int:
  """Returns the most bytes that the process has ever had."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
