"""Fingerprints of arrays, computed where they are: equal bits, equal numbers.

Orbax gives back flipped bits without a word, so what is restored is compared
with what was saved by these.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

# Two sums of 32 bits each, as devices have no wider integers by default. Odd,
# so that a position is lost in none.
_POSITION_FACTORS = (0x9E3779B1, 0x85EBCA77)


def fingerprints(tree: Any) -> dict[str, str]:
  """Returns what tells the arrays of a tree from others.

  A change within one element is always noticed; of other changes, also of
  elements that swap places, about one in 2**64 is not. Neither the sharding nor
  the number or kind of devices has a say, as the sums are of integers.

  Args:
    tree: of arrays with elements of 8, 16, 32 or 64 bits; of several processes,
      all have to call this.

  Returns:
    By the path of the leaf, such as 'params/head/bias', its dtype, shape and
    two sums: 'float32[10] 0123456789abcdef'.
  """
  # All are on their way before the first is waited for.
  sums = {name: _sums_of(leaf) for name, leaf in named_leaves(tree)}
  values = jax.device_get(sums)
  return {
    name: f'{spec(leaf)} {"".join(f"{value:08x}" for value in values[name])}'
    for name, leaf in named_leaves(tree)
  }


def named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
  """Gives ('params/head/bias', leaf) for each array or shape of a tree.

  Only such names can be compared: Orbax gives fields as keys.
  """
  for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
    if hasattr(leaf, 'shape'):
      yield jax.tree_util.keystr(path, simple=True, separator='/'), leaf


def spec(leaf: Any) -> str:
  """Returns 'float32[2, 3]' of an array or a shape."""
  return f'{np.dtype(leaf.dtype)}{[*leaf.shape]}'


def shape_of(fingerprint: str) -> jax.ShapeDtypeStruct:
  """Returns dtype and shape of an array from its fingerprint."""
  dtype, _, sizes = fingerprint.partition(']')[0].partition('[')
  shape = tuple(int(size) for size in sizes.split(',') if size)
  return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))


def _sums_of(leaf: Any) -> jax.Array:
  sharding = getattr(leaf, 'sharding', None)
  mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
  return _compiled(mesh)(leaf)


@functools.cache
def _compiled(mesh: Any) -> Any:
  """Returns `_position_sums` jitted, its result the same on all devices.

  Of a tree's leaves many have the same shape: compiling it for each shape takes
  a fraction of the time that it takes for the tree as a whole.
  """
  everywhere = mesh and NamedSharding(mesh, PartitionSpec())
  return jax.jit(_position_sums, out_shardings=everywhere)


def _position_sums(array: jax.Array) -> jax.Array:
  """Returns uint32 [2] of the bits and where they are."""
  bits = _bits(array)
  position = jnp.uint32(0)
  for dim, size in enumerate(bits.shape):
    index = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, dim)
    position = position * jnp.uint32(size % 2**32) + index
  sums = [
    _scramble(bits + position * jnp.uint32(factor)).sum(dtype=jnp.uint32)
    for factor in _POSITION_FACTORS
  ]
  return jnp.stack(sums)


def _bits(array: jax.Array) -> jax.Array:
  """Returns the bits of the elements as uint32, of 64 each as two."""
  if array.dtype == jnp.bool:
    return array.astype(jnp.uint32)
  width = min(8 * array.dtype.itemsize, 32)
  unsigned = jnp.dtype(f'uint{width}')
  return jax.lax.bitcast_convert_type(array, unsigned).astype(jnp.uint32)


def _scramble(x: jax.Array) -> jax.Array:
  """Returns other bits for other bits, each depending on all.

  It is the finaliser of MurmurHash3 (Appleby 2011), which is one-to-one.
  """
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)
