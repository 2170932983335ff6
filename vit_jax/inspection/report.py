"""The description of a weight file as a table for people."""

from vit_jax.inspection.description import Description

_POOLING = {
  'token': 'class token',
  'gap': 'mean of the tokens, or none',
  'map': 'attention pooling (MAP)',
}


def as_table(found: Description) -> str:
  """Returns aligned lines for people, without what a family doesn't have."""
  rows = {
    'file': found.path,
    'family': found.family,
    'model': ', '.join(found.models)
    or f'none known; the nearest is {found.nearest_model}',
    'format': f'{found.container}, names of {found.names}',
    'spatial transformer': _spatial_transformer(found),
    'patch': found.family != 'ConvNet' and _patch(found),
    'convolutions': _convolutions(found),
    'width': found.width,
    'depth': found.depth,
    'MLP width': found.mlp_dim,
    'token-mixing width': found.tokens_mlp_dim,
    'heads': _heads(found),
    'ResNet stages': _stages(found),
    'pooling': found.family != 'Mixer' and _POOLING.get(found.classifier or ''),
    'position embedding': found.position_embedding,
    'grid': _grid(found),
    'image size': found.image_size
    and f'{_by(found.image_size)} pixels, from the grid',
    'representation size': found.representation_size,
    'head': _head(found),
    'optimiser state': 'yes' if found.has_optimizer_state else 'no',
    'dtype': ', '.join(found.dtypes),
    'parameters': f'{found.num_params:,}',
    'size': found.file_size and f'{found.file_size:,} bytes',
    'SHA-256': found.sha256,
  }
  width = max(map(len, rows)) + 2
  lines = [
    f'{label:<{width}}{value}'
    for label, value in rows.items()
    if value not in (None, False, '')
  ]
  return '\n'.join([*lines, 'fine-tune with', f'  {_command(found)}'])


def _by(size: tuple[int, int]) -> str:
  return f'{size[0]} x {size[1]}'


def _patch(found: Description) -> str:
  if found.family == 'hybrid':
    stem = "of the stem's output"
    return f'{_by(found.patch)} {stem}, {_by(found.stride)} pixels'
  return f'{_by(found.patch)} pixels'


def _spatial_transformer(found: Description) -> str | None:
  fields = found.spatial_transformer
  if fields is None:
    return None
  features = ', '.join(map(str, fields['features']))
  return (
    f'sees {_by((fields["size"],) * 2)} pixels; {features} features, kernels '
    f'of {fields["kernel_size"]}, width {fields["hidden_dim"]}'
  )


def _convolutions(found: Description) -> str | None:
  if found.conv_features is None:
    return None
  features = ', '.join(map(str, found.conv_features))
  return f'{features} features, kernels of {found.conv_kernel_size}'


def _heads(found: Description) -> str | None:
  if found.family in ('Mixer', 'ConvNet'):
    return None
  return {
    'file': f'{found.num_heads}',
    'caller': f'{found.num_heads}, as you say',
    'width': f'{found.num_heads}, as published models of that width have',
    None: 'the file does not say; say it with --num_heads N',
  }[found.heads_from]


def _stages(found: Description) -> str | None:
  if found.resnet_num_layers is None:
    return None
  stages = ', '.join(map(str, found.resnet_num_layers)) or 'the root alone'
  return f'{stages}; width factor {found.resnet_width_factor:g}'


def _grid(found: Description) -> str:
  if found.num_patches is None:
    return 'any'
  if found.grid is None and found.family == 'ConvNet':
    return f'{found.num_patches} places, which are no square'
  if found.grid is None:
    return f'{found.num_patches} patches, which are no square'
  return _by(found.grid)


def _head(found: Description) -> str:
  if found.num_classes is None:
    return 'none'
  zeros = ', all zeros: to be fine-tuned first' if found.zero_head else ''
  return f'{found.num_classes} classes{zeros}'


def _command(found: Description) -> str:
  if found.command:
    return found.command
  if found.unknown:
    return f'none: has layers that no model here has: {_some(found.unknown)}'
  if found.missing:
    return f'none: lacks what its model needs: {_some(found.missing)}'
  if found.family in ('ViT', 'hybrid') and found.num_heads is None:
    return 'not known without the number of heads'
  if found.family == 'hybrid' and found.spatial_transformer:
    return 'none: no config has a hybrid behind a spatial transformer'
  return 'none: images are cut to squares, and it was not made for these'


def _some(keys: tuple[str, ...], limit: int = 5) -> str:
  more = f' and {len(keys) - limit:,} more' if len(keys) > limit else ''
  return ', '.join(keys[:limit]) + more
