"""Training and fine-tuning from top to bottom, continued where it stopped."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vit_jax import (
  checkpoints,
  config_checks,
  distributed,
  errors,
  experiment,
  progress,
  run_lock,
  sharding,
  summary,
)
from vit_jax.checkpoints.state import Standing, StateCheckpoints
from vit_jax.data import eval_sets, pipeline, sources
from vit_jax.data.prefetch import Prefetch
from vit_jax.evaluator import Evaluator, was_made_up_for
from vit_jax.models import blocks
from vit_jax.preemption import Preemption
from vit_jax.run_log import RunLog
from vit_jax.train_step import TrainState, train_step
from vit_jax.workdir import Workdir

__all__ = ['TrainState', 'train_and_evaluate', 'train_step']


def train_and_evaluate(
  config: Any,
  workdir: str | os.PathLike,
  signals: Preemption | None = None,
) -> TrainState:
  """Trains what `config` describes to its end, or continues it.

  Args:
    config: as `configs/common.py` defines it.
    workdir: directory of the run; `Workdir` says what it leaves there.
    signals: asked after each step whether to save and stop; None never is.

  Returns:
    The state after the last step, on the devices; `TrainState` says how its
    parameters are laid out.

  Raises:
    ConfigError: settings that can't work, or a `workdir` with other ones.
    DataError, CheckpointError: unusable data or weights.
    NonFiniteError: the loss or a gradient is NaN or infinite. The checkpoints
      that are there stay.
  """
  run = Workdir(workdir)
  is_main_process = jax.process_index() == 0

  # Mesh.
  config_checks.check_config(config, jax.device_count())
  mesh = sharding.make_mesh(config.mesh)

  # Data.
  train_source = sources.load_source(config, config.pp.train)
  pipeline.check_trainable(train_source)
  eval_sources = eval_sets.load(config, train_source)
  config_checks.check_classes(config, train_source.num_classes)

  # Model, optimiser and the two compiled functions.
  built = experiment.build(config, train_source.num_classes, mesh)
  jit_train_step = built.train_step(cropped=train_source.images is None)
  jit_eval_step = built.eval_step()

  # Restore, or start from pretrained or random weights.
  settings = _settings(config, train_source, eval_sources)
  with _checkpoints_of(run, config, settings) as saved:
    start, weights = _start(built, run, saved, settings)
    if start.standing.evaluation_due and was_made_up_for(run, start.step):
      if is_main_process:
        print(summary.finished_line(start.step))
      return start.state
    if not start.is_over(config):
      saved.check_room(built.target)

    # Say what is about to happen.
    if is_main_process:
      run.save_labels(train_source.class_names)
      progress.print_summary(
        summary.run_lines(built, run, weights, train_source, eval_sources)
      )
      if start.step:
        print(summary.continuation_line(config, start.step, start.standing))

    # Train and export.
    with (
      RunLog(config, run, start.step, writes=not start.is_over(config)) as log,
      jax.transfer_guard('disallow'),
      _batches_of(built, train_source, start.step) as batches,
    ):
      evaluator = Evaluator(
        config, run, saved, jit_eval_step, eval_sources, mesh, log
      )
      signals = signals or Preemption()
      reached = _train(
        built, jit_train_step, batches, start, evaluator, signals
      )
      _export(built, reached, evaluator)
  return reached.state


class _Point(NamedTuple):
  """Where a run is: how many steps are done, and what they led to."""

  step: int
  state: TrainState
  standing: Standing

  def is_over(self, config: Any) -> bool:
    return not self.standing.evaluation_due and (
      self.step >= config.total_steps or self.standing.stopped_early
    )


def _train(
  built: experiment.Experiment,
  jit_train_step: Callable[..., Any],
  batches: Prefetch,
  start: _Point,
  evaluator: Evaluator,
  signals: Preemption,
) -> _Point:
  """Makes the steps that are left, with their evaluations and checkpoints."""
  config, saved, log = built.config, evaluator.saved, evaluator.log
  step, state, standing = start
  if standing.evaluation_due:
    _, standing = evaluator.evaluate(step, state.params, standing)
    evaluator.plot_curves()
  point = _Point(step, state, standing)
  if not point.is_over(config):
    log.message('Compiling the first step ...')
  while not point.is_over(config):
    step = point.step + 1
    batch = log.next_batch(step, state, batches)
    state, step_metrics = jit_train_step(state, batch, built.train_key)
    log.add(step, step_metrics)
    is_last = step == config.total_steps

    # Before an evaluation, which may outlast what a signal leaves of time.
    is_stopped = signals.reached(step)
    evaluation = None
    if step % config.eval_every == 0 or is_last:
      if is_stopped:
        standing = dataclasses.replace(standing, evaluation_due=True)
      else:
        evaluation, standing = evaluator.evaluate(
          step, state.params, standing, signals.interrupted
        )
        is_stopped = standing.evaluation_due

    point = _Point(step, state, standing)
    is_best = evaluation is not None and standing.best_step == step
    every = config.checkpoint_every
    is_due = every and step % every == 0
    if point.is_over(config) or is_stopped or is_best or is_due:
      log.fetch()
      with log.pause(), jax.transfer_guard('allow'):
        _check_finite(state.params, step)
        saved.save(step, state, standing, evaluation)
    if is_stopped:
      saved.wait()
      raise signals.stopped(step)
    if evaluation is not None and (
      point.is_over(config) or not signals.has_come
    ):
      evaluator.plot_curves()
  return point


def _export(
  built: experiment.Experiment, reached: _Point, evaluator: Evaluator
) -> None:
  """Writes the parameters, once all checkpoints are committed."""
  saved, run, log = evaluator.saved, evaluator.run, evaluator.log
  saved.wait()
  params, best_step = reached.state.params, reached.standing.best_step
  if built.config.export == 'best' and best_step is not None:
    params = saved.restore(best_step, built.target)[0].params
  is_main_process = jax.process_index() == 0
  params = sharding.to_host(params, keep=is_main_process)
  if is_main_process:
    log.show_data_wait()
    checkpoints.save_params(blocks.unstack_layers(params), run.model)
    log.message(f'Finished: {run.path}')


@contextlib.contextmanager
def _batches_of(
  built: experiment.Experiment, source: sources.Source, start_step: int
) -> Iterator[Prefetch]:
  """Gives the batches from a step on, on the devices."""
  mesh = built.mesh
  part = sharding.batch_part(mesh)
  with (
    contextlib.closing(
      pipeline.train_batches(built.config, start_step, source, *part)
    ) as on_host,
    contextlib.closing(
      Prefetch(on_host, lambda batch: sharding.put_batch(batch, mesh))
    ) as batches,
  ):
    yield batches


@contextlib.contextmanager
def _checkpoints_of(
  run: Workdir, config: Any, settings: Mapping[str, Any]
) -> Iterator[StateCheckpoints]:
  """Gives the checkpoints of a run, whose directory is its own meanwhile."""
  with contextlib.ExitStack() as stack:
    is_held = None
    is_main_process = jax.process_index() == 0
    if is_main_process:
      is_held = stack.enter_context(run_lock.hold(run.path))
    run.claim(settings, is_writer=is_main_process)
    yield stack.enter_context(
      StateCheckpoints(
        run.checkpoints,
        config.keep_checkpoints,
        config.best_metric,
        settings=settings,
        is_held=is_held,
      )
    )


def _start(
  built: experiment.Experiment,
  run: Workdir,
  saved: StateCheckpoints,
  settings: Mapping[str, Any],
) -> tuple[_Point, str | pathlib.Path]:
  """Restores the newest checkpoint, else starts from weights, else at random.

  Returns:
    Where the run starts, and the path that its state was read from ('' for
    random weights).
  """
  restored = saved.restore_newest(built.target)
  if restored is None:
    config = built.config
    weights = config.pretrained_dir and checkpoints.locate_weights(config)
    return _Point(0, built.fresh_state(weights), Standing()), weights
  start = _Point(*restored)
  run.check_saved(start.step, saved.settings(start.step), settings)
  return start, run.checkpoints / str(start.step)


def _settings(
  config: Any, train_source: sources.Source, eval_sources: eval_sets.EvalSets
) -> dict[str, Any]:
  """Returns what decides on the run, the same in every process."""
  settings = config.to_dict()
  # The splits in full: of a folder that is not split, 'test' is a share.
  test_split = eval_sources['test'].split
  settings['pp'] |= {'train': train_source.split, 'test': test_split}
  settings['data_fingerprint'] = {'train': train_source.fingerprint}
  tested = {name: each.fingerprint for name, each in eval_sources.items()}
  distributed.check_agreement(settings | {'data_tested': tested})
  return settings


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
