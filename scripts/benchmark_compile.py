r"""Times the compilation of a train step: ours, scanned, and plain Flax layers.

  python scripts/benchmark_compile.py --models b16,l16 --repeats 3

All are the same step (augmentation, loss, clipping, momentum, metrics); only
the model in it differs: 'scanned' is ours with `scan_layers`, the plain one
stands on `flax.linen.MultiHeadDotProductAttention`. Nothing is run and no
parameters are made, so L/16 needs no more memory than its program. Prints
medians, in turns, as the machine may be busy, and their ratios to ours.
"""

import argparse
import functools
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vit_jax import command_line, models, optim, train_step
from vit_jax.data import augment
from vit_jax.models import variants


class PlainBlock(nn.Module):
  """A pre-norm encoder block of Flax's own layers."""

  num_heads: int
  mlp_dim: int
  dropout_rate: float

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    width = x.shape[-1]
    drop = nn.Dropout(self.dropout_rate, deterministic=not train)
    y = nn.LayerNorm(epsilon=1e-6)(x)
    x = x + drop(nn.MultiHeadDotProductAttention(self.num_heads)(y))
    y = nn.LayerNorm(epsilon=1e-6)(x)
    y = drop(nn.gelu(nn.Dense(self.mlp_dim)(y)))
    return x + drop(nn.Dense(width)(y))


class PlainViT(nn.Module):
  """The least that can be called a Vision Transformer."""

  config: ConfigDict
  num_classes: int

  @nn.compact
  def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
    width, patch = self.config.hidden_size, tuple(self.config.patches.size)
    sizes = self.config.transformer
    x = nn.Conv(width, patch, strides=patch, padding='VALID')(images)
    x = x.reshape(x.shape[0], -1, width)
    token = self.param('cls', nn.initializers.zeros, (1, 1, width))
    x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], axis=1)
    x += self.param('pos', nn.initializers.normal(0.02), (1, *x.shape[1:]))
    x = nn.Dropout(sizes.dropout_rate, deterministic=not train)(x)
    for _ in range(sizes.num_layers):
      x = PlainBlock(sizes.num_heads, sizes.mlp_dim, sizes.dropout_rate)(
        x, train
      )
    return nn.Dense(self.num_classes)(nn.LayerNorm(epsilon=1e-6)(x)[:, 0])


def main() -> int:
  """Returns the exit status."""
  return command_line.run(_measure, _parser)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__doc__)
  parser.add_argument('--models', default='b16,l16', help='such as b16,l16')
  parser.add_argument('--batch', type=command_line.positive_int, default=8)
  parser.add_argument(
    '--image_size', '--image-size', type=command_line.positive_int, default=224
  )
  parser.add_argument('--repeats', type=command_line.positive_int, default=3)
  return parser


def _measure(args: argparse.Namespace) -> int:
  jax.config.update('jax_enable_compilation_cache', False)

  print(f'jax {jax.__version__}, {jax.devices()[0].device_kind}')
  print('model          ours s   scanned s (ratio)   plain s (ratio)')
  for i, name in enumerate(args.models.split(',')):
    config = variants.model_config(name)
    models_by_name = {
      'ours': models.create_model(config, num_classes=1000),
      'scanned': models.create_model(config, 1000, scan_layers=True),
      'plain': PlainViT(config, num_classes=1000),
    }
    seconds = {key: [] for key in models_by_name}
    # The first compilation of a process also sets the compiler up.
    for repeat in range(-1 if i == 0 else 0, args.repeats):
      for key, model in models_by_name.items():
        elapsed = compile_seconds(model, args.batch, args.image_size)
        if repeat >= 0:
          seconds[key].append(elapsed)
    ours, scanned, plain = map(statistics.median, seconds.values())
    print(
      f'{config.model_name:<12} {ours:8.1f}  {scanned:8.1f} '
      f'({scanned / ours:5.2f})   {plain:8.1f} ({plain / ours:5.2f})'
    )
  return 0


def compile_seconds(model: nn.Module, batch: int, size: int) -> float:
  """Returns how long it takes to trace, lower and compile the step.

  Args:
    model: maps images to logits.
    batch: images in a step.
    size: side of the images in pixels.
  """
  schedule = optim.learning_rate_schedule(0.03, 'cosine', 10_000, 500)
  settings = {
    'optimizer': 'sgd',
    'optim_dtype': 'bfloat16',
    'grad_norm_clip': 1.0,
  }
  tx = optim.make_optimizer(ConfigDict(settings), schedule)
  pp = {
    'crop': size,
    'augment': 'crop_flip',
    'area_range': (0.05, 1.0),
    'ratio_range': (3 / 4, 4 / 3),
  }
  step = functools.partial(
    train_step.train_step,
    model=model,
    tx=tx,
    schedule=schedule,
    transform=augment.train_transform(ConfigDict(pp), cropped=False),
  )
  key = jax.random.key(0)
  state = train_step.state_shapes(model, tx, size)
  rows = {
    'image': jax.ShapeDtypeStruct((batch, size, size, 3), 'uint8'),
    'label': jax.ShapeDtypeStruct((batch,), 'int32'),
  }
  start = time.perf_counter()
  jax.jit(step, donate_argnums=0).lower(state, rows, key).compile()
  return time.perf_counter() - start


if __name__ == '__main__':
  command_line.start(main)
