"""Plans: formulas against what XLA counts, and against what was published."""

import dataclasses
import os
import subprocess
import sys
from typing import Any

import compiling
import jax
import pytest

from configs import mixer, vit
from vit_jax import errors, experiment, models, plan, sharding
from vit_jax.plan import accelerators, classes, layers, memory, report

# Zhai et al. 2022, arXiv 2106.04560, table 2: GFLOPs at 224 and 384 pixels.
PUBLISHED_FLOPS = {
  'ViT-S_32': (2.3, 6.9),
  'ViT-Ti_16': (2.5, 9.5),
  'ViT-B_32': (8.7, 26.0),
  'ViT-S_16': (9.2, 31.2),
  'ViT-B_16': (35.1, 111.3),
  'ViT-L_16': (122.9, 382.8),
  'ViT-g_14': (533.1, 1596.4),
  'ViT-G_14': (965.3, 2859.9),
}
# Hours of 10,000 steps on cifar10, eight V100s, by the original's README of
# November 2020. They include a hundred evaluations, which are some 7 %.
PUBLISHED_HOURS = {'b16': 7, 'b32': 2, 'l16': 25, 'l32': 6}


def mini_config(family: Any = vit, name: Any = 's16,cifar10', **fields: Any):
  config = family.get_config(name)
  config.update(batch=8, accum_steps=1, optim_dtype='float32')
  config.pp.crop = 64
  with config.unlocked(), config.ignore_type():
    config.update_from_flattened_dict(fields)
  return config


def counted_flops(model, params, images) -> float:
  found: Any = jax.jit(model.apply).lower(params, images).cost_analysis()
  return found['flops']


def compiled_step(config, devices=1):
  """Returns the experiment and the compiled step of a config."""
  mesh = sharding.make_mesh(config.mesh, jax.devices()[:devices])
  built = experiment.build(config, 10, mesh)
  shape = (config.batch, config.pp.crop, config.pp.crop, 3)
  rows = sharding.batch_sharding(mesh)
  batch = {
    'image': jax.ShapeDtypeStruct(shape, 'uint8', sharding=rows),
    'label': jax.ShapeDtypeStruct(shape[:1], 'int32', sharding=rows),
  }
  step: Any = built.train_step(cropped=True)
  return built, step.lower(built.target, batch, built.train_key).compile()


@pytest.mark.parametrize('name', PUBLISHED_FLOPS)
def test_flops_are_those_published(name):
  model = models.create_model(name, 1_000)
  for size, published in zip((224, 384), PUBLISHED_FLOPS[name], strict=True):
    flops = layers.forward_flops(layers.model_parts(model, size))
    assert flops / 1e9 == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(
  'name',
  ['ViT-S_32', 'R+ViT-Ti_16', 'R26+ViT-S_32', 'R50+ViT-B_16', 'Mixer-S_32'],
)
def test_forward_flops_are_those_that_xla_counts(name):
  model = models.create_model(name, 10)
  images = jax.ShapeDtypeStruct((1, 224, 224, 3), 'float32')
  params = jax.eval_shape(model.init, jax.random.key(0), images)
  counted = counted_flops(model, params, images)
  flops = layers.forward_flops(layers.model_parts(model, 224))
  # XLA counts functions of single elements too.
  assert 0.97 * counted < flops < counted


@pytest.mark.parametrize('classifier', ['token', 'gap', 'map', 'unpooled'])
def test_heads_are_counted(classifier):
  config = models.variants.model_config('s32')
  config.update(classifier=classifier, representation_size=96)
  config.transformer.num_layers = 1
  model = models.create_model(config, 10)
  images = jax.ShapeDtypeStruct((1, 160, 160, 3), 'float32')
  params = jax.eval_shape(model.init, jax.random.key(0), images)
  counted = counted_flops(model, params, images)
  flops = layers.forward_flops(layers.model_parts(model, 160))
  assert 0.97 * counted < flops < counted


_STEPS = {
  'vit': lambda: mini_config(**{'model.transformer.num_layers': 2}),
  'micro': lambda: mini_config(
    **{'model.transformer.num_layers': 2, 'batch': 32, 'accum_steps': 4}
  ),
  'scanned': lambda: mini_config(
    **{
      'model.transformer.num_layers': 4,
      'batch': 32,
      'scan_layers': True,
      'remat': 'full',
    }
  ),
  'scanned, small batch': lambda: mini_config(
    **{
      'model.transformer.num_layers': 3,
      'batch': 2,
      'scan_layers': True,
      'remat': 'full',
    }
  ),
  'moments of 16 bits': lambda: mini_config(
    **{
      'model.transformer.num_layers': 2,
      'batch': 2,
      'optim_dtype': 'bfloat16',
    }
  ),
  'micro, moments of 16 bits': lambda: mini_config(
    **{
      'model.transformer.num_layers': 2,
      'batch': 4,
      'accum_steps': 2,
      'optim_dtype': 'bfloat16',
    }
  ),
  'scanned, all kept': lambda: mini_config(
    **{'model.transformer.num_layers': 3, 'batch': 32, 'scan_layers': True}
  ),
  'scanned, 16 bits': lambda: mini_config(
    **{
      'model.transformer.num_layers': 3,
      'batch': 2,
      'scan_layers': True,
      'remat': 'full',
      'dtype': 'bfloat16',
    }
  ),
  'mixer': lambda: mini_config(mixer, **{'model.num_blocks': 2}),
  'hybrid': lambda: mini_config(
    name='r26_s32,cifar10',
    **{'model.transformer.num_layers': 1, 'model.resnet.num_layers': (1, 1)},
  ),
}
_CHEAP_STEPS = ('vit', 'scanned, small batch', 'moments of 16 bits')


@pytest.mark.parametrize(
  'name',
  [
    *_CHEAP_STEPS,
    *(
      pytest.param(name, marks=pytest.mark.slow)
      for name in _STEPS
      if name not in _CHEAP_STEPS
    ),
  ],
)
def test_step_takes_what_is_planned(name):
  config = _STEPS[name]()
  built, compiled = compiled_step(config)
  parts = layers.model_parts(built.model, config.pp.crop)
  planned = memory.training_memory(built, parts, config.accum_steps)
  found = compiled.memory_analysis()
  # Exactly, but for labels, keys and padding.
  arguments = planned.params + planned.optimizer + planned.batch
  rest = found.argument_size_in_bytes - arguments
  assert 0 <= rest <= 8 * config.batch + 1_024
  temporary = planned.gradients + planned.copies + planned.activations
  assert temporary / 1.5 < found.temp_size_in_bytes < 1.5 * temporary
  if name in ('vit', 'mixer', 'hybrid'):  # XLA counts the body of a loop once.
    flops = compiled.cost_analysis()['flops'] / config.batch
    assert 0.95 * flops < layers.training_flops(parts) < 1.01 * flops


def test_remat_and_fused_attention_keep_less():
  kept = []
  for remat in ('none', 'dots', 'full'):
    model = models.create_model('b16', 10, remat=remat)
    parts = layers.model_parts(model, 384)
    kept.append(memory.activation_bytes(parts, model, 1))
  assert kept[0] > 1.5 * kept[1] > 1.5 * 1.5 * kept[2]
  fused = layers.model_parts(model, 384, is_fused=True)
  assert memory.activation_bytes(fused, model, 1) < kept[2]


def test_tensor_and_fsdp_share_the_work():
  config = mini_config(name='b16,imagenet2012', batch=512, **{'pp.crop': 224})
  one = plan.make_plan(config, 'h100')
  config.mesh.fsdp = 8
  eight = plan.make_plan(config, 'h100')
  assert eight.mesh == {'data': 1, 'fsdp': 8, 'tensor': 1}
  assert eight.memory.params < one.memory.params / 7.5
  assert eight.memory.activations == pytest.approx(
    one.memory.activations / 8, rel=0.01
  )
  assert eight.speed.step_seconds < one.speed.step_seconds / 6
  config.update(mesh={'data': 1, 'fsdp': 1, 'tensor': 4})
  four = plan.make_plan(config, 'h100')
  assert four.memory.params < one.memory.params / 3
  assert four.memory.activations < one.memory.activations
  assert four.speed.step_seconds < one.speed.step_seconds / 2


@pytest.mark.parametrize('name', PUBLISHED_HOURS)
def test_estimate_is_near_what_the_original_took(name):
  config = vit.get_config(f'{name},cifar10')
  config.mesh.data = 8
  found = plan.make_plan(config, 'v100')
  hours = config.total_steps * found.speed.step_seconds / 3600
  assert hours == pytest.approx(PUBLISHED_HOURS[name], rel=0.25)
  assert 0 < found.speed.share_of_peak < 0.6


def test_smallest_accum_steps_is_the_smallest_that_fits():
  config = vit.get_config('b16,cifar10')
  config.update(mesh={'data': 8}, accum_steps=2)
  found = plan.make_plan(config, 'v100')
  assert not found.fits
  assert found.smallest_accum_steps == 4
  config.accum_steps = 4
  assert plan.make_plan(config, 'v100').fits
  text = report.plan_text(config, found)
  assert 'does NOT fit in 90% of 16.00 GB' in text
  assert '4 is the smallest that fits' in text


def test_what_fits_in_no_way_is_told_with_what_helps():
  sizes = {'hidden_size': 16_384, 'transformer.num_layers': 4}
  fields = {f'model.{name}': value for name, value in sizes.items()}
  config = mini_config(**fields, **{'model.transformer.num_heads': 128})
  found = plan.make_plan(config, 't4')
  assert found.smallest_accum_steps is None
  text = report.plan_text(config, found)
  assert "no number fits; try config.remat='full', config.dtype=bf" in text
  assert 'a larger config.mesh.fsdp' in text


@pytest.mark.parametrize('name', [n for n in accelerators.NAMES if n != 'cpu'])
def test_every_accelerator_can_be_planned_for(name):
  device = accelerators.accelerator(name)
  assert 8e9 <= device.memory <= 141e9
  assert device.peak('float16') >= device.peak('float32')
  assert device.peak('bfloat16') >= device.peak('float32')
  # All products of a step would wait for memory otherwise.
  assert 10 < device.peak('float32') / device.bandwidth < 1_000


@pytest.mark.parametrize(
  ('kind', 'name'),
  [
    ('NVIDIA H200', 'h200'),
    ('NVIDIA H100 80GB HBM3', 'h100'),
    ('NVIDIA A100-SXM4-40GB', 'a100-40'),
    ('Tesla V100-SXM2-16GB', 'v100'),
    ('Tesla T4', 't4'),
    ('NVIDIA L4', 'l4'),
    ('NVIDIA GeForce RTX 4090', 'rtx4090'),
    ('TPU v5 lite', 'tpu-v5e'),
    ('TPU v5', 'tpu-v5p'),
    ('TPU v4', 'tpu-v4'),
    ('TPU v6 lite', 'tpu-v6e'),
    ('cpu', 'cpu'),
    ('AMD Instinct MI300X', None),
    ('TPU v6e', 'tpu-v6e'),
    ('TPU v5p', 'tpu-v5p'),
    ('NVIDIA L40S', None),
    ('NVIDIA H100 PCIe', None),
  ],
)
def test_device_is_recognised(kind, name):
  found = accelerators.detect(kind)
  assert (found and found.name) == name


def test_unknown_accelerator_is_answered():
  with pytest.raises(errors.ConfigError, match="Did you mean 'h100'"):
    plan.make_plan(vit.get_config('tiny,digits'), 'h1000')
  with pytest.raises(errors.ConfigError, match='--accelerator='):
    accelerators.refuse(dataclasses.make_dataclass('D', ['device_kind'])('X'))


@pytest.mark.parametrize(
  ('dataset', 'label', 'expected'),
  [
    ('imagenet2012', '', (1_000, 'of imagenet2012')),
    ('sun397/tfds', '', (397, 'of sun397/tfds')),
    ('clevr', 'clevr_count', (8, 'of clevr_count')),
    ('food101', '', (1_000, 'assumed: the data set is not prepared here')),
  ],
)
def test_classes_are_known_without_data(dataset, label, expected, tmp_path):
  config = vit.get_config('tiny,digits')
  config.update(dataset=dataset, label=label, tfds_data_dir=str(tmp_path))
  assert classes.num_classes(config) == expected


def test_folder_that_is_not_there_is_no_assumption(tmp_path):
  config = vit.get_config(f'tiny,{tmp_path}/nowhere')
  with pytest.raises(errors.DataNotFoundError):
    classes.num_classes(config)


def test_presets_are_known():
  from configs import datasets

  names = {
    fields.get('dataset', name).partition('/')[0]
    for name, fields in datasets.DATASETS.items()
    if not fields.get('label')
  }
  assert names <= {*classes._CLASSES}


def test_gigantic_is_an_eighth_on_each_of_eight():
  config = vit.get_config('G14,imagenet2012')
  config.mesh.fsdp = 8
  mesh = plan.abstract_mesh({'data': 1, 'fsdp': 8, 'tensor': 1})
  target = experiment.build(config, 1_000, mesh).target
  whole = sum(
    leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(target)
  )
  assert whole > 1.8e9 * 6  # Parameters, and momentum in bfloat16.
  assert 1 <= 8 * sharding.bytes_per_device(target) / whole < 1.01


# The whole step of a model as wide as ViT-G/14, on eight devices of a CPU.
_COMPILE = """
from test_plan import compiled_step, layers, memory, vit
config = vit.get_config('G14,imagenet2012')
config.update(batch=8, accum_steps=1, scan_layers=True)
config.model.transformer.num_layers = 3
config.mesh.fsdp, config.pp.crop = 8, 56
built, compiled = compiled_step(config, 8)
parts = layers.model_parts(built.model, config.pp.crop)
planned = memory.training_memory(built, parts, 1)
found = compiled.memory_analysis()
print(planned.params + planned.optimizer, found.argument_size_in_bytes)
"""


@pytest.mark.slow
def test_compiled_step_of_eight_devices_holds_an_eighth(pytestconfig):
  root = pytestconfig.rootpath
  done = subprocess.run(
    [sys.executable, '-c', _COMPILE],
    cwd=root,
    env=os.environ
    | {
      'XLA_FLAGS': compiling.flags(8),
      'PYTHONPATH': os.pathsep.join([str(root), str(root / 'tests')]),
    },
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  planned, found = map(int, done.stdout.split())
  assert planned <= found < planned + 20_000  # The images, labels and key.
  # An eighth of 3 blocks of 38.4 M and what is around them, 6 bytes each.
  assert planned == pytest.approx(6 * (3 * 38.4e6 + 3e6) / 8, rel=0.05)
