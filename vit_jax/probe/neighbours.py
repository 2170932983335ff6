"""Nearest neighbours by cosine similarity, in blocks that fit a device."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vit_jax import sharding

# Of the similarities, 128 MiB of which are on the device at a time; a million
# examples of 1,024 features come to it in 32 parts of as much each.
_QUERIES = 1024
_KEYS = 32_768
_MAX_VOTES = 2**24  # Held at a time, examples times classes.


def nearest(
  train: np.ndarray,
  test: np.ndarray,
  num: int,
  mesh: Mesh,
  *,
  num_queries: int = _QUERIES,
  num_keys: int = _KEYS,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns which examples are most similar to each, the nearest first.

  Of those that are equally near, the first come first.

  Args:
    train: float32 [n, num_features], where neighbours are looked for.
    test: float32 [m, num_features], whose neighbours they are.
    num: of neighbours, in [1, n].
    mesh: devices of this process, which share the rows of `test`.
    num_queries: rows of `test` at a time.
    num_keys: rows of `train` at a time.

  Returns:
    (indices int32 [m, num], cosines of the angles float32 [m, num]). What is
    zero throughout has a cosine of 0 with all.
  """
  num_queries = min(num_queries, len(test))
  num_queries = -(-num_queries // mesh.size) * mesh.size
  num_keys = min(num_keys, len(train))
  starts = range(0, len(test), num_queries)
  queries = [
    sharding.put_batch(_unit_rows(test, start, num_queries), mesh)
    for start in starts
  ]
  empty = (
    np.zeros((num_queries, num), np.int32),
    np.full((num_queries, num), -np.inf, np.float32),
  )
  best = [sharding.put_batch(empty, mesh) for _ in starts]
  for start in range(0, len(train), num_keys):
    keys = jax.device_put(
      _unit_rows(train, start, num_keys), sharding.replicated(mesh)
    )
    for i, rows in enumerate(queries):
      best[i] = _merge(*best[i], rows, keys, start, len(train))
  indices, cosines = (
    np.concatenate([np.asarray(block[part]) for block in best])[: len(test)]
    for part in (0, 1)
  )
  return indices, cosines


@functools.partial(jax.jit, donate_argnums=(0, 1))
def _merge(indices, cosines, queries, keys, start, num_train):
  """Returns the nearest of those known and those of a block of keys."""
  # Else some devices multiply with so few digits that neighbours change.
  found = jnp.matmul(queries, keys.T, precision=jax.lax.Precision.HIGHEST)
  columns = start + jnp.arange(len(keys), dtype=jnp.int32)
  found = jnp.where(columns < num_train, found, -jnp.inf)
  columns = jnp.broadcast_to(columns, found.shape)
  # Earlier ones first: of equals, that is who is kept.
  cosines, places = jax.lax.top_k(
    jnp.concatenate([cosines, found], axis=1), cosines.shape[1]
  )
  indices = jnp.concatenate([indices, columns], axis=1)
  return jnp.take_along_axis(indices, places, axis=1), cosines


def _unit_rows(features: np.ndarray, start: int, num: int) -> np.ndarray:
  """Returns `num` rows of length one, zeros for those beyond the last."""
  rows = features[start : start + num]
  norms = np.linalg.norm(rows, axis=1, keepdims=True)
  unit = np.zeros((num, rows.shape[1]), np.float32)
  np.divide(rows, norms, out=unit[: len(rows)], where=norms > 0)
  return unit


def vote(
  labels: np.ndarray,
  num_classes: int,
  cosines: np.ndarray | None = None,
  temperature: float = 0.07,
) -> np.ndarray:
  """Returns the class that most of the neighbours have.

  Of classes with as many votes it is the first.

  Args:
    labels: int [m, num], of the neighbours.
    num_classes: that there are.
    cosines: [m, num] for votes that weigh exp(cosine / temperature), as in
      DINO's `eval_knn.py` (Caron et al. 2021, arXiv 2104.14294) and before in
      Wu et al. 2018 (arXiv 1805.01978, section 3.4); None for equal ones.
    temperature: of these; 0.07 in both.

  Returns:
    int [m].
  """
  weights = np.ones(labels.shape)
  if cosines is not None:
    weights = np.exp(cosines.astype(np.float64) / temperature)
  block = max(1, _MAX_VOTES // num_classes)
  chosen = []
  for start in range(0, len(labels), block):
    rows = labels[start : start + block]
    votes = np.zeros((len(rows), num_classes))
    places = (np.arange(len(rows))[:, None], rows)
    np.add.at(votes, places, weights[start : start + block])
    chosen.append(votes.argmax(axis=1))
  return np.concatenate(chosen)
