"""A program for tests: trains and compiles on meshes of eight devices.

It takes a list of jobs as JSON and prints what came out of them, one line each.
A job has 'mesh' [data, fsdp, tensor], a name in `MODELS`, and either a path
'weights', from where it trains some steps, or none: then it only compiles.
"""

import hashlib
import json
import math
import sys
from typing import Any

import jax
import numpy as np

from configs import mixer, spatial_transformer, vit
from vit_jax import checkpoints, experiment, sharding
from vit_jax.models import variants

NUM_STEPS = 4
NUM_CLASSES = 10


def small_config(name):
  """Returns a config with all that is random; its sizes differ."""
  if name == 'mixer':
    config = mixer.get_config('s8,cifar10')
    config.model.update(
      hidden_dim=24, num_blocks=1, tokens_mlp_dim=56, channels_mlp_dim=40
    )
  elif name == 'convnet':
    config = spatial_transformer.get_config('cifar10')
    config.model.update(dropout_rate=0.1)
    config.model.spatial_transformer.update(size=8, hidden_dim=24)
  else:
    config = vit.get_config('tiny,cifar10')
    config.model.hidden_size = 48
    config.model.transformer.update(
      mlp_dim=40,
      num_heads=8,
      num_layers=1,
      dropout_rate=0.1,
      attention_dropout_rate=0.1,
    )
  if name != 'convnet':
    config.model.patches.size = (4, 4)
  if name == 'map':
    config.model.update(classifier='map', representation_size=32)
  if name == 'hybrid':
    config.model.resnet = {'num_layers': (1,), 'width_factor': 0.5}
    config.model.patches.size = (1, 1)
  if name == 'transformer':
    config.model.spatial_transformer = variants.spatial_transformer_config()
  config.pp.crop = 8
  config.update(
    accum_steps=2,
    base_lr=0.1,
    batch=16,
    label_smoothing=0.1,
    mixup_alpha=0.5,
    optim_dtype='float32',
    total_steps=NUM_STEPS,
    warmup_steps=1,
  )
  return config


def gigantic_config(name):
  """Returns ViT-G/14 with one block, as all compile to the same."""
  config = vit.get_config(f'{name},cifar10')
  config.model.transformer.num_layers = 1
  config.pp.update(crop=224, augment='none')
  config.update(accum_steps=1, batch=8)
  return config


MODELS = {
  'vit': small_config,
  'map': small_config,
  'hybrid': small_config,
  'mixer': small_config,
  'convnet': small_config,
  'transformer': small_config,
  'G14': gigantic_config,
}


def build(job):
  config = MODELS[job['model']](job['model'])
  sizes = dict(zip(sharding.AXES, job['mesh'], strict=True))
  devices = jax.devices()[: math.prod(job['mesh'])]
  mesh = sharding.make_mesh(sizes, devices)
  return experiment.build(config, NUM_CLASSES, mesh)


def save_weights(path):
  """Saves random weights, none of them zero, so that each has a say."""
  name = path.rpartition('/')[-1].removesuffix('.npz')
  built = build({'model': name, 'mesh': [1, 1, 1]})
  rng = np.random.default_rng(0)
  checkpoints.save_params(
    jax.tree.map(
      lambda leaf: rng.normal(0, 0.2, leaf.shape).astype('f4'),
      built.target.params,
    ),
    path,
  )


def bytes_on_first_device(tree):
  return sum(leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(tree))


def digest(params):
  leaves = jax.tree.leaves(sharding.to_host(params))
  return hashlib.sha256(b''.join(map(np.ndarray.tobytes, leaves))).hexdigest()


def train(job):
  built = build(job)
  state = built.fresh_state(job['weights'])
  found = {'loaded': digest(state.params), 'losses': [], 'bytes': []}
  step = built.train_step(cropped=True)
  rng, size = np.random.default_rng(0), built.config.batch
  for _ in range(NUM_STEPS):
    batch = {
      'image': rng.integers(256, size=(size, 8, 8, 3)).astype('uint8'),
      'label': rng.integers(NUM_CLASSES, size=size).astype('int32'),
    }
    found['bytes'].append(bytes_on_first_device(state))
    state, metrics = step(
      state, sharding.put_batch(batch, built.mesh), built.train_key
    )
    found['losses'].append(float(metrics['loss']))
  return found | {'planned_bytes': sharding.bytes_per_device(built.target)}


def compile_only(job):
  built = build(job)
  config = built.config
  shape = config.batch, config.pp.crop, config.pp.crop, 3
  batch = {
    'image': jax.ShapeDtypeStruct(shape, 'uint8'),
    'label': jax.ShapeDtypeStruct(shape[:1], 'int32'),
  }
  step: Any = built.train_step(cropped=True)
  lowered = step.lower(built.target, batch, built.train_key)
  memory = lowered.compile().memory_analysis()
  leaves = jax.tree.leaves(built.target)
  return {
    'compiled_bytes': memory.argument_size_in_bytes,
    'planned_bytes': sharding.bytes_per_device(built.target),
    'whole_bytes': sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
  }


if __name__ == '__main__':
  jobs = json.loads(sys.argv[1])
  for weights in {job['weights'] for job in jobs if 'weights' in job}:
    save_weights(weights)
  for each in jobs:
    run = train if 'weights' in each else compile_only
    print(json.dumps(run(each)), flush=True)
