r"""Times the compilation of a train step, ours against plain Flax layers.

  python scripts/benchmark_compile.py --models b16,l16 --repeats 3

Compiles only: nothing is run and no parameters are made, so L/16 needs no more
memory than its program. Both steps have the same optimiser, loss and batch; the
plain one stands on `flax.linen.MultiHeadDotProductAttention` and has no dropout
keys, augmentation or metrics. Prints medians and their ratio, in turns, as the
machine may be busy.
"""

import argparse
import functools
import statistics
import time

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from vit_jax import models, optim, train_step
from vit_jax.data import augment
from vit_jax.models import variants


class PlainBlock(nn.Module):
  """A pre-norm encoder block of Flax's own layers."""

  num_heads: int
  mlp_dim: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    y = nn.LayerNorm(epsilon=1e-6)(x)
    x = x + nn.MultiHeadDotProductAttention(self.num_heads)(y)
    y = nn.LayerNorm(epsilon=1e-6)(x)
    y = nn.gelu(nn.Dense(self.mlp_dim)(y))
    return x + nn.Dense(width)(y)


class PlainViT(nn.Module):
  """The least that can be called a Vision Transformer."""

  config: ConfigDict
  num_classes: int

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    width, patch = self.config.hidden_size, tuple(self.config.patches.size)
    x = nn.Conv(width, patch, strides=patch, padding='VALID')(images)
    x = x.reshape(x.shape[0], -1, width)
    token = self.param('cls', nn.initializers.zeros, (1, 1, width))
    x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], axis=1)
    x += self.param('pos', nn.initializers.normal(0.02), (1, *x.shape[1:]))
    for _ in range(self.config.transformer.num_layers):
      x = PlainBlock(
        self.config.transformer.num_heads, self.config.transformer.mlp_dim
      )(x)
    return nn.Dense(self.num_classes)(nn.LayerNorm(epsilon=1e-6)(x)[:, 0])


def main() -> None:
  """Prints a table of seconds."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--models', default='b16,l16', help='such as b16,l16')
  parser.add_argument('--batch', type=int, default=8)
  parser.add_argument('--image-size', type=int, default=224)
  parser.add_argument('--repeats', type=int, default=3)
  args = parser.parse_args()
  jax.config.update('jax_enable_compilation_cache', False)

  print(f'jax {jax.__version__}, {jax.devices()[0].device_kind}')
  print('model        ours s   plain s   ratio')
  for name in args.models.split(','):
    config = variants.model_config(name)
    ours, plain = [], []
    for _ in range(args.repeats):
      ours.append(_seconds(_our_step(config, args.batch, args.image_size)))
      plain.append(_seconds(_plain_step(config, args.batch, args.image_size)))
    a, b = statistics.median(ours), statistics.median(plain)
    print(f'{config.model_name:<10} {a:8.1f}  {b:8.1f}   {a / b:5.2f}')


def _seconds(step_and_args) -> float:
  """Returns how long tracing, lowering and compiling take."""
  step, args = step_and_args
  start = time.perf_counter()
  jax.jit(step, donate_argnums=0).lower(*args).compile()
  return time.perf_counter() - start


def _optimizer():
  schedule = optim.learning_rate_schedule(0.03, 'cosine', 10_000, 500)
  settings = {
    'optimizer': 'sgd',
    'optim_dtype': 'bfloat16',
    'grad_norm_clip': 1.0,
  }
  return optim.make_optimizer(ConfigDict(settings), schedule), schedule


def _our_step(config: ConfigDict, batch: int, size: int):
  model = models.create_model(config, num_classes=1000)
  tx, schedule = _optimizer()
  pp = ConfigDict(
    {
      'crop': size,
      'augment': 'crop_flip',
      'area_range': (0.05, 1.0),
      'ratio_range': (3 / 4, 4 / 3),
    }
  )
  step = functools.partial(
    train_step.train_step,
    model=model,
    tx=tx,
    schedule=schedule,
    transform=augment.train_transform(pp, cropped=False),
  )
  key = jax.random.key(0)
  state = jax.eval_shape(
    lambda: train_step.init_state(train_step.init_params(model, key, size), tx)
  )
  rows = {
    'image': jax.ShapeDtypeStruct((batch, size, size, 3), 'uint8'),
    'label': jax.ShapeDtypeStruct((batch,), 'int32'),
  }
  return step, (state, rows, key)


def _plain_step(config: ConfigDict, batch: int, size: int):
  model = PlainViT(config, num_classes=1000)
  tx, _ = _optimizer()

  def step(state, images, labels):
    params, opt_state = state

    def loss_fn(params):
      logits = model.apply({'params': params}, images)
      return optax.softmax_cross_entropy_with_integer_labels(
        logits, labels
      ).mean()

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = tx.update(grads, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), loss

  def init():
    images = jnp.zeros((1, size, size, 3))
    params = model.init(jax.random.key(0), images)['params']
    return params, tx.init(params)

  images = jax.ShapeDtypeStruct((batch, size, size, 3), 'float32')
  labels = jax.ShapeDtypeStruct((batch,), 'int32')
  return step, (jax.eval_shape(init), images, labels)


if __name__ == '__main__':
  main()
