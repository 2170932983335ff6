"""Training and fine-tuning: the state, one jitted step, and the loop."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from vit_jax import (
  checkpoints,
  config_checks,
  errors,
  evaluate,
  models,
  optim,
  progress,
  sharding,
)
from vit_jax.checkpoints import augreg
from vit_jax.checkpoints.state import (
  Standing,
  StateCheckpoints,
  abstract_state,
)
from vit_jax.data import augment, pipeline, sources
from vit_jax.metrics import MetricWriter, read_metrics
from vit_jax.step_window import StepWindow
from vit_jax.workdir import Workdir

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
  logits: jax.Array, labels: jax.Array, smoothing: float = 0.0
) -> jax.Array:
  """Returns the mean loss of a batch.

  Args:
    logits: float32 [batch, num_classes].
    labels: int32 [batch].
    smoothing: share of the target that is spread evenly over all classes
      (Szegedy et al. 2016, section 7), in [0, 1).

  Returns:
    float32 [].
  """
  targets = jax.nn.one_hot(labels, logits.shape[-1])
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

  Returns:
    The next state and float32 scalars 'loss', 'accuracy', 'learning_rate' and
    'grad_norm' (before clipping).
  """
  transform_key, dropout_key = jax.random.split(
    jax.random.fold_in(key, state.step)
  )
  batch_size = batch['label'].shape[0]
  keys = jax.random.split(transform_key, batch_size)

  def loss_and_accuracy(params, images, labels, keys, dropout_key):
    logits = model.apply(
      {'params': params},
      transform(keys, images),
      train=True,
      rngs={'dropout': dropout_key},
    )
    accuracy = (logits.argmax(axis=-1) == labels).mean()
    return softmax_cross_entropy(logits, labels, label_smoothing), accuracy

  def gradients(images, labels, keys, micro_step):
    """Returns ((loss, accuracy), gradients) of one micro-batch."""
    return jax.value_and_grad(loss_and_accuracy, has_aux=True)(
      state.params,
      images,
      labels,
      keys,
      jax.random.fold_in(dropout_key, micro_step),
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


def _split_rows(x: jax.Array, accum_steps: int) -> jax.Array:
  """Splits [batch, ...] into [accum_steps, batch / accum_steps, ...].

  A micro-batch takes every accum_steps-th row, so each device finds its share
  of every micro-batch among the rows it has.
  """
  return x.reshape(-1, accum_steps, *x.shape[1:]).swapaxes(0, 1)


def train_and_evaluate(config: Any, workdir: str | os.PathLike) -> TrainState:
  """Trains what `config` describes to its end, or continues it.

  Args:
    config: as `configs/common.py` defines it.
    workdir: directory of the run; `Workdir` says what it leaves there.

  Returns:
    The state after the last step, on the devices.

  Raises:
    ConfigError: settings that can't work, or a `workdir` with other ones.
    DataError, CheckpointError: unusable data or weights.
    NonFiniteError: the loss or a gradient is NaN or infinite. The checkpoints
      that are there stay.
  """
  run = Workdir(workdir)
  is_main_process = jax.process_index() == 0

  # Mesh.
  mesh = sharding.make_mesh()
  everywhere = sharding.replicated(mesh)
  config_checks.check_config(config, mesh.size)

  # Data.
  train_source = sources.load_source(config, config.pp.train)
  test_source = sources.load_source(config, config.pp.test)
  processes = {
    'process_index': jax.process_index(),
    'process_count': jax.process_count(),
  }

  # Model and optimiser.
  model = models.create_model(
    config.model, num_classes=train_source.num_classes, dtype=config.dtype
  )
  schedule = optim.learning_rate_schedule(
    config.base_lr, config.decay_type, config.total_steps, config.warmup_steps
  )
  tx = optim.make_optimizer(config, schedule)
  init_key, train_key = jax.random.split(jax.random.key(config.seed))
  train_key = jax.device_put(train_key, everywhere)
  shapes = jax.eval_shape(
    lambda key: init_state(init_params(model, key, config.pp.crop), tx),
    init_key,
  )
  shardings = sharding.tree_shardings(mesh, shapes)

  # The two compiled functions.
  jit_train_step = jax.jit(
    functools.partial(
      train_step,
      model=model,
      tx=tx,
      schedule=schedule,
      transform=augment.train_transform(
        config.pp, cropped=train_source.images is None
      ),
      accum_steps=config.accum_steps,
      label_smoothing=config.label_smoothing,
    ),
    in_shardings=(shardings, sharding.batch_sharding(mesh), everywhere),
    out_shardings=(shardings, everywhere),
    donate_argnums=0,
  )
  jit_eval_step = evaluate.make_eval_step(
    model, augment.eval_transform(config.pp), mesh
  )

  # Restore, or start from pretrained or random weights.
  run.claim(config.to_dict())
  with contextlib.ExitStack() as stack:
    saved = stack.enter_context(
      StateCheckpoints(
        run.checkpoints, config.keep_checkpoints, config.best_metric
      )
    )
    target = abstract_state(shapes, shardings)
    start_step = saved.latest_step()
    if start_step is None:
      start_step, standing = 0, Standing()
      state = _fresh_state(config, model, tx, init_key, shardings)
    else:
      state, standing = saved.restore(start_step, target)
    is_finished = start_step >= config.total_steps or standing.stopped_early

    # Say what is about to happen.
    if is_main_process:
      run.save_labels(train_source.class_names)
      progress.print_summary(
        _summary(config, run, mesh, shapes.params, (train_source, test_source))
      )
      if start_step:
        print(_continuation_line(config, start_step, standing))
    writer = stack.enter_context(
      MetricWriter(run.path, start_step, enabled=is_main_process)
    )
    bar = stack.enter_context(
      progress.Progress(
        config.total_steps, start_step, config.batch, enabled=is_main_process
      )
    )

    # Loop.
    stack.enter_context(jax.transfer_guard('disallow'))
    batches = stack.enter_context(
      contextlib.closing(
        pipeline.train_batches(config, start_step, train_source, **processes)
      )
    )
    window = StepWindow(start_step, config.batch)
    for step in range(start_step + 1, config.total_steps + 1):
      if is_finished:
        break
      batch = window.next_batch(batches)
      state, step_metrics = jit_train_step(
        state, sharding.put_batch(batch, mesh), train_key
      )
      window.add(step_metrics)
      is_last = step == config.total_steps

      if step % config.progress_every == 0 or is_last:
        means = window.summarize()
        writer.write(step, means)
        bar.update(step, means)

      evaluation = None
      if step % config.eval_every == 0 or is_last:
        window.fetch()
        with bar.pause(), window.pause():
          evaluation = evaluate.evaluate(
            jit_eval_step,
            state.params,
            pipeline.eval_batches(config, test_source, **processes),
            test_source.num_classes,
            mesh,
            prefix='test/',
          )
          writer.write(step, evaluation)
          bar.message(
            f'step {step:,}: {progress.format_metrics(evaluation)}'
          )
          if is_main_process:
            _plot_curves(run)
        if config.best_metric:
          value = evaluation[config.best_metric]
          standing = standing.after(
            value, step, config.best_metric, config.patience
          )
      is_finished = is_last or standing.stopped_early

      is_best = evaluation is not None and standing.best_step == step
      every = config.checkpoint_every
      if is_finished or is_best or (every and step % every == 0):
        window.fetch()
        with bar.pause(), window.pause(), jax.transfer_guard('allow'):
          _check_finite(state.params, step)
          saved.save(step, state, standing, evaluation)

    # Export.
    saved.wait()
    params = state.params
    if config.export == 'best' and standing.best_step is not None:
      params = saved.restore(standing.best_step, target)[0].params
    if is_main_process:
      checkpoints.save_params(jax.device_get(params), run.model)
      bar.message(f'Finished: {run.path}')
  return state


def init_params(model: Any, key: jax.Array, image_size: int) -> Any:
  """Returns random parameters for square images of `image_size` pixels."""
  images = jnp.zeros((1, image_size, image_size, 3))
  return model.init(key, images)['params']


def init_state(params: Any, tx: optax.GradientTransformation) -> TrainState:
  """Returns the state before the first update."""
  return TrainState(jnp.int32(0), params, tx.init(params))


def _check_finite(params: Any, step: int) -> None:
  if not jax.device_get(_all_finite(params)):
    raise errors.NonFiniteError(
      f'Parameters are NaN or infinite after step {step}, so that state is not '
      'saved. Lower config.base_lr, or raise config.warmup_steps.'
    )


@jax.jit
def _all_finite(params: Any) -> jax.Array:
  return jnp.stack(
    [jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)]
  ).all()


def _fresh_state(config, model, tx, key, shardings) -> TrainState:
  """Returns the state before step 1, from a file or from the key alone."""
  if config.pretrained_dir:
    name = config.model.model_name
    if config.model_or_filename:
      name = augreg.file_name(config.model_or_filename, config.pretrained_dir)
    params = checkpoints.load_pretrained(
      name,
      model,
      config.pp.crop,
      directory=config.pretrained_dir,
    )
    params = jax.device_put(params, shardings.params)
  else:
    params = jax.jit(
      lambda key: init_params(model, key, config.pp.crop),
      out_shardings=shardings.params,
    )(key)
  return jax.jit(functools.partial(init_state, tx=tx), out_shardings=shardings)(
    params
  )


def _summary(config, run, mesh, params, data_sources) -> dict[str, str]:
  """Returns the first lines that a user reads."""
  train_source, test_source = data_sources
  num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
  epochs = config.total_steps * config.batch / len(train_source)
  kinds = {d.device_kind for d in mesh.devices.flat}
  weights = config.pretrained_dir or 'random'
  processes, micro_batches = '', ''
  if jax.process_count() > 1:
    processes = f' in {jax.process_count()} processes'
  if config.accum_steps > 1:
    micro_batches = f' in {config.accum_steps} micro-batches'
  return {
    'devices': f'{mesh.size} x {", ".join(sorted(kinds))}{processes}',
    'data': f'{config.dataset}: {len(train_source):,} to train on '
    f'({config.pp.train}), {len(test_source):,} to test on '
    f'({config.pp.test}), {train_source.num_classes} classes',
    'model': f'{config.model.model_name}, {num_params:,} parameters, '
    f'{config.pp.crop} x {config.pp.crop} pixels, {config.dtype}, weights: '
    f'{weights}',
    'steps': f'{config.total_steps:,} ({epochs:,.1f} epochs), batch '
    f'{config.batch}{micro_batches}',
    'run': str(run.path),
  }


def _continuation_line(config, start_step, standing) -> str:
  if standing.stopped_early:
    return (
      f'Finished already: stopped early at step {start_step}, best at step '
      f'{standing.best_step}.'
    )
  if start_step >= config.total_steps:
    return f'Finished already: {start_step} steps are done.'
  return f'Continues after step {start_step}.'


def _plot_curves(run: Workdir) -> None:
  from vit_jax import figures  # matplotlib takes a second to import.

  figures.plot_curves(read_metrics(run.metrics), run.curves, run.path.name)
