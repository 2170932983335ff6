"""Exact metrics over a whole split: every example counts once."""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics as clu_metrics
from jax.sharding import Mesh

from vit_jax import (
  checkpoints,
  config_checks,
  errors,
  models,
  progress,
  sharding,
)
from vit_jax.data import augment, eval_sets, pipeline, sources
from vit_jax.workdir import Workdir


def _is_in_top5(logits: jax.Array, labels: jax.Array, **_) -> jax.Array:
  _, top5 = jax.lax.top_k(logits, 5)
  return (top5 == labels[:, None]).any(axis=-1).astype(jnp.float32)


_METRICS = {
  'loss': clu_metrics.Average.from_output('loss'),
  'accuracy': clu_metrics.Accuracy,
}
EvalMetrics = clu_metrics.Collection.create(**_METRICS)
EvalMetricsTop5 = clu_metrics.Collection.create(
  **_METRICS, top5=clu_metrics.Average.from_fun(_is_in_top5)
)


# Of images with several labels: a loss and a top5 would be about one of them.
EvalMetricsSeveral = clu_metrics.Collection.create(
  accuracy=clu_metrics.Average.from_output('is_right')
)


def metrics_class(
  num_classes: int, has_several_labels: bool = False
) -> type[clu_metrics.Collection]:
  """Returns the metrics that mean something for `num_classes` classes."""
  if has_several_labels:
    return EvalMetricsSeveral
  return EvalMetricsTop5 if num_classes > 5 else EvalMetrics


def eval_step(
  params: Any,
  batch: Mapping[str, jax.Array],
  sums: clu_metrics.Collection,
  *,
  model: Any,
  transform: Callable[[jax.Array], jax.Array],
) -> clu_metrics.Collection:
  """Adds a batch to the sums.

  Where images have several labels, a prediction is right if it is one of them;
  images without any don't count.

  Args:
    params: of the model.
    batch: 'image' uint8 [batch, height, width, 3], 'label' int32 [batch] and
      'mask' bool [batch], False for padding. Several labels are int32 [batch,
      max_labels], those that are not there -1.
    sums: of the batches before.
    model: the module.
    transform: makes model inputs of the images.
  """
  logits = model.apply({'params': params}, transform(batch['image']))
  labels = batch['label']
  if labels.ndim == 2:
    is_right = (logits.argmax(axis=-1)[:, None] == labels).any(axis=-1)
    mask = batch['mask'] & (labels >= 0).any(axis=-1)
    return sums.merge(
      type(sums).single_from_model_output(
        is_right=is_right.astype(jnp.float32), mask=mask
      )
    )
  losses = optax.softmax_cross_entropy_with_integer_labels(
    logits, batch['label']
  )
  return sums.merge(
    type(sums).single_from_model_output(
      logits=logits, labels=batch['label'], loss=losses, mask=batch['mask']
    )
  )


def make_eval_step(
  model: Any, transform: Callable[[jax.Array], jax.Array], mesh: Mesh
) -> Callable[..., clu_metrics.Collection]:
  """Returns `eval_step` jitted over the mesh, its sums replicated."""

  def step(params, batch, sums):
    return eval_step(params, batch, sums, model=model, transform=transform)

  everywhere = sharding.replicated(mesh)
  return jax.jit(
    step,
    in_shardings=(None, sharding.batch_sharding(mesh), everywhere),
    out_shardings=everywhere,
  )


class AbandonedError(Exception):
  """An evaluation was given up between two batches."""


def evaluate(
  step: Callable[..., clu_metrics.Collection],
  params: Any,
  batches: Iterable[Mapping[str, np.ndarray]],
  num_classes: int,
  mesh: Mesh,
  *,
  prefix: str = '',
  has_several_labels: bool = False,
  is_abandoned: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
  """Returns the exact metrics of all examples of `batches`.

  Args:
    step: from `make_eval_step`.
    params: of the model, on the mesh.
    batches: this process's rows, with 'mask' False for padding; every process
      has the same number of batches.
    num_classes: of the data set.
    mesh: the devices.
    prefix: put before the names of the metrics, such as 'test/'.
    has_several_labels: whether a label is int32 [max_labels], see `eval_step`.
    is_abandoned: asked after each batch, by all processes, whether to give up.

  Returns:
    'loss', 'accuracy' and, with more than five classes, 'top5', the same on
    every process; with several labels 'accuracy' alone, of the images that have
    any, NaN if none has. Accuracies are shares in [0, 1].

  Raises:
    AbandonedError: `is_abandoned` said so.
  """
  with jax.transfer_guard('allow'):  # clu makes its zeros one by one.
    empty = metrics_class(num_classes, has_several_labels).empty()
    sums = jax.device_put(empty, sharding.replicated(mesh))
  for batch in batches:
    before = sums
    sums = step(params, sharding.put_batch(batch, mesh), sums)
    # The host prepares one batch ahead, no more: it would never see a signal.
    jax.block_until_ready(before)
    if is_abandoned():
      raise AbandonedError
  with jax.transfer_guard('allow'):  # And divides them one by one.
    values = jax.device_get(sums.compute())
  return {f'{prefix}{name}': float(value) for name, value in values.items()}


def evaluate_sets(
  step: Callable[..., clu_metrics.Collection],
  params: Any,
  config: Any,
  eval_sources: Mapping[str, sources.Source],
  mesh: Mesh,
  is_abandoned: Callable[[], bool] = lambda: False,
) -> dict[str, float]:
  """Returns the metrics of each set, as 'test/accuracy' for the set 'test'.

  Args:
    step: from `make_eval_step`.
    params: of the model, on the mesh.
    config: as `pipeline.eval_batches` takes it.
    eval_sources: by name, such as `eval_sets.load` gives them.
    mesh: the devices.
    is_abandoned: as `evaluate` asks it.

  Raises:
    AbandonedError: as `evaluate`.
  """
  metrics = {}
  for name, source in eval_sources.items():
    batches = pipeline.eval_batches(config, source, *sharding.batch_part(mesh))
    with contextlib.closing(batches):  # Or its threads would stay.
      metrics |= evaluate(
        step,
        params,
        batches,
        source.num_classes,
        mesh,
        prefix=f'{name}/',
        has_several_labels=source.max_labels is not None,
        is_abandoned=is_abandoned,
      )
  return metrics


def set_lines(eval_sources: eval_sets.EvalSets) -> dict[str, str]:
  """Returns lines for the summary of a run, none if there is nothing to say.

  Args:
    eval_sources: from `eval_sets.load`.

  Returns:
    'evaluated': the sets besides 'test'; 'overlap': a warning of those that are
    trained on as well, with the remedy.
  """
  others = [
    f'{name}: {len(source):,} of {source.name} ({source.split})'
    for name, source in eval_sources.items()
    if name != 'test'
  ]
  lines = {'evaluated': f'besides, {"; ".join(others)}' if others else ''}
  lines['overlap'] = eval_sources.overlap
  return {label: text for label, text in lines.items() if text}


def evaluate_run(config: Any, workdir: str | os.PathLike) -> dict[str, float]:
  """Prints and returns the metrics of a run; writes nothing.

  They are those of `config.pp.test` and `config.eval_sets`.

  Args:
    config: as `configs/common.py` defines it.
    workdir: a finished run, whose `model.npz` is evaluated. Where there is
      none, the weights in `config.pretrained_dir` are, as they are.

  Raises:
    ConfigError: there are neither.
    DataError, CheckpointError: unusable data or weights.
  """
  run = Workdir(workdir)
  is_run = run.model.is_file()
  if not is_run and not config.pretrained_dir:
    raise errors.ConfigError(
      f'No weights to evaluate: {run.model} is not there (a run writes it when '
      'it finishes), and config.pretrained_dir is not set.'
    )
  config_checks.check_config(config, jax.device_count())
  mesh = sharding.make_mesh(config.mesh)
  weights = str(run.model) if is_run else checkpoints.locate_weights(config)
  eval_sources = eval_sets.load(config)
  source = eval_sources['test']
  model = models.create_model(
    config.model, num_classes=source.num_classes, dtype=config.dtype
  )
  crop = config.pp.crop
  images = jax.ShapeDtypeStruct((1, crop, crop, 3), 'float32')
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  params = checkpoints.load_pretrained(
    weights,
    model,
    crop,
    fresh_head=False,
    shardings=sharding.tree_shardings(mesh, shapes),
  )
  metrics = evaluate_sets(
    make_eval_step(model, augment.eval_transform(config.pp), mesh),
    params,
    config,
    eval_sources,
    mesh,
  )
  if jax.process_index() == 0:
    progress.print_summary(
      {
        'weights': weights,
        'data': f'{source.name} ({source.split}), {len(source):,} examples',
        **set_lines(eval_sources),
        'metrics': progress.format_metrics(metrics),
      }
    )
  return metrics
