"""What a model says of every example of a split, in one pass over the data."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vit_jax import sharding
from vit_jax.data import augment, pipeline, sources

# (params, float32 images [batch, height, width, 3] in [-1, 1]) -> by name,
# [batch, ...] each.
Apply = Callable[[Any, jax.Array], Mapping[str, jax.Array]]


@dataclasses.dataclass(frozen=True)
class Batch:
  """What a batch gave, without what it was filled up with.

  Attributes:
    indices: int64 [n], of the examples in their source.
    labels: int32 [n], or [n, max_labels] where images have several, -1 for
      those that are not there.
    values: [n, ...] by name.
  """

  indices: np.ndarray
  labels: np.ndarray
  values: dict[str, np.ndarray]


def of_split(
  apply: Apply, params: Any, config: Any, source: sources.Source, mesh: Mesh
) -> Iterator[Batch]:
  """Yields what `apply` gives of each example, in the order of the source.

  Images become `config.pp.crop` square as for every evaluation. Examples
  that can't be read and are skipped (`config.on_bad_image`) are left out.

  Args:
    apply: is compiled.
    params: of the model.
    config: as `pipeline.eval_batches` takes it.
    source: of the examples.
    mesh: devices of this process, which sees all of the split.

  Raises:
    DataError: an image can't be used.
  """
  transform = augment.eval_transform(config.pp)

  @jax.jit
  def step(params: Any, pixels: jax.Array) -> Mapping[str, jax.Array]:
    return apply(params, transform(pixels))

  batches = pipeline.eval_batches(config, source)
  with contextlib.closing(batches):  # Or its threads would stay.
    for number, batch in enumerate(batches):
      mask = batch['mask']
      pixels = sharding.put_batch({'image': batch['image']}, mesh)['image']
      values = jax.device_get(step(params, pixels))
      yield Batch(
        number * config.batch_eval + np.flatnonzero(mask),
        batch['label'][mask],
        {name: value[mask] for name, value in values.items()},
      )


def whole_split(
  apply: Apply, params: Any, config: Any, source: sources.Source, mesh: Mesh
) -> Batch:
  """Returns what `of_split` yields as one, for splits whose outputs fit."""
  parts = [*of_split(apply, params, config, source, mesh)]
  return Batch(
    np.concatenate([part.indices for part in parts]),
    np.concatenate([part.labels for part in parts]),
    {
      name: np.concatenate([part.values[name] for part in parts])
      for name in parts[0].values
    },
  )
