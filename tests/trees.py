"""What tests say of nested parameters."""

from typing import Any

import numpy as np
from flax import traverse_util


def flat(params: Any) -> dict[str, Any]:
  """Returns {'head/bias': array, ...}."""
  return traverse_util.flatten_dict(params, sep='/')


def assert_same_bits(found: Any, wanted: Any) -> None:
  """Asserts that `found` are numpy arrays with the bits of `wanted`."""
  found, wanted = flat(found), flat(wanted)
  assert found.keys() == wanted.keys()
  for key, array in wanted.items():
    assert isinstance(found[key], np.ndarray)
    assert found[key].shape == array.shape, key
    assert found[key].dtype == array.dtype, key
    assert found[key].tobytes() == np.asarray(array).tobytes(), key
