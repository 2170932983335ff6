"""Small arrays are saved end to end, as few long ones.

Orbax takes 2 ms of a CPU for each array, whatever its size, and a ViT-Ti/16
with its moments has 600 of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from vit_jax.checkpoints.fingerprint import named_leaves

# By the name of a long array the names of those in it, in their order.
Contents = Mapping[str, Sequence[str]]

_SMALL = 2**20  # Bytes; longer arrays take Orbax longer than their number does.


def pack(state: Any) -> tuple[dict[str, Any], dict[str, list[str]]]:
  """Returns what to save in place of a state, and where its arrays are.

  Arrays below 1 MiB of which every process has all go into one of their dtype
  and their field of the state: 'packed/params float32'. Others stay as they
  are. The long arrays are on the host.

  Args:
    state: tree of arrays; of several processes, all have to call this.
  """
  small: dict[str, dict[str, Any]] = {}
  rest = {}
  for name, leaf in named_leaves(state):
    if leaf.nbytes < _SMALL and _is_whole_here(leaf):
      field = name.partition('/')[0]
      small.setdefault(f'packed/{field} {leaf.dtype}', {})[name] = leaf
    else:
      rest[name] = leaf
  contents = {key: [*arrays] for key, arrays in small.items()}
  host = jax.device_get(small)  # Its keys are sorted, as of every tree of JAX.
  long = {
    key: np.concatenate([host[key][name].reshape(-1) for name in names])
    for key, names in contents.items()
  }
  # Orbax refuses empty arrays, and of these there is nothing to save.
  long = {key: array for key, array in long.items() if array.size}
  return _nested(rest | long), contents


def packed_target(target: Any, contents: Contents) -> dict[str, Any]:
  """Returns what to restore a packed state into.

  Args:
    target: tree of `jax.ShapeDtypeStruct`s with all arrays that are in the long
      ones, and no others than were saved.
    contents: as `pack` gave it.

  Returns:
    A tree of the same `jax.ShapeDtypeStruct`s and, for the long arrays, of such
    without a sharding.
  """
  leaves = dict(named_leaves(target))
  long = {}
  for key, names in contents.items():
    packed = [leaves.pop(name) for name in names]
    size = sum(leaf.size for leaf in packed)
    if size:
      long[key] = jax.ShapeDtypeStruct((size,), packed[0].dtype)
  return _nested(leaves | long)


def unpack(tree: Any, contents: Contents, target: Any) -> Any:
  """Returns the state that was packed.

  Args:
    tree: what was restored into `packed_target(target, contents)`.
    contents: as `pack` gave it.
    target: tree of `jax.ShapeDtypeStruct`s; where they have a sharding, the
      array is put there, else it stays on the host.
  """
  found: dict[str, Any] = traverse_util.flatten_dict(tree, sep='/')
  shapes = dict(named_leaves(target))
  for key, names in contents.items():
    ends = np.cumsum([shapes[name].size for name in names])
    long = np.asarray(found.pop(key, np.zeros(0, shapes[names[0]].dtype)))
    for name, part in zip(names, np.split(long, ends[:-1]), strict=True):
      found[name] = _placed(part, shapes[name])
  return jax.tree.unflatten(
    jax.tree.structure(target), [found[name] for name in shapes]
  )


def _is_whole_here(leaf: Any) -> bool:
  if not isinstance(leaf, jax.Array):
    return True
  return leaf.is_fully_addressable or leaf.is_fully_replicated


def _nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
  # With fields of its own, as others who open the checkpoint expect.
  return traverse_util.unflatten_dict(arrays, sep='/')


def _placed(flat: np.ndarray, shape: jax.ShapeDtypeStruct) -> Any:
  array = flat.reshape(shape.shape)
  if shape.sharding is None:
    return array
  # Of several processes, each fills its own devices and waits for no other. A
  # training that refuses hidden transfers means this one.
  with jax.transfer_guard('allow'):
    return jax.make_array_from_callback(
      shape.shape, shape.sharding, lambda index: array[index]
    )
