"""What accelerators can do at most: a table, by name and by device kind."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from vit_jax import errors


@dataclasses.dataclass(frozen=True)
class Accelerator:
  """One device, as JAX counts them: of TPU v2 and v3 that is half a chip.

  Attributes:
    name: as `--accelerator` takes it.
    memory: bytes.
    bandwidth: of the memory, in bytes/s.
    peaks: dtype -> FLOP/s of dense products, as JAX does them by default:
      GPUs since Ampere multiply float32 as TF32, TPUs as bfloat16.
    kind: a regular expression of JAX's `device_kind` in lower case.
    has_fused_attention: whether cuDNN has a kernel for it, in 16 bits.
  """

  name: str
  memory: float
  bandwidth: float
  peaks: Mapping[str, float]
  kind: str
  has_fused_attention: bool = False

  def peak(self, dtype: str) -> float:
    """Returns FLOP/s; a dtype without units of its own has float32's."""
    return self.peaks.get(dtype, self.peaks['float32'])


def _device(
  name: str,
  gigabytes: float,
  bandwidth: float,
  float32: float,
  bfloat16: float | None,
  float16: float | None,
  kind: str,
) -> Accelerator:
  """Returns an entry of the table; GB/s and TFLOP/s make it readable."""
  teraflops = {'float32': float32, 'bfloat16': bfloat16, 'float16': float16}
  peaks = {dtype: 1e12 * peak for dtype, peak in teraflops.items() if peak}
  # Ampere and later, which are those GPUs that have bfloat16.
  is_recent_gpu = bool(bfloat16 and float16)
  return Accelerator(
    name, 1e9 * gigabytes, 1e9 * bandwidth, peaks, kind, is_recent_gpu
  )


# GPUs: NVIDIA's data sheets, the SXM variants where there are several, without
# sparsity; the RTX 4090: appendix A of the Ada white paper, float32 sums. TPUs:
# 'System architecture' of Google Cloud's TPU documentation.
_TABLE = (
  #        name        GB   GB/s  float32  bfloat16  float16  device kind
  _device('a100-40', 40, 1_555, 156, 312, 312, 'a100-sxm4-40gb'),
  _device('a100-80', 80, 2_039, 156, 312, 312, 'a100-sxm4-80gb'),
  _device('h100', 80, 3_350, 494.7, 989.4, 989.4, r'h100(?! pcie| nvl)'),
  _device('h200', 141, 4_800, 494.7, 989.4, 989.4, r'h200(?! nvl)'),
  # Neither has units for bfloat16 or TF32.
  _device('v100', 16, 900, 15.7, None, 125, 'v100-sxm2-16gb'),
  _device('v100-32', 32, 900, 15.7, None, 125, 'v100-sxm2-32gb'),
  _device('t4', 16, 320, 8.1, None, 65, 't4'),
  _device('l4', 24, 300, 60, 121, 121, 'l4'),
  _device('rtx4090', 24, 1_008, 82.6, 165.2, 165.2, 'rtx 4090'),
  # A chip of these two is two devices.
  _device('tpu-v2', 8, 350, 22.5, 22.5, None, 'tpu v2'),
  _device('tpu-v3', 16, 450, 61.5, 61.5, None, 'tpu v3'),
  _device('tpu-v4', 32, 1_228, 275, 275, None, 'tpu v4'),
  _device('tpu-v5e', 16, 819, 197, 197, None, 'tpu v5( lite|e)'),
  _device('tpu-v5p', 95, 2_765, 459, 459, None, 'tpu v5p?(?! lite)'),
  _device('tpu-v6e', 32, 1_638, 918, 918, None, 'tpu v6( lite|e)'),
)
NAMES = ('cpu', *(device.name for device in _TABLE))


def accelerator(name: str) -> Accelerator:
  """Returns what `name` can do.

  Args:
    name: one of `NAMES`; 'cpu' is this machine.

  Raises:
    ConfigError: there is no such name; the text has the closest one.
  """
  if name == 'cpu':
    return _cpu()
  for device in _TABLE:
    if device.name == name:
      return device
  raise errors.ConfigError(errors.unknown_name('accelerator', name, NAMES))


def detect(device_kind: str) -> Accelerator | None:
  """Returns the entry of a device, None if there is none.

  Args:
    device_kind: of a JAX device, such as 'NVIDIA H200' or 'TPU v5 lite'.
  """
  kind = device_kind.lower()
  if kind == 'cpu':
    return _cpu()
  for device in _TABLE:
    if re.search(rf'\b({device.kind})\b', kind):
      return device
  return None


def _cpu() -> Accelerator:
  """Returns a guess: 32 FLOP a cycle (AVX2) at 3 GHz, two memory channels."""
  peak = (os.cpu_count() or 1) * 32 * 3e9
  memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
  # No CPU that this is for multiplies in 16 bits.
  return Accelerator('cpu', memory, 40e9, {'float32': peak}, 'cpu')


def refuse(device: Any) -> NoReturn:
  """Stops at a device that is not in the table.

  Args:
    device: of JAX.

  Raises:
    ConfigError: always.
  """
  raise errors.ConfigError(
    f'Nothing is known of the peaks of {device.device_kind!r}. Name the '
    f'nearest one: --accelerator={"|".join(NAMES)}.'
  )
