"""Measures what it takes to get a weight file into device memory.

  python scripts/benchmark_loading.py [FILE] [--model=ViT-B_16] [--rounds=9]

Without FILE, random weights of the model are written to a temporary one. Each
measurement has a process of its own; they take turns, so that a change of the
machine's load hits all alike. Quote the ratios.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from vit_jax import command_line

ROOT = pathlib.Path(__file__).resolve().parents[1]

MODES = {
  'numpy': 'np.load, every array',
  'device': 'load_pretrained to the device',
  'device, first call': 'the same with the tracing of the model',
}


def main() -> int:
  """Returns the exit status."""
  return command_line.run(_measure, _parser)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__doc__)
  parser.add_argument('file', nargs='?')
  parser.add_argument('--model', default='ViT-B_16')
  parser.add_argument('--rounds', type=command_line.positive_int, default=9)
  parser.add_argument('--child', choices=MODES, help=argparse.SUPPRESS)
  return parser


def _measure(args: argparse.Namespace) -> int:
  if args.child:
    print(json.dumps(measure(args.child, args.file, args.model)))
    return 0
  with tempfile.TemporaryDirectory() as directory:
    file = args.file or write_weights(args.model, directory)
    report(file, args.model, args.rounds)
  return 0


def write_weights(name: str, directory: str) -> str:
  import jax
  import numpy as np

  from vit_jax import checkpoints, models

  model = models.create_model(name, 1000)
  images = np.zeros((1, 224, 224, 3), np.float32)
  params = jax.jit(model.init)(jax.random.key(0), images)['params']
  path = os.path.join(directory, f'{name}.npz')
  checkpoints.save_params(params, path)
  return path


def report(file: str, model: str, rounds: int) -> None:
  results = {mode: [] for mode in MODES}
  inspections = []
  for _ in range(rounds):
    for mode in MODES:
      command = [sys.executable, __file__, file, '--model', model]
      output = subprocess.run(
        [*command, '--child', mode], capture_output=True, check=True
      ).stdout
      results[mode].append(json.loads(output))
    inspections.append(time_inspection(file))
  size = os.path.getsize(file)
  print(f'{file}: {size:,} bytes, medians of {rounds} processes')
  plain = statistics.median(r['seconds'] for r in results['numpy'])
  for mode, text in MODES.items():
    seconds = statistics.median(r['seconds'] for r in results[mode])
    peak = statistics.median(r['peak'] for r in results[mode])
    print(
      f'{text:40} {seconds:6.3f} s  {seconds / plain:5.2f} x numpy   '
      f'peak memory {peak / size:.2f} x the file'
    )
  seconds = statistics.median(inspections)
  print(f'{"scripts/inspect_checkpoint.py":40} {seconds:6.3f} s')


def measure(mode: str, file: str, name: str) -> dict[str, float]:
  """Returns seconds, and bytes of memory at the peak, of one reading."""
  import jax
  import numpy as np
  from flax import traverse_util

  from vit_jax import checkpoints, models
  from vit_jax.checkpoints import adapt, files, locate  # noqa: F401

  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  jax.block_until_ready(jax.device_put(np.zeros(3), place))
  model: Any = models.create_model(name, 1000)
  shapes = checkpoints.expected_shapes(model, (224, 224))
  if mode == 'device, first call':
    checkpoints.expected_shapes.cache_clear()
  shardings = traverse_util.unflatten_dict(dict.fromkeys(shapes, place), '/')
  reset_peak()
  before = memory('VmRSS')
  start = time.perf_counter()
  if mode == 'numpy':
    with np.load(file) as archive:
      loaded = {key: archive[key] for key in archive.files}
  else:
    loaded = checkpoints.load_pretrained(file, model, 224, shardings=shardings)
    jax.block_until_ready(loaded)
  seconds = time.perf_counter() - start
  assert loaded
  return {'seconds': seconds, 'peak': memory('VmHWM') - before}


def reset_peak() -> None:
  pathlib.Path('/proc/self/clear_refs').write_text('5')


def memory(field: str) -> int:
  """Returns bytes of this process's memory, as Linux counts them."""
  status = pathlib.Path('/proc/self/status').read_text()
  return 1024 * int(status.split(f'{field}:')[1].split()[0])


def time_inspection(file: str) -> float:
  script = ROOT / 'scripts' / 'inspect_checkpoint.py'
  start = time.perf_counter()
  subprocess.run(
    [sys.executable, script, file], stdout=subprocess.DEVNULL, check=True
  )
  return time.perf_counter() - start


if __name__ == '__main__':
  command_line.start(main)
