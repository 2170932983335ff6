"""The parameters of a model of given sizes, without JAX and without the model.

They tell what a file lacks, and what it has that no model here has.
"""

from collections.abc import Iterator, Mapping
from typing import Any

Shape = tuple[int, ...]

POSITIONS = 'Transformer/posembed_input/pos_embedding'


def parameters(sizes: Mapping[str, Any]) -> dict[str, Shape]:
  """Returns the shape of each parameter by our names.

  Args:
    sizes: fields of a `Description`; `num_heads` is any that divides the width.
  """
  families = {'Mixer': _mixer, 'ConvNet': _convnet}
  found = dict(families.get(sizes['family'], _vit)(sizes))
  if sizes['spatial_transformer'] is not None:
    found |= _spatial_transformer(sizes['spatial_transformer'])
  width = sizes['width']
  if sizes['representation_size'] is not None:
    found |= _dense('pre_logits', width, sizes['representation_size'])
    width = sizes['representation_size']
  if sizes['num_classes'] is not None:
    found |= _dense('head', width, sizes['num_classes'])
  return found


Layers = Iterator[tuple[str, Shape]]


def _vit(sizes: Mapping[str, Any]) -> Layers:
  width, num_slots = sizes['width'], 0
  features = 3
  if sizes['family'] == 'hybrid':
    features = round(64 * sizes['resnet_width_factor'])
    yield 'conv_root/kernel', (7, 7, 3, features)
    yield from _norm('gn_root', features)
    for i, num_units in enumerate(sizes['resnet_num_layers']):
      middle = round(64 * sizes['resnet_width_factor']) * 2**i
      for j in range(num_units):
        unit = f'block{i + 1}/unit{j + 1}'
        yield from _bottleneck(unit, features, middle, has_projection=not j)
        features = 4 * middle
  yield from _kernel('embedding', (*sizes['patch'], features, width))
  if sizes['classifier'] == 'token':
    num_slots = 1
    yield 'cls', (1, 1, width)
  if sizes['position_embedding'] == 'learned':
    yield POSITIONS, (1, sizes['num_patches'] + num_slots, width)
  for i in range(sizes['depth']):
    block = f'Transformer/encoderblock_{i}'
    yield from _norm(f'{block}/LayerNorm_0', width)
    yield from _attention(block, sizes)
    yield from _norm(f'{block}/LayerNorm_1', width)
    yield from _mlp(f'{block}/MlpBlock_0', width, sizes['mlp_dim'])
  yield from _norm('Transformer/encoder_norm', width)
  if sizes['classifier'] == 'map':
    yield 'MAPHead_0/probe', (1, 1, width)
    yield from _attention('MAPHead_0', sizes)
    yield from _norm('MAPHead_0/LayerNorm_0', width)
    yield from _mlp('MAPHead_0/MlpBlock_0', width, sizes['mlp_dim'])


def _mixer(sizes: Mapping[str, Any]) -> Layers:
  width = sizes['width']
  yield from _kernel('stem', (*sizes['patch'], 3, width))
  for i in range(sizes['depth']):
    block = f'MixerBlock_{i}'
    yield from _norm(f'{block}/LayerNorm_0', width)
    yield from _mlp(
      f'{block}/token_mixing', sizes['num_patches'], sizes['tokens_mlp_dim']
    )
    yield from _norm(f'{block}/LayerNorm_1', width)
    yield from _mlp(f'{block}/channel_mixing', width, sizes['mlp_dim'])
  yield from _norm('pre_head_layer_norm', width)


def _convnet(sizes: Mapping[str, Any]) -> Layers:
  features, size = sizes['conv_features'], sizes['conv_kernel_size']
  yield from _convolutions('', features, size)
  yield from _dense(
    'hidden', sizes['num_patches'] * features[-1], sizes['width']
  )


def _spatial_transformer(sizes: Mapping[str, Any]) -> Layers:
  name, features = 'spatial_transformer', sizes['features']
  yield from _convolutions(f'{name}/', features, sizes['kernel_size'])
  places = (sizes['size'] // 2 ** len(features)) ** 2
  yield from _dense(
    f'{name}/hidden', places * features[-1], sizes['hidden_dim']
  )
  yield from _dense(f'{name}/theta', sizes['hidden_dim'], 6)


def _convolutions(prefix: str, features: tuple[int, ...], size: int) -> Layers:
  inputs = 3
  for i, outputs in enumerate(features):
    yield from _kernel(f'{prefix}conv_{i}', (size, size, inputs, outputs))
    inputs = outputs


def _bottleneck(
  unit: str, features: int, middle: int, *, has_projection: bool
) -> Layers:
  outputs = 4 * middle
  for k, shape in enumerate(
    ((1, 1, features, middle), (3, 3, middle, middle), (1, 1, middle, outputs)),
    start=1,
  ):
    yield f'{unit}/conv{k}/kernel', shape
    yield from _norm(f'{unit}/gn{k}', shape[-1])
  if has_projection:
    yield f'{unit}/conv_proj/kernel', (1, 1, features, outputs)
    yield from _norm(f'{unit}/gn_proj', outputs)


def _attention(prefix: str, sizes: Mapping[str, Any]) -> Layers:
  width, num_heads = sizes['width'], sizes['num_heads']
  heads = (num_heads, width // num_heads)
  name = f'{prefix}/MultiHeadDotProductAttention_0'
  for part in ('query', 'key', 'value'):
    yield f'{name}/{part}/kernel', (width, *heads)
    yield f'{name}/{part}/bias', heads
  yield from _kernel(f'{name}/out', (*heads, width))


def _mlp(name: str, width: int, hidden: int) -> Layers:
  yield from _dense(f'{name}/Dense_0', width, hidden)
  yield from _dense(f'{name}/Dense_1', hidden, width)


def _dense(name: str, inputs: int, outputs: int) -> Layers:
  return _kernel(name, (inputs, outputs))


def _kernel(name: str, shape: Shape) -> Layers:
  yield f'{name}/kernel', shape
  yield f'{name}/bias', shape[-1:]


def _norm(name: str, features: int) -> Layers:
  yield f'{name}/scale', (features,)
  yield f'{name}/bias', (features,)
