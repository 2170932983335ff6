"""What a plan counts: one assertion for each of its terms, and bad configs."""

from typing import Any

import pytest
from test_plan import mini_config

from configs import vit
from vit_jax import errors, models, plan
from vit_jax.plan import accelerators, layers, memory, speed


def plan_of(accelerator: str = 'h100', /, **fields: Any) -> plan.Plan:
  """Plans a ViT of two layers that is cheap to plan."""
  layers = {'model.transformer.num_layers': 2}
  return plan.make_plan(mini_config(**layers, **fields), accelerator)


def test_update_takes_the_time_of_its_memory():
  # One token an image: next to nothing but weights is moved. Forward and
  # backward passes read them three times.
  found = plan_of(batch=1, **{'pp.crop': 16})
  device = accelerators.accelerator('h100')
  one_pass = 4 * found.num_params / device.bandwidth / speed.ATTAINED
  assert 3 + 5 < found.speed.step_seconds / one_pass < 3 + 10


def test_what_is_computed_again_takes_time():
  none, dots, full = (
    plan_of(remat=remat).speed.step_seconds
    for remat in ('none', 'dots', 'full')
  )
  assert 1.01 * none < dots < full / 1.01


def test_weights_are_gathered_over_fsdp():
  assert plan_of().memory.copies == 0
  # A block of 384 and 1,536 units, and the next one.
  found = plan_of(**{'mesh.fsdp': 2})
  assert found.memory.copies == 2 * 4 * 12 * 384**2


def test_attention_is_fused_where_there_is_a_kernel():
  def activations(accelerator, **fields):
    return plan_of(accelerator, **fields).memory.activations

  half = {'dtype': 'bfloat16', 'pp.crop': 384}
  plain = activations('h100', **half, attention='plain')
  assert activations('h100', **half) < 0.9 * plain
  assert activations('tpu-v4', **half) == plain
  single = half | {'dtype': 'float32'}
  assert activations('h100', **single) > plain


def test_micro_batches_have_gradients_and_their_sum():
  one, two = (plan_of(accum_steps=n).memory for n in (1, 2))
  assert one.gradients == one.params
  assert two.gradients == 2 * one.gradients


def test_scan_keeps_more_unless_it_is_computed_again():
  def activations(**fields):
    return plan_of(**fields).memory.activations

  assert activations(scan_layers=True) > 1.3 * activations()
  again = {'remat': 'full'}
  assert activations(scan_layers=True, **again) == activations(**again)


def test_dropout_keeps_a_byte_of_each_element():
  kept = []
  for rate in (0.0, 0.1):
    fields = {'transformer.dropout_rate': rate, 'transformer.num_layers': 2}
    config = models.variants.model_config('s16')
    config.update_from_flattened_dict(fields)
    model = models.create_model(config, 10)
    parts = layers.model_parts(model, 64)
    kept.append(memory.activation_bytes(parts, model, 1))
  # Per block 384 after attention, 1,536 within the MLP and 384 after it, for
  # each of 17 tokens; one of three is whole on the way back.
  assert kept[1] - kept[0] == 3 * 17 * (384 + 1_536 + 384)


@pytest.mark.parametrize(
  ('name', 'value'),
  [
    ('mesh', 8),
    ('mesh', None),
    ('mesh.data', '2'),
    ('mesh.tensor', 1.5),
    ('mesh.fsdp', None),
  ],
)
@pytest.mark.parametrize('accelerator', ['h100', 'cpu', ''])
def test_malformed_mesh_is_a_config_error(name, value, accelerator):
  config = vit.get_config('tiny,digits')
  with config.ignore_type():
    if name == 'mesh':
      config.mesh = value
    else:
      config.update_from_flattened_dict({name: value})
  with pytest.raises(errors.ConfigError, match=name):
    plan.make_plan(config, accelerator)


@pytest.mark.parametrize('batch', [2**43, 2**61 - 1])
def test_enormous_batch_fits_in_no_way(batch):
  assert plan_of(batch=batch).smallest_accum_steps is None


def test_smallest_number_that_fits_is_a_divisor():
  config = mini_config(batch=2 * 3 * 5_003, **{'pp.crop': 224})
  found = plan.make_plan(config, 't4')
  assert found.smallest_accum_steps == 5_003
  config.accum_steps = 5_003
  assert plan.make_plan(config, 't4').fits
  config.accum_steps = 6
  assert not plan.make_plan(config, 't4').fits
