"""Thousands of damaged files: only our errors, no hang, little memory.

Every case is drawn from its seed, so a failure names the file that it needs.
"""

import signal
import tracemalloc

import numpy as np
import parity
import pytest
from flax import traverse_util

import vit_jax
from vit_jax import checkpoints, errors
from vit_jax.checkpoints import files

# (first seed, number of cases) for each family.
FAST = (0, 500)
THOROUGH = (500, 4_000)
# A base file has 30 kB. The rest is what Python and its zip module need.
MAX_BYTES = 4 << 20
MAX_SECONDS = 300  # For a family; at 10 ms a file.
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF)
WIDTH, HEADS, MLP = 12, 3, 20


def flip(data: bytearray, rng) -> None:
  data[rng.integers(len(data))] ^= 1 << rng.integers(8)


def overwrite(data: bytearray, rng) -> None:
  """Overwrites up to 8 bytes, as a field of a header has."""
  start, size = rng.integers(len(data)), rng.integers(1, 9)
  data[start : start + size] = bytes([rng.choice(EXTREMES)]) * size


def noise(data: bytearray, rng) -> None:
  start, size = rng.integers(len(data)), rng.integers(1, 200)
  data[start : start + size] = rng.bytes(size)


def truncate(data: bytearray, rng) -> None:
  del data[rng.integers(len(data)) :]


def cut(data: bytearray, rng) -> None:
  start = rng.integers(len(data))
  del data[start : start + rng.integers(1, 200)]


def insert(data: bytearray, rng) -> None:
  start = rng.integers(len(data))
  data[start:start] = rng.bytes(rng.integers(1, 200))


def repeat(data: bytearray, rng) -> None:
  """Copies a piece to another place."""
  source, target = rng.integers(len(data), size=2)
  piece = data[source : source + rng.integers(1, 500)]
  data[target : target + len(piece)] = piece


def change_digit(data: bytearray, rng) -> None:
  """Changes a number that is written out, such as a size in a header."""
  digits = [i for i, byte in enumerate(data) if 0x30 <= byte <= 0x39]
  data[rng.choice(digits)] = rng.choice([*b'0123456789-.e'])


MUTATIONS = (
  *(flip, overwrite, noise, truncate, cut, insert, repeat),
  *(change_digit, change_digit),
)


def params():
  """Returns those of a ViT so small that its headers are half of the file."""
  config = vit_jax.model_config('tiny')
  config.hidden_size = WIDTH
  config.transformer.update(
    {'mlp_dim': MLP, 'num_heads': HEADS, 'num_layers': 2}
  )
  config.classifier = 'token'
  import jax

  model = vit_jax.create_model(config, 5)
  shapes = jax.eval_shape(
    model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 12, 12, 3), 'f4')
  )
  flat = traverse_util.flatten_dict(shapes['params'], sep='/')
  drawn = parity.make_checkpoint({k: v.shape for k, v in flat.items()}, 0)
  return traverse_util.unflatten_dict(drawn, sep='/')


def write_compressed(tree, path) -> None:
  checkpoints.save_params(tree, path)
  with np.load(path) as file:
    np.savez_compressed(path, **file)


FAMILIES = {
  'google.npz': checkpoints.save_params,
  'compressed.npz': write_compressed,
  'timm.safetensors': checkpoints.save_params,
  'transformers.safetensors': lambda tree, path: checkpoints.save_params(
    tree, path, names='transformers'
  ),
}


@pytest.fixture
def _alarm():
  def stop(*_):
    raise TimeoutError('A file takes forever.')

  before = signal.signal(signal.SIGALRM, stop)
  signal.alarm(MAX_SECONDS)
  yield
  signal.alarm(0)
  signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures('_alarm')
@pytest.mark.parametrize(
  'seeds', [FAST, pytest.param(THOROUGH, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize('family', FAMILIES)
def test_damaged_files_give_our_errors(family, seeds, tmp_path):
  path = tmp_path / family
  FAMILIES[family](params(), path)
  whole = path.read_bytes()
  texts, (first, num_cases) = [], seeds
  tracemalloc.start()
  try:
    for seed in range(first, first + num_cases):
      rng = np.random.default_rng(seed)
      data = bytearray(whole)
      for _ in range(rng.integers(1, 4)):
        if data:
          MUTATIONS[rng.integers(len(MUTATIONS))](data, rng)
      path.write_bytes(data)
      tracemalloc.reset_peak()
      before = tracemalloc.get_traced_memory()[0]
      try:
        read(path)
      except errors.UserError as error:
        texts.append(str(error))
      peak = tracemalloc.get_traced_memory()[1] - before
      assert peak < MAX_BYTES, f'seed {seed}: {peak:,} bytes'
  finally:
    tracemalloc.stop()
  assert len(texts) > num_cases / 2
  assert all(str(path) in text for text in texts)


def read(path) -> None:
  """Reads a file without JAX, which would take most of the time."""
  from vit_jax.checkpoints import arrays

  with files.open_weights(path, HEADS) as stored:
    arrays.read_arrays(stored.arrays, stored.path)
