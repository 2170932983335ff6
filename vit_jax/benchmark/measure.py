"""Measures one case in this process: time, compilation, memory."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from vit_jax import config_checks, experiment, sharding
from vit_jax.benchmark import cases
from vit_jax.data import augment
from vit_jax.plan import accelerators, layers, memory


def measure(case: Mapping[str, Any], config: Any) -> dict[str, Any]:
  """Returns the figures of a case.

  Args:
    case: from `cases.make_cases`.
    config: of it, from `cases.configure`.

  Returns:
    'compile_s' and more times in the units of their names, 'images_per_sec',
    'compiled_mb' and more memory in megabytes, and 'mfu', the share of the
    peak; without times if the case is only compiled.

  Raises:
    ConfigError: settings that can't work.
  """
  # A compilation that is read from a cache is none.
  jax.config.update('jax_enable_compilation_cache', False)
  devices = jax.devices()[: cases.num_used(config, jax.device_count())]
  config_checks.check_config(config, len(devices))
  mesh = sharding.make_mesh(config.mesh, devices)
  built = experiment.build(config, case['num_classes'], mesh)
  parts = layers.model_parts(built.model, config.pp.crop)
  is_training = case['kind'] == 'train'
  compiled, compile_s = _compile(built, is_training)
  row = {
    'devices': f'{mesh.size} x {devices[0].device_kind}',
    'jax': jax.__version__,
    'compile_s': compile_s,
    'compiled_mb': _compiled_bytes(compiled) / 1e6,
  }
  if is_training:
    planned = memory.training_memory(built, parts, config.accum_steps)
    row['planned_mb'] = planned.total / 1e6
  if case['compile_only']:
    return row
  times = _step_times(built, compiled, case, is_training)
  step = statistics.median(times)
  row |= {
    'images_per_sec': config.batch / step,
    'step_ms': 1e3 * step,
    'step_ms_range': [1e3 * min(times), 1e3 * max(times)],
    'peak_mb': _peak_bytes(devices[0]) / 1e6,
  }
  peak = _peak_flops(case['accelerator'], devices[0], config.dtype)
  if peak is not None:
    flops = layers.training_flops if is_training else layers.forward_flops
    row['mfu'] = flops(parts) * config.batch / step / (peak * mesh.size)
  return row


def _compile(built: Any, is_training: bool) -> tuple[Any, float]:
  """Returns the compiled step, and the seconds of tracing and compiling."""
  config, size = built.config, built.config.pp.crop
  rows = sharding.batch_sharding(built.mesh)
  shape = (config.batch, size, size, 3)
  images = jax.ShapeDtypeStruct(shape, 'uint8', sharding=rows)
  labels = jax.ShapeDtypeStruct(shape[:1], 'int32', sharding=rows)
  start = time.perf_counter()
  if is_training:
    batch = {'image': images, 'label': labels}
    step = built.train_step(cropped=True)
    lowered = step.lower(built.target, batch, built.train_key)
  else:
    lowered = jax.jit(_predict(built)).lower(built.target.params, images)
  compiled = lowered.compile()
  return compiled, time.perf_counter() - start


def _predict(built: Any) -> Callable[..., Any]:
  transform = augment.eval_transform(built.config.pp)

  def predict(params, images):
    return built.model.apply({'params': params}, transform(images), train=False)

  return predict


def _step_times(
  built: Any, compiled: Any, case: Mapping[str, Any], is_training: bool
) -> list[float]:
  """Returns the seconds of a step, one number for each round."""
  config, size = built.config, built.config.pp.crop
  rng = np.random.default_rng(0)
  shape = (config.batch, size, size, 3)
  batch = sharding.put_batch(
    {
      'image': rng.integers(256, size=shape, dtype=np.uint8),
      'label': rng.integers(case['num_classes'], size=shape[0]).astype('int32'),
    },
    built.mesh,
  )
  state, times, out = built.fresh_state(''), [], None
  params = state.params
  for _ in range(case['rounds'] + 1):
    start = time.perf_counter()
    for _ in range(case['steps']):
      if is_training:
        state, out = compiled(state, batch, built.train_key)
      else:
        out = compiled(params, batch['image'])
    jax.block_until_ready(out)
    times.append((time.perf_counter() - start) / case['steps'])
  return times[1:]  # The first steps choose kernels and warm up.


def _compiled_bytes(compiled: Any) -> int:
  """Returns what a compiled function takes, what it is given included."""
  found = compiled.memory_analysis()
  return (
    found.argument_size_in_bytes
    + found.temp_size_in_bytes
    + found.output_size_in_bytes
    - found.alias_size_in_bytes
  )


def _peak_bytes(device: Any) -> int:
  """Returns the most that was taken: of the device, or of a CPU's process."""
  stats = device.memory_stats() or {}
  if 'peak_bytes_in_use' in stats:
    return stats['peak_bytes_in_use']
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024


def _peak_flops(name: str, device: Any, dtype: str) -> float | None:
  """Returns FLOP/s of one device, None where they are not known."""
  if name:
    found = accelerators.accelerator(name)
  else:
    found = accelerators.detect(device.device_kind)
  if found is None:
    return None
  # Devices that a CPU is divided into share its peak.
  num_parts = jax.device_count() if found.name == 'cpu' else 1
  return found.peak(dtype) / num_parts
