"""A small model of distinct sizes, so that swapped dimensions show."""

import functools

import jax
import numpy as np

import vit_jax

CONFIG = {
  'patches': {'size': (5, 3)},
  'hidden_size': 21,
  'transformer': {'mlp_dim': 13, 'num_heads': 3, 'num_layers': 2},
}
IMAGE_SIZE = (11, 17)  # 2 by 5 whole patches and pixels beyond them.


def make_model(num_classes=19, dtype='float32', param_dtype='float32', **edits):
  config = CONFIG | edits
  config['transformer'] = CONFIG['transformer'] | edits.get('transformer', {})
  return vit_jax.create_model(
    config, num_classes, dtype=dtype, param_dtype=param_dtype
  )


def random_params(module, shape=(1, *IMAGE_SIZE, 3), scale=0.4, **kwargs):
  """Returns parameters none of which is zero, so that each has a say."""
  rng = np.random.default_rng(0)
  inputs = jax.ShapeDtypeStruct(shape, 'float32')
  init = functools.partial(module.init, **kwargs)
  shapes = jax.eval_shape(init, jax.random.key(0), inputs)['params']
  return jax.tree.map(
    lambda array: rng.normal(0, scale, array.shape).astype('f4'), shapes
  )


def output_of(model, size=IMAGE_SIZE, **kwargs):
  """Returns (output, variables) as shapes; nothing is computed."""
  images = jax.ShapeDtypeStruct((2, *size, 3), 'float32')
  init = functools.partial(model.init_with_output, **kwargs)
  return jax.eval_shape(init, jax.random.key(0), images)
