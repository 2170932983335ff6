"""Training and fine-tuning from top to bottom, continued where it stopped."""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from vit_jax import (
  checkpoints,
  config_checks,
  distributed,
  errors,
  evaluate,
  experiment,
  profiling,
  progress,
  run_lock,
  sharding,
  summary,
)
from vit_jax.checkpoints.state import Standing, StateCheckpoints
from vit_jax.data import eval_sets, pipeline, sources
from vit_jax.data.prefetch import Prefetch
from vit_jax.metrics import MetricWriter, read_metrics
from vit_jax.models import blocks
from vit_jax.preemption import Preemption
from vit_jax.step_window import StepWindow
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
  signals = signals or Preemption()
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
  with contextlib.ExitStack() as stack:
    saved = stack.enter_context(_checkpoints_of(run, config, settings))
    start_step, state, standing, weights = _first_state(
      built, run, saved, settings
    )
    if standing.evaluation_due and _was_made_up_for(run, start_step):
      return state
    is_finished = not standing.evaluation_due and (
      start_step >= config.total_steps or standing.stopped_early
    )
    if not is_finished:
      saved.check_room(built.target)

    # Say what is about to happen.
    if is_main_process:
      run.save_labels(train_source.class_names)
      progress.print_summary(
        summary.run_lines(built, run, weights, train_source, eval_sources)
      )
      if start_step:
        print(summary.continuation_line(config, start_step, standing))
    writer = stack.enter_context(
      MetricWriter(
        run.path,
        start_step,
        enabled=is_main_process and not is_finished,
      )
    )
    bar = stack.enter_context(
      progress.Progress(
        config.total_steps, start_step, config.batch, enabled=is_main_process
      )
    )
    profile = stack.enter_context(
      profiling.Profile(config.profile, run.profile, start_step, bar.message)
    )

    # Loop.
    stack.enter_context(jax.transfer_guard('disallow'))
    host_batches = stack.enter_context(
      contextlib.closing(
        pipeline.train_batches(
          config, start_step, train_source, *sharding.batch_part(mesh)
        )
      )
    )
    batches = stack.enter_context(
      contextlib.closing(
        Prefetch(host_batches, lambda batch: sharding.put_batch(batch, mesh))
      )
    )
    max_skipped = config.max_skipped if config.on_nonfinite == 'skip' else None
    window = StepWindow(start_step, config.batch, max_skipped, bar.message)
    evaluator = _Evaluator(
      config, run, saved, jit_eval_step, eval_sources, mesh, window, writer, bar
    )
    if standing.evaluation_due:
      _, standing = evaluator.evaluate(start_step, state.params, standing)
      evaluator.plot_curves()
      is_finished = start_step == config.total_steps or standing.stopped_early
    if not is_finished:
      bar.message('Compiling the first step ...')
    for step in range(start_step + 1, config.total_steps + 1):
      if is_finished:
        break
      profile.before(step, state)
      batch = window.next_batch(batches)
      state, step_metrics = jit_train_step(state, batch, built.train_key)
      window.add(step_metrics)
      is_last = step == config.total_steps

      if step % config.progress_every == 0 or is_last:
        means = window.summarize()
        writer.write(step, means)
        bar.update(step, means)

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
      is_finished = standing.stopped_early or (is_last and not is_stopped)

      is_best = evaluation is not None and standing.best_step == step
      every = config.checkpoint_every
      is_due = every and step % every == 0
      if is_finished or is_stopped or is_best or is_due:
        window.fetch()
        with bar.pause(), window.pause(), jax.transfer_guard('allow'):
          _check_finite(state.params, step)
          saved.save(step, state, standing, evaluation)
      if is_stopped:
        saved.wait()
        raise signals.stopped(step)
      if evaluation is not None and (is_finished or not signals.has_come):
        evaluator.plot_curves()

    # Export.
    saved.wait()
    params = state.params
    if config.export == 'best' and standing.best_step is not None:
      params = saved.restore(standing.best_step, built.target)[0].params
    params = sharding.to_host(params, keep=is_main_process)
    if is_main_process:
      waited = window.data_wait()
      if waited is not None:
        bar.message(f'Waited for data {waited:.1%} of the time')
      checkpoints.save_params(blocks.unstack_layers(params), run.model)
      bar.message(f'Finished: {run.path}')
  return state


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


def _first_state(
  built: experiment.Experiment,
  run: Workdir,
  saved: StateCheckpoints,
  settings: Mapping[str, Any],
) -> tuple[int, TrainState, Standing, str | pathlib.Path]:
  """Restores the newest checkpoint, else starts from weights, else at random.

  Returns:
    The step that is done, the state, its standing, and the path it was read
    from ('' for random weights).
  """
  restored = saved.restore_newest(built.target)
  if restored is None:
    config = built.config
    weights = config.pretrained_dir and checkpoints.locate_weights(config)
    return 0, built.fresh_state(weights), Standing(), weights
  step, state, standing = restored
  run.check_saved(step, saved.settings(step), settings)
  return step, state, standing, run.checkpoints / str(step)


@dataclasses.dataclass(frozen=True)
class _Evaluator:
  """Evaluates a run and says what comes out, there and in its log."""

  config: Any
  run: Workdir
  saved: StateCheckpoints
  jit_eval_step: Callable[..., Any]
  eval_sources: eval_sets.EvalSets
  mesh: Any
  window: StepWindow
  writer: MetricWriter
  bar: progress.Progress

  def evaluate(
    self,
    step: int,
    params: Any,
    standing: Standing,
    is_abandoned: Callable[[], bool] = lambda: False,
  ) -> tuple[Mapping[str, float] | None, Standing]:
    """Returns the metrics and how the run stands then.

    Args:
      step: number of updates that the parameters have seen.
      params: of the model.
      standing: before.
      is_abandoned: as `evaluate.evaluate` asks it; if so, the metrics are None
        and the evaluation stays due.
    """
    self.window.fetch()
    with self.bar.pause(), self.window.pause():
      try:
        metrics = evaluate.evaluate_sets(
          self.jit_eval_step,
          params,
          self.config,
          self.eval_sources,
          self.mesh,
          is_abandoned,
        )
      except evaluate.AbandonedError:
        return None, dataclasses.replace(standing, evaluation_due=True)
      # A process that made it up for another may have been killed since.
      if not (standing.evaluation_due and _is_logged(self.run, step)):
        self.writer.write(step, metrics)
      self.bar.message(f'step {step:,}: {progress.format_metrics(metrics)}')
    best_metric, patience = self.config.best_metric, self.config.patience
    if best_metric:
      standing = standing.after(
        metrics[best_metric], step, best_metric, patience
      )
    return metrics, dataclasses.replace(standing, evaluation_due=False)

  def plot_curves(self) -> None:
    """Draws the log, on the process that writes it."""
    if jax.process_index() == 0:
      from vit_jax import figures  # matplotlib takes a second to import.

      run = self.run
      self.saved.check_present()  # Else another run's log would be drawn.
      with self.bar.pause(), self.window.pause(), run.writing(run.curves):
        metrics = read_metrics(run.metrics)
        figures.plot_curves(metrics, run.curves, run.path.name)


def _was_made_up_for(run: Workdir, step: int) -> bool:
  """Whether the evaluation that was put off has been made, and ended the run.

  The checkpoint can't tell, as it was saved before. Every process is told, and
  the first one says so.
  """
  is_made = run.model.exists() and _is_logged(run, step)
  if jax.process_count() > 1:
    is_made = multihost_utils.broadcast_one_to_all(np.bool_(is_made))
  if is_made and jax.process_index() == 0:
    print(summary.finished_line(step))
  return bool(is_made)


def _is_logged(run: Workdir, step: int) -> bool:
  """Whether the log has an evaluation after that step."""
  return jax.process_index() == 0 and any(
    step in steps
    for name, (steps, _) in read_metrics(run.metrics).items()
    if not name.startswith('train/')
  )


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
