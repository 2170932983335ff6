"""Training and fine-tuning from top to bottom, continued where it stopped."""

import contextlib
import os
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax import (
  checkpoints,
  config_checks,
  errors,
  evaluate,
  experiment,
  progress,
  sharding,
  summary,
)
from vit_jax.checkpoints.state import Standing, StateCheckpoints
from vit_jax.data import eval_sets, pipeline, sources
from vit_jax.data.prefetch import Prefetch
from vit_jax.metrics import MetricWriter, read_metrics
from vit_jax.step_window import StepWindow
from vit_jax.train_step import TrainState, train_step
from vit_jax.workdir import Workdir

__all__ = ['TrainState', 'train_and_evaluate', 'train_step']


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
  config_checks.check_config(config, mesh.size)

  # Data.
  train_source = sources.load_source(config, config.pp.train)
  pipeline.check_trainable(train_source)
  eval_sources = eval_sets.load(config, train_source)
  config_checks.check_classes(config, train_source.num_classes)
  processes = {
    'process_index': jax.process_index(),
    'process_count': jax.process_count(),
  }

  # Model, optimiser and the two compiled functions.
  built = experiment.build(config, train_source.num_classes, mesh)
  jit_train_step = built.train_step(cropped=train_source.images is None)
  jit_eval_step = built.eval_step()

  # Restore, or start from pretrained or random weights.
  # With the splits in full: of a folder that is not split, 'test' is a share.
  settings = config.to_dict()
  test_split = eval_sources['test'].split
  settings['pp'] |= {'train': train_source.split, 'test': test_split}
  settings['data_fingerprint'] = {'train': train_source.fingerprint}
  run.claim(settings, is_writer=is_main_process)
  with contextlib.ExitStack() as stack:
    saved = stack.enter_context(
      StateCheckpoints(
        run.checkpoints, config.keep_checkpoints, config.best_metric
      )
    )
    start_step = saved.latest_step()
    if start_step is None:
      start_step, standing = 0, Standing()
      weights = config.pretrained_dir and checkpoints.locate_weights(config)
      state = built.fresh_state(weights)
    else:
      weights = run.checkpoints / str(start_step)
      state, standing = saved.restore(start_step, built.target)
    is_finished = start_step >= config.total_steps or standing.stopped_early

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

    # Loop.
    stack.enter_context(jax.transfer_guard('disallow'))
    host_batches = stack.enter_context(
      contextlib.closing(
        pipeline.train_batches(config, start_step, train_source, **processes)
      )
    )
    batches = stack.enter_context(
      contextlib.closing(
        Prefetch(host_batches, lambda batch: sharding.put_batch(batch, mesh))
      )
    )
    window = StepWindow(start_step, config.batch)
    if not is_finished:
      bar.message('Compiling the first step ...')
    for step in range(start_step + 1, config.total_steps + 1):
      if is_finished:
        break
      batch = window.next_batch(batches)
      state, step_metrics = jit_train_step(state, batch, built.train_key)
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
          evaluation = evaluate.evaluate_sets(
            jit_eval_step, state.params, config, eval_sources, mesh
          )
          writer.write(step, evaluation)
          bar.message(f'step {step:,}: {progress.format_metrics(evaluation)}')
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
      params = saved.restore(standing.best_step, built.target)[0].params
    if is_main_process:
      waited = window.data_wait()
      if waited is not None:
        bar.message(f'Waited for data {waited:.1%} of the time')
      checkpoints.save_params(jax.device_get(params), run.model)
      bar.message(f'Finished: {run.path}')
  return state


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


def _plot_curves(run: Workdir) -> None:
  from vit_jax import figures  # matplotlib takes a second to import.

  figures.plot_curves(read_metrics(run.metrics), run.curves, run.path.name)
