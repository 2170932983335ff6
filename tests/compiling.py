"""How XLA compiles in tests: in a hurry, as compiling is most of their time."""

import os

# Halves the time of tests. Sums may round in another order, so that the slow
# tests, and what is compared with recorded numbers, also run without it.
_HURRY = '--xla_backend_optimization_level=0'


def hurry() -> None:
  """Compiles that way from now on, unless XLA_FLAGS is set, be it to nothing.

  To be called before JAX finds its devices. Processes that tests start
  inherit it.
  """
  os.environ.setdefault('XLA_FLAGS', _HURRY)


def flags(num_devices: int) -> str:
  """Returns XLA_FLAGS for a process that has so many devices."""
  return (
    f'{os.environ.get("XLA_FLAGS", "")} '
    f'--xla_force_host_platform_device_count={num_devices}'
  ).strip()
