"""Leaves updates that are not finite out, and scales the loss for float16.

float16 has no numbers below 6e-8, where many gradients are. So the loss is
multiplied by a scale, and the gradients are divided by it (Micikevicius et al.
2018, arXiv 1710.03740, section 3.2). The scale is as large as gradients allow:
it is halved when one overflows, and doubled after many steps without.

Its state is part of the optimiser's, so it is saved and restored with it. Where
there is neither float16 nor `config.on_nonfinite='skip'` nothing is added.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

_FIRST_SCALE = 2.0**15
# All are powers of two, by which multiplying and dividing is exact. With the
# largest, gradients still are far above the smallest float32.
MIN_SCALE, MAX_SCALE = 1.0, 2.0**24
_DOUBLE_EVERY = 2_000


class LossScale(NamedTuple):
  """The scale and what it follows.

  Attributes:
    scale: float32 [].
    num_good: int32 [], updates since it last changed.
    num_overflows: int32 [], how often it was halved; as often, an update was
      left out.
  """

  scale: jax.Array
  num_good: jax.Array
  num_overflows: jax.Array


class GuardState(NamedTuple):
  """The state of a guarded optimiser.

  Attributes:
    inner: the optimiser's own, unchanged by updates that are left out.
    num_skipped: int32 [], updates left out, those of `loss_scale` aside.
    loss_scale: empty where the loss is not scaled.
  """

  inner: optax.OptState
  num_skipped: jax.Array
  loss_scale: LossScale | optax.EmptyState


def guard_for(
  config: Any, tx: optax.GradientTransformation
) -> optax.GradientTransformation:
  """Returns `tx`, guarded if the config asks for it.

  Args:
    config: with `dtype` and `on_nonfinite`.
    tx: the optimiser.
  """
  scales_loss = config.dtype == 'float16'
  if not scales_loss and config.on_nonfinite == 'stop':
    return tx
  return guarded(tx, scales_loss=scales_loss)


def guarded(
  tx: optax.GradientTransformation, *, scales_loss: bool
) -> optax.GradientTransformationExtraArgs:
  """Returns an optimiser that leaves out what is not finite.

  Its `update` takes gradients that are `unscaled`, and `loss`. If the loss or
  the gradients' norm is NaN or infinite, the updates change nothing, and the
  state of `tx` stays.

  Args:
    tx: the optimiser.
    scales_loss: whether to adapt a loss scale.
  """
  tx = optax.with_extra_args_support(tx)

  def init(params):
    zero = jnp.int32(0)
    scale = LossScale(jnp.float32(_FIRST_SCALE), zero, zero)
    return GuardState(
      tx.init(params), zero, scale if scales_loss else optax.EmptyState()
    )

  def update(grads, state, params=None, *, loss, **extra_args):
    updates, inner = tx.update(grads, state.inner, params, **extra_args)
    has_loss = jnp.isfinite(loss)
    is_good = has_loss & jnp.isfinite(optax.tree.norm(grads))
    loss_scale, is_fault = state.loss_scale, ~is_good
    if isinstance(loss_scale, LossScale):
      # A forward pass that overflows does so with any scale.
      is_overflow = has_loss & ~is_good & (loss_scale.scale > MIN_SCALE)
      is_fault &= ~is_overflow
      loss_scale = next_loss_scale(loss_scale, is_good, is_overflow)
    # Unlike 0, -0 leaves every bit as it is, the sign of 0 included.
    updates = jax.tree.map(lambda u: jnp.where(is_good, u, -0.0), updates)
    inner = jax.tree.map(
      lambda new, old: jnp.where(is_good, new, old), inner, state.inner
    )
    num_skipped = state.num_skipped + is_fault
    return updates, GuardState(inner, num_skipped, loss_scale)

  return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def next_loss_scale(
  state: LossScale, is_good: jax.Array, is_overflow: jax.Array
) -> LossScale:
  """Returns the scale for the next step.

  Args:
    state: of this step.
    is_good: bool [], whether the update is made.
    is_overflow: bool [], whether it is left out on account of the scale; never
      both. If neither, only the counting begins anew.
  """
  num_good = jnp.where(is_good, state.num_good + 1, 0)
  is_due = num_good == _DOUBLE_EVERY
  factor = jnp.where(is_overflow, 0.5, jnp.where(is_due, 2.0, 1.0))
  return LossScale(
    jnp.clip(state.scale * factor, MIN_SCALE, MAX_SCALE),
    jnp.where(is_due, 0, num_good),
    state.num_overflows + is_overflow,
  )


def scale_of(opt_state: optax.OptState) -> jax.Array | None:
  """Returns the scale of the loss, float32 [], None where it has none."""
  if not isinstance(opt_state, GuardState):
    return None
  loss_scale = opt_state.loss_scale
  return loss_scale.scale if isinstance(loss_scale, LossScale) else None


def num_left_out(opt_state: optax.OptState) -> jax.Array | int:
  """Returns how many steps made no update, for whatever reason."""
  if not isinstance(opt_state, GuardState):
    return 0
  loss_scale = opt_state.loss_scale
  is_scaled = isinstance(loss_scale, LossScale)
  return opt_state.num_skipped + (loss_scale.num_overflows if is_scaled else 0)


def guard_metrics(
  before: optax.OptState, after: optax.OptState
) -> dict[str, jax.Array]:
  """Returns what a guard did in a step; {} where there is none.

  Args:
    before: the optimiser's state.
    after: the same after the step.

  Returns:
    'left_out' bool [], whether no update was made; 'num_skipped' int32 [], how
    many were not in the run so far, those aside that the loss scale took care
    of; where there is one, 'loss_scale' float32 [], as it was in the step, and
    'is_overflow' bool [], whether it was too large.
  """
  if not isinstance(before, GuardState) or not isinstance(after, GuardState):
    return {}
  metrics = {
    'left_out': jnp.asarray(num_left_out(after) > num_left_out(before)),
    'num_skipped': after.num_skipped,
  }
  if isinstance(before.loss_scale, LossScale):
    num_overflows = before.loss_scale.num_overflows
    metrics['loss_scale'] = before.loss_scale.scale
    metrics['is_overflow'] = after.loss_scale.num_overflows > num_overflows
  return metrics
