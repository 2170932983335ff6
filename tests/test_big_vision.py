"""Files as big_vision writes them, held against the slow reference."""

import functools

import jax
import ml_dtypes
import numpy as np
import parity
import pytest
import reference

import vit_jax
from vit_jax import checkpoints, errors
from vit_jax.checkpoints.arrays import StoredArray
from vit_jax.checkpoints.names import big_vision

SIZE, PATCH, WIDTH, DEPTH, HEADS, MLP, CLASSES = 12, 4, 20, 3, 5, 13, 7
GRID = SIZE // PATCH
IMAGES = parity.make_images(2, SIZE, SIZE, 0)
POSITIONS = 'Transformer/posembed_input/pos_embedding'


def attention(prefix):
  name = f'{prefix}/MultiHeadDotProductAttention_0'
  layout = {f'{name}/out/kernel': (HEADS, WIDTH // HEADS, WIDTH)}
  layout[f'{name}/out/bias'] = (WIDTH,)
  for part in ('query', 'key', 'value'):
    layout[f'{name}/{part}/kernel'] = (WIDTH, HEADS, WIDTH // HEADS)
    layout[f'{name}/{part}/bias'] = (HEADS, WIDTH // HEADS)
  return layout


def mlp(prefix):
  return {
    f'{prefix}/MlpBlock_0/Dense_0/kernel': (WIDTH, MLP),
    f'{prefix}/MlpBlock_0/Dense_0/bias': (MLP,),
    f'{prefix}/MlpBlock_0/Dense_1/kernel': (MLP, WIDTH),
    f'{prefix}/MlpBlock_0/Dense_1/bias': (WIDTH,),
  }


def norm(name):
  return {f'{name}/scale': (WIDTH,), f'{name}/bias': (WIDTH,)}


def newest_file(pooling='gap', positions='learned'):
  """Returns the weights of a file in big_vision's current layout."""
  layout = {
    'embedding/kernel': (PATCH, PATCH, 3, WIDTH),
    'embedding/bias': (WIDTH,),
    **norm('Transformer/encoder_norm'),
    'head/kernel': (WIDTH, CLASSES),
    'head/bias': (CLASSES,),
  }
  for i in range(DEPTH):
    block = f'Transformer/encoderblock_{i}'
    layout |= attention(block) | mlp(block)
    layout |= norm(f'{block}/LayerNorm_0') | norm(f'{block}/LayerNorm_1')
  if positions == 'learned':
    layout['pos_embedding'] = (1, GRID**2, WIDTH)
  if pooling == 'token':
    layout['cls'] = (1, 1, WIDTH)
  if pooling == 'map':
    layout['MAPHead_0/probe'] = (1, 1, WIDTH)
    layout |= attention('MAPHead_0') | mlp('MAPHead_0')
    layout |= norm('MAPHead_0/LayerNorm_0')
  return parity.make_checkpoint(layout, 0)


def as_ours(file):
  """Returns the weights of `newest_file` as the reference takes them."""
  flat = dict(file)
  if 'pos_embedding' in flat:
    found = flat.pop('pos_embedding')
    empty = np.zeros((1, int('cls' in flat), WIDTH), 'f4')
    flat[POSITIONS] = np.concatenate([empty, found], axis=1)
  return flat


def as_two_towers(file):
  """Returns a training state of the towers of an image and of a text."""
  rng = np.random.default_rng(0)
  weights = {f'img/{key}': value for key, value in file.items()}
  weights |= {
    'txt/Embed_0/embedding': rng.normal(size=(31, WIDTH)),
    'txt/pos_embedding': rng.normal(size=(1, 11, WIDTH)),
    'txt/Encoder_0/encoder_norm/scale': rng.normal(size=WIDTH),
    'txt/head/kernel': rng.normal(size=(WIDTH, CLASSES)),
    't': np.ones(1),
    'b': np.ones(1),
  }
  state = {f'params/{key}': value for key, value in weights.items()}
  return state | {'opt/0/count': np.int32(1), 'opt/0/mu/t': np.ones(1)}


def as_stack(file):
  """Returns the file of a model whose blocks are scanned."""
  block = 'Transformer/encoderblock'
  stacked = {
    key.replace('_0', '', 1): np.stack(
      [file[key.replace('_0', f'_{i}', 1)] for i in range(DEPTH)]
    )
    for key in file
    if key.startswith(f'{block}_0/')
  }
  rest = {k: v for k, v in file.items() if not k.startswith(f'{block}_')}
  return stacked | rest


def with_old_positions(file):
  """Returns the file as before 2022: a slot more, inside the encoder."""
  slot = np.full((1, 1, WIDTH), 0.25, 'f4')
  found = np.concatenate([slot, file['pos_embedding']], axis=1)
  old = {k: v for k, v in file.items() if k != 'pos_embedding'}
  old['Transformer/pos_embedding'] = found
  if 'cls' in old:
    old['cls'] = old['cls'] - slot  # So that the sum is the same.
  return old


def with_inlined_head(file):
  return {key.removeprefix('MAPHead_0/'): file[key] for key in file}


def as_bfloat16(file):
  return {key: file[key].astype(ml_dtypes.bfloat16) for key in file}


@functools.cache
def compiled(pooling, positions):
  config = {
    'patches': {'size': (PATCH, PATCH)},
    'hidden_size': WIDTH,
    'transformer': {'mlp_dim': MLP, 'num_heads': HEADS, 'num_layers': DEPTH},
    'classifier': pooling,
    'position_embedding': positions,
  }
  model = vit_jax.create_model(config, CLASSES)
  return model, jax.jit(lambda params: model.apply({'params': params}, IMAGES))


@pytest.mark.parametrize(
  ('pooling', 'positions', 'change'),
  [
    ('token', 'learned', dict),
    ('gap', 'learned', dict),
    ('map', 'learned', dict),
    ('gap', 'sincos2d', dict),
    ('map', 'learned', as_two_towers),
    ('token', 'learned', as_stack),
    ('gap', 'sincos2d', as_stack),
    ('token', 'learned', with_old_positions),
    ('gap', 'learned', with_old_positions),
    ('map', 'learned', with_inlined_head),
    ('gap', 'learned', as_bfloat16),
    ('token', 'learned', as_bfloat16),
  ],
)
def test_logits_are_the_references(tmp_path, pooling, positions, change):
  file = newest_file(pooling, positions)
  if change is as_bfloat16:
    file = {key: np.float32(value) for key, value in as_bfloat16(file).items()}
  wanted = reference.vit_logits(
    as_ours(file),
    IMAGES,
    patch=PATCH,
    classifier=pooling,
    position_embedding=positions,
  )
  path = tmp_path / 'file.npz'
  np.savez(path, **change(file))
  model, apply = compiled(pooling, positions)
  params = checkpoints.load_pretrained(path, model, SIZE, fresh_head=False)
  assert parity.relative_error(apply(params), wanted) < 1e-5


def test_legacy_numbering_beside_old_positions(tmp_path):
  file = with_old_positions(newest_file('token'))
  legacy = {
    'MultiHeadDotProductAttention_0': 'MultiHeadDotProductAttention_1',
    'LayerNorm_1': 'LayerNorm_2',
    'MlpBlock_0': 'MlpBlock_3',
  }
  renamed = {}
  for key, value in file.items():
    for new, old in legacy.items():
      key = key.replace(f'/{new}/', f'/{old}/')
    renamed[key] = value
  assert set(renamed) != set(file)
  for path, arrays in {'new.npz': file, 'old.npz': renamed}.items():
    np.savez(tmp_path / path, **arrays)
  new, old = (
    checkpoints.load_params(tmp_path / path) for path in ('new.npz', 'old.npz')
  )
  jax.tree.map(np.testing.assert_array_equal, old, new)


def test_position_embedding_without_slot_is_resized_as_a_grid(tmp_path):
  path = tmp_path / 'file.npz'
  np.savez(path, **newest_file('token'))
  model, _ = compiled('token', 'learned')
  params = checkpoints.load_pretrained(path, model, 2 * SIZE)
  found = params['Transformer']['posembed_input']['pos_embedding']
  assert found.shape == (1, 1 + (2 * GRID) ** 2, WIDTH)
  assert not found[:, 0].any()


@pytest.mark.parametrize('change', [dict, with_old_positions])
@pytest.mark.parametrize('pooling', ['token', 'gap'])
def test_grid_that_is_no_square(tmp_path, pooling, change):
  """3 by 5 patches: 15 and a slot are as many as 4 by 4."""
  size = (3 * PATCH, 5 * PATCH)
  rng = np.random.default_rng(0)
  table = rng.normal(size=(1, 15, WIDTH)).astype('f4')
  file = newest_file(pooling) | {'pos_embedding': table}
  path = tmp_path / 'file.npz'
  np.savez(path, **change(file))
  model, _ = compiled(pooling, 'learned')
  params = checkpoints.load_pretrained(path, model, size, fresh_head=False)
  found = params['Transformer']['posembed_input']['pos_embedding']
  num_slots = int(pooling == 'token')
  assert found.shape == (1, 15 + num_slots, WIDTH)
  np.testing.assert_array_equal(found[:, num_slots:], table)
  # Beside the old positions, the class token is that much smaller.
  is_old = change is with_old_positions
  np.testing.assert_array_equal(found[:, :num_slots], 0.25 * is_old)


def error_of(tmp_path, file):
  np.savez(tmp_path / 'file.npz', **file)
  with pytest.raises(errors.CheckpointError) as caught:
    checkpoints.load_params(tmp_path / 'file.npz')
  return str(caught.value)


def test_two_position_embeddings_are_refused(tmp_path):
  file = newest_file()
  text = error_of(tmp_path, file | {POSITIONS: file['pos_embedding']})
  assert f'found {POSITIONS} and pos_embedding' in text


def test_stacks_of_several_depths_are_refused(tmp_path):
  file = as_stack(newest_file())
  key = 'Transformer/encoderblock/LayerNorm_0/bias'
  text = error_of(tmp_path, file | {key: file[key][1:]})
  assert f'{key}: ({DEPTH - 1}, {WIDTH})' in text


def test_absurd_depth_is_refused(tmp_path):
  key = 'Transformer/encoderblock/LayerNorm_0/bias'
  text = error_of(tmp_path, {key: np.zeros((201, 1))})
  assert 'from 1 to 200' in text
  assert '(201, 1)' in text


def refused_stack(num_keys, shape):
  arrays = {
    f'Transformer/encoderblock/{i}': StoredArray(
      '', shape, np.dtype('f4'), lambda: np.zeros(0)
    )
    for i in range(num_keys)
  }
  with pytest.raises(errors.CheckpointError) as caught:
    big_vision.to_ours(arrays, num_heads=None, source='a file')
  return str(caught.value)


@pytest.mark.parametrize(
  ('num_keys', 'shape'), [(1, (5, 0)), (1, (0,)), (101, (199, 3))]
)
def test_stack_that_claims_more_than_it_has(num_keys, shape):
  text = refused_stack(num_keys, shape)
  assert 'in at most 20,000 arrays of some numbers' in text
  assert text.count('encoderblock/') == min(num_keys, 20)
  assert ('and 81 more' in text) == (num_keys == 101)


def test_stack_of_a_large_model_is_read():
  arrays = {
    f'Transformer/encoderblock/{i}': StoredArray.of(np.zeros((100, 1)))
    for i in range(200)
  }
  found = big_vision.to_ours(arrays, num_heads=None, source='a file')
  assert len(found) == 20_000


def test_block_that_is_stacked_and_single_is_refused(tmp_path):
  file = newest_file()
  key = 'Transformer/encoderblock_1/LayerNorm_0/bias'
  text = error_of(tmp_path, as_stack(file) | {key: file[key]})
  assert f'{key.replace("_1", "")} and {key}' in text
