"""`dtype` reaches every layer and `param_dtype` every parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import parity
import pytest
from flax import traverse_util
from small_model import IMAGE_SIZE, make_model, output_of

import vit_jax


def models_of_both_kinds(**kwargs):
  resnet = {'num_layers': (1, 1), 'width_factor': 0.5}
  return [
    make_model(representation_size=7, **kwargs),
    make_model(resnet=resnet, patches={'size': (1, 2)}, **kwargs),
  ]


def products(jaxpr):
  """Yields every matrix product and convolution of a jaxpr, nested ones too."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name in ('dot_general', 'conv_general_dilated'):
      yield eqn
    for value in eqn.params.values():
      inner = getattr(value, 'jaxpr', value)
      if hasattr(inner, 'eqns'):
        yield from products(inner)


@pytest.mark.parametrize('kind', [0, 1], ids=['vit', 'hybrid'])
def test_dtype_reaches_every_layer(kind):
  model = models_of_both_kinds(dtype='bfloat16')[kind]
  output, variables = output_of(model, capture_intermediates=True, mutable=True)
  assert output.dtype == jnp.float32
  assert {x.dtype for x in jax.tree.leaves(variables['params'])} == {
    np.dtype('float32')
  }
  layers = traverse_util.flatten_dict(variables['intermediates'])
  for path, values in layers.items():
    exact = path[-1] == 'attention_weights' or path == ('__call__',)
    dtype = 'float32' if exact else 'bfloat16'
    assert {str(value.dtype) for value in values} == {dtype}, path

  images = jax.ShapeDtypeStruct((2, *IMAGE_SIZE, 3), 'float32')
  jaxpr = jax.make_jaxpr(model.apply)({'params': variables['params']}, images)
  eqns = list(products(jaxpr.jaxpr))
  # Two products with four projections and two dense layers in each block.
  assert len(eqns) >= 2 * 8 + 2
  for eqn in eqns:
    assert [var.aval.dtype for var in eqn.invars] == [jnp.bfloat16] * 2


@pytest.mark.parametrize('kind', [0, 1], ids=['vit', 'hybrid'])
@pytest.mark.parametrize('param_dtype', ['bfloat16', 'float16'])
def test_param_dtype_reaches_every_parameter(kind, param_dtype):
  model = models_of_both_kinds(param_dtype=param_dtype)[kind]
  output, variables = output_of(model)
  assert output.dtype == jnp.float32
  dtypes = {x.dtype for x in jax.tree.leaves(variables['params'])}
  assert dtypes == {jnp.dtype(param_dtype)}


def test_bfloat16_logits_are_close_to_float32(mini):
  case = mini('mini-vit')
  config = parity.configs()['mini-vit']['config']
  model = vit_jax.create_model(config, case.num_classes, dtype='bfloat16')
  logits = jax.jit(model.apply)({'params': case.params}, case.images)
  assert logits.dtype == np.float32
  wanted, _ = case.apply(case.params, case.images)
  # bfloat16 has 8 bits: each of some dozen roundings is off by up to 0.4 %.
  assert 1e-5 < parity.relative_error(logits, wanted) < 0.1
