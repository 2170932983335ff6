"""The first lines of a run: what it is about to do, on what, with what."""

import pathlib
from typing import Any

import jax

from vit_jax import evaluate
from vit_jax.checkpoints.state import Standing
from vit_jax.data import balance, eval_sets, sources
from vit_jax.experiment import Experiment
from vit_jax.workdir import Workdir


def run_lines(
  built: Experiment,
  run: Workdir,
  weights: str | pathlib.Path,
  train_source: sources.Source,
  eval_sources: eval_sets.EvalSets,
) -> dict[str, str]:
  """Returns what a run says of itself at its start, by label.

  Args:
    built: model, optimiser and mesh.
    run: its directory.
    weights: where they come from, '' for nowhere.
    train_source: what it trains on.
    eval_sources: what it is evaluated on, by name; one is 'test'.
  """
  config, mesh = built.config, built.mesh
  params = built.target.params
  test_source = eval_sources['test']
  num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
  examples = config.total_steps * config.batch / config.pp.repeats
  epochs = examples / len(train_source)
  kinds = {d.device_kind for d in mesh.devices.flat}
  processes, micro_batches, warmup = '', '', ''
  if config.warmup_steps >= config.total_steps:
    # Allowed, as a run may be shortened to try it out, but rarely meant.
    warmup = (
      f'; all of it warm-up (config.warmup_steps={config.warmup_steps}), so '
      f'the learning rate never reaches {config.base_lr:g}'
    )
  if jax.process_count() > 1:
    processes = f' in {jax.process_count()} processes'
  if config.accum_steps > 1:
    micro_batches = f' in {config.accum_steps} micro-batches'
  return {
    'devices': f'{mesh.size} x {", ".join(sorted(kinds))}{processes}',
    'data': f'{config.dataset}: {len(train_source):,} to train on '
    f'({train_source.split}), {len(test_source):,} to test on '
    f'({test_source.split}), {train_source.num_classes} classes',
    **balance.class_lines(train_source, test_source),
    **evaluate.set_lines(eval_sources),
    'model': f'{config.model.model_name}, {num_params:,} parameters, '
    f'{config.pp.crop} x {config.pp.crop} pixels, {config.dtype}, weights: '
    f'{weights or "random"}',
    'steps': f'{config.total_steps:,} ({epochs:,.1f} epochs), batch '
    f'{config.batch}{micro_batches}{warmup}',
    'run': str(run.path),
  }


def finished_line(step: int) -> str:
  """Returns what a start of a run says that ended after that step."""
  return f'Finished already: {step} steps are done.'


def continuation_line(config: Any, start_step: int, standing: Standing) -> str:
  """Returns where a run goes on, or why it doesn't."""
  if standing.evaluation_due:
    return f'Continues after step {start_step}, whose evaluation is still due.'
  if standing.stopped_early:
    return (
      f'Finished already: stopped early at step {start_step}, best at step '
      f'{standing.best_step}.'
    )
  if start_step >= config.total_steps:
    return finished_line(start_step)
  return f'Continues after step {start_step}.'
