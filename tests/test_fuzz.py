"""Thousands of damaged files: only our errors, no hang, little memory.

Every case is drawn from its seed, so a failure names the file that it needs.
"""

import functools
import io
import json
import signal
import tracemalloc
import zipfile

import jax
import ml_dtypes
import numpy as np
import parity
import pytest
import safetensors.numpy
from flax import traverse_util
from trees import flat

import vit_jax
from vit_jax import checkpoints, errors
from vit_jax.checkpoints import arrays, files
from vit_jax.checkpoints.names import timm, transformers
from vit_jax.inspection import describe

# (first seed, number of cases) for each family.
FAST = (0, 260)
THOROUGH = (260, 1_500)
# A base file has 30 to 130 kB. The rest is what Python and its zip module need.
MAX_BYTES = 4 << 20
MAX_SECONDS = 300  # For a family; at 20 ms a file.
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
  digits = np.frombuffer(data, 'u1')
  digits = np.flatnonzero((digits >= 0x30) & (digits <= 0x39))
  if len(digits):
    data[rng.choice(digits)] = rng.choice([*b'0123456789-.e'])


def change_header(data: bytearray, rng) -> None:
  """Changes a digit near the beginning, where formats have their headers."""
  head = data[: min(len(data), 6_000)]
  change_digit(head, rng)
  data[: len(head)] = head


MUTATIONS = (
  *(flip, overwrite, noise, truncate, cut, insert, repeat),
  *(change_digit, change_header),
)


@functools.cache
def weights(kind='ViT'):
  """Returns flat ones so small that their headers are much of the file."""
  config = vit_jax.model_config('Mixer-B_16' if kind == 'Mixer' else 'tiny')
  if kind == 'Mixer':
    config.update(
      hidden_dim=WIDTH, num_blocks=2, tokens_mlp_dim=7, channels_mlp_dim=MLP
    )
  else:
    config.hidden_size = WIDTH
    config.transformer.update(mlp_dim=MLP, num_heads=HEADS, num_layers=2)
    config.classifier = 'token'
  config.patches.size = (4, 4)
  if kind == 'hybrid':
    config.resnet = {'num_layers': (1,), 'width_factor': 0.5}
    config.patches.size = (1, 1)
  model = vit_jax.create_model(config, 5)
  images = jax.ShapeDtypeStruct((1, 12, 12, 3), 'f4')
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  layout = {key: leaf.shape for key, leaf in flat(shapes).items()}
  return parity.make_checkpoint(layout, 0)


def write(path, kind='ViT', **kwargs) -> None:
  tree = traverse_util.unflatten_dict(weights(kind), sep='/')
  checkpoints.save_params(tree, path, **kwargs)


def write_compressed(path) -> None:
  write(path)
  with np.load(path) as file:
    np.savez_compressed(path, **file)


def write_with_the_library(path, family, kind='ViT') -> None:
  """Without the checksums of ours."""
  found = family.from_ours(weights(kind))
  found = {key: np.asarray(x, order='C') for key, x in found.items()}
  safetensors.numpy.save_file(found, path)


def write_scanned(path) -> None:
  """As big_vision does it, in bfloat16."""
  found = dict(weights())
  positions = found.pop('Transformer/posembed_input/pos_embedding')
  found['pos_embedding'] = positions[:, 1:]
  first, second = (f'Transformer/encoderblock_{i}/' for i in range(2))
  for key in [key for key in found if key.startswith(first)]:
    rest = key.removeprefix(first)
    pair = found.pop(key), found.pop(second + rest)
    found[f'Transformer/encoderblock/{rest}'] = np.stack(pair)
  found = {k: v.astype(ml_dtypes.bfloat16) for k, v in found.items()}
  np.savez(path, **{f'params/img/{k}': v for k, v in found.items()})


FAMILIES = {
  'google.npz': write,
  'compressed.npz': write_compressed,
  'scanned.npz': write_scanned,
  'mixer.npz': functools.partial(write, kind='Mixer'),
  'timm.safetensors': write,
  'transformers.safetensors': functools.partial(write, names='transformers'),
  'hybrid of the library.safetensors': functools.partial(
    write_with_the_library, family=timm, kind='hybrid'
  ),
  'transformers of the library.safetensors': functools.partial(
    write_with_the_library, family=transformers
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
  FAMILIES[family](path)
  whole = path.read_bytes()
  read(path)
  assert describe(path, HEADS).command
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
      found, peak = looked_at(path)
      texts += found
      assert peak < MAX_BYTES, f'seed {seed}: {peak:,} bytes'
  finally:
    tracemalloc.stop()
  # Of what has no checksums, one reading may succeed: values change unseen.
  assert len(texts) > num_cases / 2
  assert all(str(path) in text for text in texts)


def looked_at(path) -> tuple[list[str], int]:
  """Returns the texts of the errors of a file, and the memory it took."""
  texts = []
  tracemalloc.reset_peak()
  before = tracemalloc.get_traced_memory()[0]
  for look in (read, functools.partial(describe, num_heads=HEADS)):
    try:
      look(path)
    except errors.UserError as error:
      texts.append(str(error))
  return texts, tracemalloc.get_traced_memory()[1] - before


def read(path) -> None:
  """Reads a file without JAX, which would take most of the time."""
  with files.open_weights(path, HEADS) as stored:
    arrays.read_arrays(stored.arrays, stored.path)


# --- Files that claim what they don't have ------------------------------------


def header_of(entries, data=b'') -> bytes:
  text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
  return len(text).to_bytes(8, 'little') + text + data


def empty(key, shape, count=1):
  """Returns the header of arrays that have no bytes."""
  entry = {'dtype': 'F32', 'shape': shape, 'data_offsets': [0, 0]}
  return header_of({key.format(i): entry for i in range(count)})


def archive(members, method=zipfile.ZIP_DEFLATED) -> bytes:
  content = io.BytesIO()
  with zipfile.ZipFile(content, 'w', method) as file:
    for key, value in members.items():
      file.writestr(f'{key}.npy', value)
  return content.getvalue()


def array_header(size, text, version=2) -> bytes:
  return b'\x93NUMPY' + bytes([version, 0]) + size.to_bytes(4, 'little') + text


def many(num_members) -> bytes:
  content = io.BytesIO()
  np.save(content, np.zeros((0, 3), 'f4'))
  stacks = {
    f'Transformer/encoderblock/{i}': content.getvalue()
    for i in range(num_members)
  }
  return archive(stacks)


STACK = 'Transformer/encoderblock/{}'
HOSTILE = {
  'long header.npz': lambda: archive(
    {'head/bias': array_header(600 << 20, b' ' * (15 << 20))}
  ),
  'nested header.npz': lambda: archive(
    {'head/bias': array_header(9_000, b'(' * 9_000)}
  ),
  'many arrays.npz': lambda: many(2_000),
  'stacks.safetensors': lambda: empty(STACK, [1000, 0], 1_999),
  'stack of stacks.safetensors': lambda: empty(STACK, [0, 1 << 40], 1_999),
  'heads.safetensors': lambda: empty(
    'blocks.{}.attn.qkv.weight', [0, 3], 1_999
  ),
  'wide.safetensors': lambda: empty('{}', [0], 2_001),
  'odd numbers.safetensors': lambda: empty('block{}/unit1/a', [0], 1_999),
  'no positions.safetensors': lambda: header_of(
    {
      key: {'dtype': 'F32', 'shape': shape, 'data_offsets': [0, 0]}
      for key, shape in {
        'cls_token': [1, 1, 0],
        'pos_embed': [1, 0, 1 << 40],
        'blocks.0.attn.qkv.weight': [3 << 40, 0],
      }.items()
    }
  ),
  'deep.safetensors': lambda: header_of(b'{"a": ' + b'[' * 900_000),
  'deep objects.safetensors': lambda: header_of(b'{"a":' * 170_000),
  'deep checksums.safetensors': lambda: header_of(
    {'__metadata__': {'vit_jax.crc32': '[' * 900_000}}
  ),
  'digits.safetensors': lambda: header_of(
    b'{"a": ' + b'1' * 900_000 + b'}'
  ),
}  # fmt: skip


@pytest.mark.usefixtures('_alarm')
@pytest.mark.parametrize('name', HOSTILE)
def test_claims_are_refused_before_memory_is_taken(name, tmp_path):
  path = tmp_path / name
  path.write_bytes(HOSTILE[name]())
  tracemalloc.start()
  try:
    texts, peak = looked_at(path)
  finally:
    tracemalloc.stop()
  assert texts  # Some could be read, had they any numbers.
  assert peak < 32 << 20
  assert max(map(len, texts)) < 10_000
