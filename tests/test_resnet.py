"""The stem's convolution and bottleneck against numpy, in float64."""

import jax
import numpy as np
import parity
import pytest
from small_model import random_params

from vit_jax.models import resnet


def numpy_std_conv(x, kernel, stride):
  """Convolves [h, w, in] position by position with a standardised kernel."""
  centred = kernel - kernel.mean((0, 1, 2))
  deviation = np.sqrt((centred**2).mean((0, 1, 2)))  # The population's.
  kernel = centred / (deviation + 1e-5)
  size = kernel.shape[0]
  rows, columns = (-(-side // stride) for side in x.shape[:2])
  # SAME: what is left over is split, the odd one at the far side.
  pads = []
  for side, outputs in zip(x.shape[:2], (rows, columns), strict=True):
    total = max(0, (outputs - 1) * stride + size - side)
    pads.append((total // 2, total - total // 2))
  x = np.pad(x, [*pads, (0, 0)])
  out = np.empty((rows, columns, kernel.shape[-1]))
  for row in range(rows):
    for column in range(columns):
      top, left = row * stride, column * stride
      window = x[top : top + size, left : left + size]
      out[row, column] = np.einsum('hwc,hwcd->d', window, kernel)
  return out


def numpy_group_norm(x, scale, bias):
  """Normalises [h, w, channels] in 32 groups of neighbouring channels."""
  out = np.empty_like(x)
  size = x.shape[-1] // 32
  for start in range(0, x.shape[-1], size):
    group = x[..., start : start + size]
    out[..., start : start + size] = (group - group.mean()) / np.sqrt(
      group.var() + 1e-6
    )
  return out * scale + bias


def numpy_unit(x, params, stride):
  def conv_norm(x, conv, norm, stride):
    x = numpy_std_conv(x, params[conv]['kernel'], stride)
    return numpy_group_norm(x, params[norm]['scale'], params[norm]['bias'])

  y = np.maximum(conv_norm(x, 'conv1', 'gn1', 1), 0)
  y = np.maximum(conv_norm(y, 'conv2', 'gn2', stride), 0)
  y = conv_norm(y, 'conv3', 'gn3', 1)
  if 'conv_proj' in params:
    x = conv_norm(x, 'conv_proj', 'gn_proj', stride)
  return np.maximum(x + y, 0)


# Kernels whose deviation is close to 1e-5 show where that is added.
@pytest.mark.parametrize('scale', [1, 2e-5])
@pytest.mark.parametrize(('size', 'stride'), [(1, 1), (3, 2), (7, 2)])
def test_std_conv_equals_numpy(size, stride, scale):
  conv = resnet.StdConv(5, size, stride)
  x = np.random.default_rng(1).normal(size=(2, 11, 8, 3)).astype('f4')
  params = random_params(conv, x.shape, scale)
  found = jax.jit(conv.apply)({'params': params}, x)
  kernel = params['kernel'].astype('f8')
  wanted = [numpy_std_conv(image, kernel, stride) for image in x.astype('f8')]
  assert parity.relative_error(found, wanted) < 1e-5


# Activations of about 1e-4 have a variance next to the norm's 1e-6.
@pytest.mark.parametrize('scale', [1, 1e-4])
@pytest.mark.parametrize(('channels', 'stride'), [(64, 2), (256, 1)])
def test_unit_equals_numpy(channels, stride, scale):
  unit = resnet.ResidualUnit(64, stride)
  x = np.random.default_rng(2).normal(0, scale, (2, 5, 4, channels))
  x = x.astype('f4')
  params = random_params(unit, x.shape)
  assert ('conv_proj' in params) == (stride == 2)
  found = jax.jit(unit.apply)({'params': params}, x)
  params = jax.tree.map(lambda array: array.astype('f8'), params)
  wanted = [numpy_unit(image, params, stride) for image in x.astype('f8')]
  assert parity.relative_error(found, wanted) < 1e-5


def test_unit_starts_as_the_identity():
  unit = resnet.ResidualUnit(32)
  x = jax.random.normal(jax.random.key(3), (1, 3, 2, 128))
  # All but these two arrays is compiled away.
  init = jax.jit(lambda key: unit.init(key, x)['params']['gn3'])
  params = random_params(unit, x.shape) | {'gn3': init(jax.random.key(0))}
  found = jax.jit(unit.apply)({'params': params}, x)
  np.testing.assert_array_equal(found, np.maximum(x, 0))


@pytest.mark.parametrize(('num_layers', 'stride'), [
  ((), 4), ((2,), 4), ((3, 4, 9), 16), ((3, 4, 6, 3), 32),
])  # fmt: skip
def test_stem_stride(num_layers, stride):
  assert resnet.stem_stride(num_layers) == stride
