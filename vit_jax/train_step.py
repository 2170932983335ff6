"""One update: the state, the loss, and the pure function that is jitted."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from vit_jax import sharding
from vit_jax.data import augment

Batch = Mapping[str, jax.Array]


@flax.struct.dataclass
class TrainState:
  """All that an update changes.

  Attributes:
    step: int32 [], number of updates made.
    params: the model's parameters.
    opt_state: of the optimiser, its own count of updates included.
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
    tx: the optimiser.
    schedule: learning rate by step, for the log; `tx` has its own.
    transform: augments and normalises: (a key per image, images) -> inputs.
    accum_steps: micro-batches whose gradients are averaged; it divides the
      batch.
    label_smoothing: see `softmax_cross_entropy`.
    mixup_alpha: see `augment.mixup`; 0 mixes nothing.
    cutmix_alpha: see `augment.cutmix`; 0 mixes nothing.

  Returns:
    The next state and float32 scalars 'loss', 'accuracy', 'learning_rate' and
    'grad_norm' (before clipping).
  """
  keys, base_key = _step_keys(key, state.step, batch['label'].shape[0])

  def loss_and_accuracy(params, images, labels, keys, micro_key):
    mixing_key, dropout_key = jax.random.split(micro_key)
    targets = jax.nn.one_hot(labels, model.num_classes)
    inputs, targets = augment.mix(
      mixing_key, transform(keys, images), targets, mixup_alpha, cutmix_alpha
    )
    logits = model.apply(
      {'params': params},
      inputs,
      train=True,
      rngs={'dropout': dropout_key},
    )
    accuracy = (logits.argmax(axis=-1) == labels).mean()
    return softmax_cross_entropy(logits, targets, label_smoothing), accuracy

  def gradients(images, labels, keys, micro_step):
    """Returns ((loss, accuracy), gradients) of one micro-batch."""
    return jax.value_and_grad(loss_and_accuracy, has_aux=True)(
      state.params,
      images,
      labels,
      keys,
      jax.random.fold_in(base_key, micro_step),
    )

  rows = batch['image'], batch['label'], keys
  if accum_steps == 1:
    (loss, accuracy), grads = gradients(*rows, 0)
  else:
    micro_batches = jax.tree.map(
      functools.partial(_split_rows, accum_steps=accum_steps), rows
    )

    def add(total, xs):
      return jax.tree.map(jnp.add, total, gradients(*xs)), None

    shapes = jax.eval_shape(gradients, *(x[0] for x in micro_batches), 0)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(
      add, zeros, (*micro_batches, jnp.arange(accum_steps))
    )
    (loss, accuracy), grads = jax.tree.map(lambda x: x / accum_steps, total)

  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  metrics = {
    'loss': loss,
    'accuracy': accuracy,
    'learning_rate': schedule(state.step),
    'grad_norm': optax.tree.norm(grads),
  }
  next_state = TrainState(
    step=state.step + 1,
    params=optax.apply_updates(state.params, updates),
    opt_state=opt_state,
  )
  return next_state, metrics


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
  """Returns random parameters for square images of `image_size` pixels."""
  images = jnp.zeros((1, image_size, image_size, 3))
  return model.init(key, images)['params']


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
