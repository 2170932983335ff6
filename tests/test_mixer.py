"""The MLP-Mixer against numpy, its shapes, and the one size it is bound to."""

import json

import jax
import numpy as np
import parity
import pytest
import reference
from flax import traverse_util
from small_model import IMAGE_SIZE, output_of, random_params

import vit_jax
from configs import mixer
from vit_jax import checkpoints, errors, train

CONFIG = {  # Distinct sizes, so that swapped dimensions show.
  'patches': {'size': (5, 3)},
  'hidden_dim': 11,
  'num_blocks': 2,
  'tokens_mlp_dim': 7,
  'channels_mlp_dim': 13,
}


def make_mixer(num_classes=19, dtype='float32', param_dtype='float32', **edits):
  return vit_jax.create_model(
    CONFIG | edits, num_classes, dtype=dtype, param_dtype=param_dtype
  )


@pytest.mark.parametrize('num_classes', [19, None])
@pytest.mark.parametrize('gelu', ['tanh', 'exact'])
def test_output_equals_numpy(gelu, num_classes):
  model = make_mixer(num_classes, gelu=gelu)
  params = random_params(model)
  flat = traverse_util.flatten_dict(params, sep='/')
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  found = jax.jit(model.apply)({'params': params}, images)
  wanted = reference.mixer_logits(flat, images, patch=(5, 3), gelu=gelu)
  assert found.shape == (2, num_classes or 11)
  assert parity.relative_error(found, wanted) < 1e-5
  other = {'tanh': 'exact', 'exact': 'tanh'}[gelu]
  unwanted = reference.mixer_logits(flat, images, patch=(5, 3), gelu=other)
  assert parity.relative_error(found, unwanted) > 5e-5


def test_training_is_no_different():
  model = make_mixer()
  params = random_params(model)
  images = parity.make_images(2, *IMAGE_SIZE, 0)
  apply = jax.jit(model.apply, static_argnames='train')
  trained, evaluated = (
    apply({'params': params}, images, train=train) for train in (True, False)
  )
  np.testing.assert_array_equal(trained, evaluated)


def test_fresh_head_is_zero_with_its_bias():
  model = make_mixer(head_bias_init=-3.5)
  images = np.ones((1, *IMAGE_SIZE, 3), np.float32)
  init = jax.jit(lambda key: model.init(key, images)['params']['head'])
  head = init(jax.random.key(0))
  np.testing.assert_array_equal(head['kernel'], np.zeros((11, 19), 'f4'))
  np.testing.assert_array_equal(head['bias'], np.full(19, -3.5, 'f4'))


@pytest.mark.parametrize('size', [(11, 17), (64, 65), (5, 3)])
def test_grid_is_that_of_the_tokens(size):
  model = make_mixer()
  rows, columns = model.grid(size)
  assert (rows, columns) == (size[0] // 5, size[1] // 3)
  _, variables = output_of(model, size)
  mixing = variables['params']['MixerBlock_1']['token_mixing']
  assert mixing['Dense_0']['kernel'].shape == (rows * columns, 7)
  assert mixing['Dense_1']['kernel'].shape == (7, rows * columns)


@pytest.mark.parametrize('param_dtype', ['float32', 'bfloat16'])
def test_dtypes_reach_every_layer(param_dtype):
  model = make_mixer(dtype='bfloat16', param_dtype=param_dtype)
  output, variables = output_of(model, capture_intermediates=True, mutable=True)
  assert output.dtype == np.float32
  dtypes = {str(x.dtype) for x in jax.tree.leaves(variables['params'])}
  assert dtypes == {param_dtype}
  layers = traverse_util.flatten_dict(variables['intermediates'])
  assert layers.pop(('__call__',))[0].dtype == np.float32
  assert len(layers) > 10
  assert {str(x.dtype) for (x,) in layers.values()} == {'bfloat16'}


# --- Mistakes ----------------------------------------------------------------


def error_of(call, *args, **kwargs) -> str:
  with pytest.raises(errors.ConfigError) as caught:
    call(*args, **kwargs)
  return str(caught.value)


def test_images_of_another_size(mini):
  case = mini('mini-mixer')
  images = np.zeros((2, 48, 40, 3), 'f4')
  text = error_of(case.model.apply, {'params': case.params}, images)
  assert 'Images of 48 by 40 pixels have 30 patches of (8, 8)' in text
  assert 'this Mixer mixes 16' in text
  assert 'set config.pp.crop' in text
  assert '(32 by 32 pixels if square)' in text


def test_other_size_with_as_many_patches_is_no_mistake(mini):
  case = mini('mini-mixer')
  images = np.zeros((2, 16, 64, 3), 'f4')
  output = jax.eval_shape(case.model.apply, {'params': case.params}, images)
  assert output.shape == (2, 10)


def test_images_smaller_than_a_patch():
  text = error_of(output_of, make_mixer(), (7, 2))
  assert 'Images of 7 by 2 pixels hold no whole patch of (5, 3)' in text


@pytest.mark.parametrize(('edits', 'texts'), [
  ({'transformer': {'dropout_rate': 0.1}}, [
    "Model 'model': It has fields of a ViT: transformer.",
    'With model.tokens_mlp_dim it is taken for a Mixer', 'channels_mlp_dim',
  ]),
  ({'hidden_size': 3, 'classifier': 'gap'}, ['ViT: classifier, hidden_size.']),
  ({'num_block': 3}, ["'model.num_block'. Did you mean 'model.num_blocks'?"]),
  ({'num_blocks': 0}, ['num_blocks 0 is not positive']),
  ({'tokens_mlp_dim': -7}, ['tokens_mlp_dim -7 is not positive']),
  ({'gelu': 'Exact'}, ["Unknown gelu 'Exact'. Did you mean 'exact'?"]),
  ({'patches': {}}, ['patch_size is missing']),
])  # fmt: skip
def test_config_that_cannot_work(edits, texts):
  text = error_of(make_mixer, **edits)
  for part in texts:
    assert part in text


def test_fields_of_a_mixer_without_its_sign():
  config = {key: CONFIG[key] for key in CONFIG if key != 'tokens_mlp_dim'}
  text = error_of(vit_jax.create_model, config, 10)
  assert 'of a Mixer: channels_mlp_dim, hidden_dim, num_blocks.' in text
  assert 'Without model.tokens_mlp_dim it is taken for a ViT' in text


# --- Runs and files ----------------------------------------------------------


def test_run_on_digits_learns(tmp_path):
  config = mixer.get_config('s16,digits')
  config.tfds_data_dir = str(tmp_path / 'tfds')
  config.model.update(CONFIG | {'patches': {'size': (4, 4)}})
  config.update(
    total_steps=36,
    warmup_steps=4,
    base_lr=2e-2,
    progress_every=9,
    num_threads=1,
  )
  config.pp.test = 'test[:47]'
  config.batch_eval = 47
  train.train_and_evaluate(config, tmp_path / 'run')
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  losses = [row['train/loss'] for row in rows if 'train/loss' in row]
  assert len(losses) == 4
  assert losses[0] > 2.2  # Ten classes and a zero head: log(10) at first.
  assert losses[-1] < 2.1


def test_weights_survive_a_file(mini, tmp_path):
  case = mini('mini-mixer')
  path = tmp_path / 'mine.npz'
  checkpoints.save_params(case.params, path)
  params = checkpoints.load_pretrained(path, case.model, case.image_size)
  assert jax.tree.structure(params) == jax.tree.structure(case.params)
  jax.tree.map(np.testing.assert_array_equal, params, case.params)
