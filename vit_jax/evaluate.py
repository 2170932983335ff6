"""Exact metrics over a whole split: every example counts once."""

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
from vit_jax.data import augment, pipeline, sources
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


def metrics_class(num_classes: int) -> type[clu_metrics.Collection]:
  """Returns the metrics that mean something for `num_classes` classes."""
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

  Args:
    params: of the model.
    batch: 'image' uint8 [batch, height, width, 3], 'label' int32 [batch] and
      'mask' bool [batch], False for padding.
    sums: of the batches before.
    model: the module.
    transform: makes model inputs of the images.
  """
  logits = model.apply({'params': params}, transform(batch['image']))
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
    donate_argnums=2,
  )


def evaluate(
  step: Callable[..., clu_metrics.Collection],
  params: Any,
  batches: Iterable[Mapping[str, np.ndarray]],
  num_classes: int,
  mesh: Mesh,
  *,
  prefix: str = '',
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

  Returns:
    'loss', 'accuracy' and, with more than five classes, 'top5', the same on
    every process. Accuracies are shares in [0, 1].
  """
  with jax.transfer_guard('allow'):  # clu makes its zeros one by one.
    empty = metrics_class(num_classes).empty()
    sums = jax.device_put(empty, sharding.replicated(mesh))
  for batch in batches:
    sums = step(params, sharding.put_batch(batch, mesh), sums)
  with jax.transfer_guard('allow'):  # And divides them one by one.
    values = jax.device_get(sums.compute())
  return {f'{prefix}{name}': float(value) for name, value in values.items()}


def evaluate_run(config: Any, workdir: str | os.PathLike) -> dict[str, float]:
  """Prints and returns the metrics of `config.pp.test`; writes nothing.

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
  mesh = sharding.make_mesh()
  config_checks.check_config(config, mesh.size)
  weights = str(run.model) if is_run else checkpoints.locate_weights(config)
  source = sources.load_source(config, config.pp.test)
  model = models.create_model(
    config.model, num_classes=source.num_classes, dtype=config.dtype
  )
  params = checkpoints.load_pretrained(
    weights, model, config.pp.crop, fresh_head=False
  )
  batches = pipeline.eval_batches(
    config, source, jax.process_index(), jax.process_count()
  )
  metrics = evaluate(
    make_eval_step(model, augment.eval_transform(config.pp), mesh),
    jax.device_put(params, sharding.replicated(mesh)),
    batches,
    source.num_classes,
    mesh,
    prefix='test/',
  )
  if jax.process_index() == 0:
    progress.print_summary(
      {
        'weights': weights,
        'data': f'{source.name} ({source.split}), {len(source):,} examples',
        'metrics': progress.format_metrics(metrics),
      }
    )
  return metrics
