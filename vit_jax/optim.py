"""Learning-rate schedules and the optimiser."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax import errors

# The linear schedule ends here instead of at zero, as in the original.
_LINEAR_END = 1e-5


def learning_rate_schedule(
  base_lr: float, decay_type: str, total_steps: int, warmup_steps: int
) -> optax.Schedule:
  """Returns the learning rate as a function of the step, counted from 0.

  The rate rises linearly from 0 over `warmup_steps`, so that the first update
  changes nothing, and decays over the rest: 'cosine' to 0, 'linear' to 1e-5,
  'constant' not at all.

  Args:
    base_lr: the rate at the end of the warm-up.
    decay_type: 'cosine', 'linear' or 'constant'.
    total_steps: length of the training.
    warmup_steps: length of the warm-up, 0 for none.

  Raises:
    ConfigError: an unknown `decay_type`.
  """
  decays = {
    'cosine': lambda progress: base_lr * 0.5 * (1 + jnp.cos(jnp.pi * progress)),
    'linear': lambda progress: (
      _LINEAR_END + (base_lr - _LINEAR_END) * (1 - progress)
    ),
    'constant': lambda progress: jnp.full_like(progress, base_lr),
  }
  if decay_type not in decays:
    raise errors.ConfigError(
      errors.unknown_name('config.decay_type', decay_type, decays)
    )

  def schedule(step):
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    rate = decays[decay_type](jnp.clip(progress, 0.0, 1.0))
    if warmup_steps:
      rate *= jnp.minimum(1.0, step / warmup_steps)
    return rate.astype(jnp.float32)

  return schedule


def make_optimizer(
  config: Any, schedule: optax.Schedule
) -> optax.GradientTransformation:
  """Returns clipping by the global norm followed by the optimiser.

  Args:
    config: with `optimizer` ('sgd' with momentum 0.9, or 'adamw'),
      `optim_dtype` of the momentum, `grad_norm_clip` (None or 0 for no
      clipping) and, for adamw, `weight_decay`, which kernels alone are subject
      to.
    schedule: learning rate by step.

  Raises:
    ConfigError: an unknown `optimizer` or `optim_dtype`.
  """
  dtypes = ('bfloat16', 'float32')
  if config.optim_dtype not in dtypes:
    raise errors.ConfigError(
      errors.unknown_name('config.optim_dtype', config.optim_dtype, dtypes)
    )
  optimizers: dict[str, Callable[[], optax.GradientTransformation]] = {
    'sgd': lambda: optax.sgd(
      schedule, momentum=0.9, accumulator_dtype=config.optim_dtype
    ),
    'adamw': lambda: optax.adamw(
      schedule,
      weight_decay=config.weight_decay,
      mu_dtype=config.optim_dtype,
      mask=_is_kernel,
    ),
  }
  if config.optimizer not in optimizers:
    raise errors.ConfigError(
      errors.unknown_name('config.optimizer', config.optimizer, optimizers)
    )
  tx = optimizers[config.optimizer]()
  if config.grad_norm_clip:
    tx = optax.chain(optax.clip_by_global_norm(config.grad_norm_clip), tx)
  return tx


def _is_kernel(params: Any) -> Any:
  """Marks the kernels: norms, biases and embeddings are not decayed."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key == 'kernel', params
  )
