"""One update: the state, the loss, and the pure function that is jitted."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from vit_jax import guard, sharding
from vit_jax.data import augment
from vit_jax.models import blocks

Batch = Mapping[str, jax.Array]


@flax.struct.dataclass
class TrainState:
  """All that an update changes.

  Attributes:
    step: int32 [], number of updates made, those that were left out as they
      were not finite included.
    params: the model's parameters; with `config.scan_layers` those of the
      blocks are stacked, and `blocks.unstack_layers` takes them apart.
    opt_state: of the optimiser, its own count of updates included; a
      `guard.GuardState` around it where updates can be left out.
  """

  step: jax.Array
  params: Any
  opt_state: optax.OptState


def softmax_cross_entropy(
  logits: jax.Array, targets: jax.Array, smoothing: float = 0.0
) -> jax.Array:
  """Returns the mean loss of a batch.

  Args:
    logits: float32 [batch, num_classes].
    targets: float32 [batch, num_classes], rows sum to one.
    smoothing: share of the target that is spread evenly over all classes
      (Szegedy et al. 2016, section 7), in [0, 1).

  Returns:
    float32 [].
  """
  targets = optax.smooth_labels(targets, smoothing)
  return optax.softmax_cross_entropy(logits, targets).mean()


def train_step(
  state: TrainState,
  batch: Batch,
  key: jax.Array,
  *,
  model: Any,
  tx: optax.GradientTransformation,
  schedule: optax.Schedule,
  transform: Callable[[jax.Array, jax.Array], jax.Array],
  accum_steps: int = 1,
  label_smoothing: float = 0.0,
  mixup_alpha: float = 0.0,
  cutmix_alpha: float = 0.0,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Makes one update; a pure function, jitted once by the loop.

  Everything random follows from `key`, the step and the place in the batch, so
  neither the number of devices nor a restart changes it.

  Args:
    state: before the update; `state.step` picks the keys.
    batch: 'image' uint8 [batch, height, width, 3], 'label' int32 [batch].
    key: the run's key, the same at every step.
    model: the module.
    tx: the optimiser, which `guard.guarded` may stand around.
    schedule: learning rate by update, for the log; `tx` has its own.
    transform: augments and normalises: (a key per image, images) -> inputs.
    accum_steps: micro-batches whose gradients are averaged; it divides the
      batch.
    label_smoothing: see `softmax_cross_entropy`.
    mixup_alpha: see `augment.mixup`; 0 mixes nothing.
    cutmix_alpha: see `augment.cutmix`; 0 mixes nothing.

  Returns:
    The next state and float32 scalars 'loss', 'accuracy', 'learning_rate' and
    'grad_norm' (before clipping); with a guard, its metrics too.
  """
  scale = guard.scale_of(state.opt_state)

  def micro_step(rows, key):
    images, labels, keys = rows
    mixing_key, dropout_key = jax.random.split(key)
    targets = jax.nn.one_hot(labels, model.num_classes)
    mixed = augment.mix(
      mixing_key, transform(keys, images), targets, mixup_alpha, cutmix_alpha
    )
    return _gradients(
      model, state.params, *mixed, labels, dropout_key, label_smoothing, scale
    )

  keys, base_key = _step_keys(key, state.step, batch['label'].shape[0])
  rows = batch['image'], batch['label'], keys
  (loss, accuracy), grads = _mean_of_micro_batches(
    micro_step, rows, base_key, accum_steps
  )
  if scale is not None:
    grads = jax.tree.map(lambda grad: grad / scale, grads)
  updates, opt_state = optax.with_extra_args_support(tx).update(
    grads, state.opt_state, state.params, loss=loss
  )
  num_updates = state.step - guard.num_left_out(state.opt_state)
  metrics = {
    'loss': loss,
    'accuracy': accuracy,
    'learning_rate': schedule(num_updates),
    'grad_norm': optax.tree.norm(grads),
    **guard.guard_metrics(state.opt_state, opt_state),
  }
  next_state = TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    opt_state=opt_state,
  )
  return next_state, metrics


def _gradients(
  model: Any,
  params: Any,
  inputs: jax.Array,
  targets: jax.Array,
  labels: jax.Array,
  dropout_key: jax.Array,
  label_smoothing: float,
  scale: jax.Array | None,
) -> tuple[tuple[jax.Array, jax.Array], Any]:
  """Returns ((loss, accuracy), gradients of `scale` times the loss)."""

  def scaled_loss(params):
    logits = model.apply(
      {'params': params}, inputs, train=True, rngs={'dropout': dropout_key}
    )
    loss = softmax_cross_entropy(logits, targets, label_smoothing)
    accuracy = (logits.argmax(axis=-1) == labels).mean()
    return loss if scale is None else loss * scale, (loss, accuracy)

  (_, metrics), grads = jax.value_and_grad(scaled_loss, has_aux=True)(params)
  return metrics, grads


def _mean_of_micro_batches(
  micro_step: Callable[[Any, jax.Array], Any],
  rows: Any,
  base_key: jax.Array,
  accum_steps: int,
) -> Any:
  """Returns the mean of what `micro_step` gives for each micro-batch.

  Args:
    micro_step: takes (rows, a key) of one micro-batch.
    rows: tree of arrays [batch, ...].
    base_key: to fold the number of the micro-batch into.
    accum_steps: how many there are.
  """

  def numbered(rows, number):
    return micro_step(rows, jax.random.fold_in(base_key, number))

  if accum_steps == 1:
    return numbered(rows, 0)
  split_rows = functools.partial(_split_rows, accum_steps=accum_steps)
  micro_batches = jax.tree.map(split_rows, rows), jnp.arange(accum_steps)

  def add(total, xs):
    return jax.tree.map(jnp.add, total, numbered(*xs)), None

  shapes = jax.eval_shape(
    numbered, *jax.tree.map(lambda x: x[0], micro_batches)
  )
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  total, _ = jax.lax.scan(add, zeros, micro_batches)
  return jax.tree.map(lambda x: x / accum_steps, total)


def make_train_step(
  model: Any,
  tx: optax.GradientTransformation,
  schedule: optax.Schedule,
  config: Any,
  *,
  cropped: bool,
  shardings: TrainState,
  mesh: Mesh,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """Returns `train_step` jitted over the mesh; it takes the state's memory.

  Args:
    model: the module.
    tx: the optimiser.
    schedule: learning rate by step.
    config: with `pp`, `accum_steps`, `label_smoothing`, `mixup_alpha` and
      `cutmix_alpha`.
    cropped: whether the host crops the images.
    shardings: of every array of the state.
    mesh: the devices.
  """
  everywhere = sharding.replicated(mesh)
  return jax.jit(
    functools.partial(
      train_step,
      model=model,
      tx=tx,
      schedule=schedule,
      transform=augment.train_transform(config.pp, cropped=cropped),
      accum_steps=config.accum_steps,
      label_smoothing=config.label_smoothing,
      mixup_alpha=augment.mixup_alpha(config),
      cutmix_alpha=config.cutmix_alpha,
    ),
    in_shardings=(shardings, sharding.batch_sharding(mesh), everywhere),
    out_shardings=(shardings, everywhere),
    donate_argnums=0,
  )


def run_keys(seed: int) -> tuple[jax.Array, jax.Array]:
  """Returns the keys of a run: for the first parameters, for its steps."""
  init_key, train_key = jax.random.split(jax.random.key(seed))
  return init_key, train_key


def make_inputs(
  config: Any, num_classes: int, *, cropped: bool
) -> Callable[[jax.Array, Any, Any], tuple[jax.Array, jax.Array]]:
  """Returns what tells the inputs of a step, the very ones it trains on.

  Args:
    config: as for `make_train_step`.
    num_classes: of the targets.
    cropped: whether the host crops the images.

  Returns:
    A function of the run's key, the number of updates before and a batch, that
    gives inputs float32 [batch, height, width, 3] in [-1, 1] and targets
    float32 [batch, num_classes], both mixed, in the order of the batch.
  """
  transform = augment.train_transform(config.pp, cropped=cropped)
  split_rows = functools.partial(_split_rows, accum_steps=config.accum_steps)

  def inputs(key, step, batch):
    keys, base_key = _step_keys(key, step, batch['label'].shape[0])

    def micro_inputs(args):
      images, labels, keys, micro_step = args
      mixing_key, _ = jax.random.split(jax.random.fold_in(base_key, micro_step))
      return augment.mix(
        mixing_key,
        transform(keys, images),
        jax.nn.one_hot(labels, num_classes),
        augment.mixup_alpha(config),
        config.cutmix_alpha,
      )

    rows = jax.tree.map(split_rows, (batch['image'], batch['label'], keys))
    mixed = jax.lax.map(micro_inputs, (*rows, jnp.arange(config.accum_steps)))
    return jax.tree.map(
      lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), mixed
    )

  return jax.jit(inputs)


def _step_keys(
  key: jax.Array, step: jax.Array, batch_size: int
) -> tuple[jax.Array, jax.Array]:
  """Returns a key for each row, and one to fold the micro-batch into."""
  transform_key, base_key = jax.random.split(jax.random.fold_in(key, step))
  return jax.random.split(transform_key, batch_size), base_key


def _split_rows(x: jax.Array, accum_steps: int) -> jax.Array:
  """Splits [batch, ...] into [accum_steps, batch / accum_steps, ...].

  A micro-batch takes every accum_steps-th row, so each device finds its share
  of every micro-batch among the rows it has.
  """
  return x.reshape(-1, accum_steps, *x.shape[1:]).swapaxes(0, 1)


def init_params(model: Any, key: jax.Array, image_size: int) -> Any:
  """Returns random parameters for square images of `image_size` pixels.

  They are as a state has them: stacked for a model with `scan_layers`.
  """
  images = jnp.zeros((1, image_size, image_size, 3))
  return as_in_state(model, model.init(key, images)['params'])


def as_in_state(model: Any, params: Any) -> Any:
  """Returns parameters as a state of `model` has them.

  Args:
    model: the module.
    params: of it, in the published layout.
  """
  has_stack = getattr(model, 'scan_layers', False)
  return blocks.stack_layers(params) if has_stack else params


def init_state(params: Any, tx: optax.GradientTransformation) -> TrainState:
  """Returns the state before the first update."""
  return TrainState(jnp.int32(0), params, tx.init(params))


def state_shapes(
  model: Any, tx: optax.GradientTransformation, image_size: int
) -> TrainState:
  """Returns `jax.ShapeDtypeStruct`s of the state; no memory is taken."""
  return jax.eval_shape(
    lambda key: init_state(init_params(model, key, image_size), tx),
    jax.random.key(0),
  )
