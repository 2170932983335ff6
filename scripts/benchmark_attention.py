"""Measures what attention maps cost beside a forward pass of the same images.

  python scripts/benchmark_attention.py --model b16 --batch 64 --rounds 3

Weights and images are random. All take turns in one process, so that a change
of the machine's load hits all alike: quote the ratios, each the median over
rounds. Those of CPU time, of all threads together, other work disturbs less.
What needs a backward pass is compared at a batch of its own. Memory is
what the compiled programs say they need, and the peak of a process that runs
nothing else once.
"""

import argparse
import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vit_jax import attention, command_line, models

DISCARD = 'rollout, discard_ratio=0.9'
GROUPS = {
  'forward': ('plain', 'rollout', DISCARD, 'class_token'),
  'backward': ('plain', 'input gradients', 'grad_rollout', 'relevance'),
}
PEAKS = GROUPS['forward'][:3]


def main() -> int:
  """Returns the exit status."""
  return command_line.run(_measure, _parser)


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__doc__)
  parser.add_argument('--model', default='b16')
  parser.add_argument('--batch', type=command_line.positive_int, default=64)
  parser.add_argument('--grad_batch', type=command_line.positive_int, default=8)
  parser.add_argument(
    '--image_size', type=command_line.positive_int, default=224
  )
  parser.add_argument('--rounds', type=command_line.positive_int, default=3)
  parser.add_argument(
    '--peaks', type=int, default=3, help='rounds of processes; 0 for none'
  )
  parser.add_argument('--child', choices=PEAKS, help=argparse.SUPPRESS)
  return parser


def _measure(args: argparse.Namespace) -> int:
  if args.child:
    print(json.dumps(measure_peak(args)))
    return 0
  print(
    f'{args.model} at {args.image_size} pixels, jax {jax.__version__}, '
    f'{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {args.rounds} '
    'rounds'
  )
  if args.peaks:
    report_peaks(args)
  for group, batch in {
    'forward': args.batch,
    'backward': args.grad_batch,
  }.items():
    report(group, batch, args)
  print(f'load at the end {os.getloadavg()[0]:.1f}')
  return 0


def functions(model: Any) -> dict[str, Callable[[Any, Any], Any]]:
  """Returns what is measured: of parameters and images."""

  def plain(params, images):
    return model.apply({'params': params}, images)

  def input_gradients(params, images):
    return jax.value_and_grad(lambda x: plain(params, x).max(-1).sum())(images)

  maps = functools.partial
  return {
    'plain': plain,
    'rollout': maps(attention.rollout_maps, model),
    DISCARD: maps(attention.rollout_maps, model, discard_ratio=0.9),
    'class_token': maps(attention.class_token_maps, model),
    'input gradients': input_gradients,
    'grad_rollout': maps(attention.grad_rollout_maps, model),
    'relevance': maps(attention.relevance_maps, model),
  }


def make(args: argparse.Namespace, batch: int) -> tuple[Any, Any, np.ndarray]:
  """Returns the model, its parameters, and images."""
  model = models.create_model(args.model, 1000)
  rng = np.random.default_rng(0)
  shape = (batch, args.image_size, args.image_size, 3)
  images = rng.uniform(-1, 1, shape).astype(np.float32)
  params = jax.jit(model.init)(jax.random.key(0), images[:1])['params']
  return model, params, images


# --- Time, and memory as compiled --------------------------------------------


def report(group: str, batch: int, args: argparse.Namespace) -> None:
  """Prints a table of seconds and megabytes, the first row being 1."""
  model, params, images = make(args, batch)
  images = jax.device_put(images)
  names = GROUPS[group]
  programs = {
    name: jax.jit(functions(model)[name]).lower(params, images).compile()
    for name in names
  }
  seconds = {name: [] for name in names}
  cpu_seconds = {name: [] for name in names}
  for i in range(args.rounds + 1):
    for name, program in programs.items():
      start, cpu_start = time.perf_counter(), time.process_time()
      jax.block_until_ready(program(params, images))
      if i:  # The first is a warm-up.
        seconds[name].append(time.perf_counter() - start)
        cpu_seconds[name].append(time.process_time() - cpu_start)
  print(
    f'\nbatch {batch:<23} seconds  x plain  range      CPU x plain  temp MB'
    '  all x plain'
  )
  sizes = {name: memory_needed(program) for name, program in programs.items()}
  for name in names:
    ratios = paired(seconds[name], seconds['plain'])
    cpu = statistics.median(paired(cpu_seconds[name], cpu_seconds['plain']))
    temp, everything = sizes[name]
    beside = everything / sizes['plain'][1]
    print(
      f'  {name:27}{statistics.median(seconds[name]):7.2f}'
      f'  {statistics.median(ratios):7.2f}  {min(ratios):.2f}-{max(ratios):.2f}'
      f'  {cpu:11.2f}  {temp / 1e6:7,.0f}  {beside:11.3f}'
    )
  if DISCARD in seconds:
    ratios = paired(seconds[DISCARD], seconds['rollout'])
    cpu = paired(cpu_seconds[DISCARD], cpu_seconds['rollout'])
    print(
      f'  the third to the second: {statistics.median(ratios):.2f} x, '
      f'{min(ratios):.2f}-{max(ratios):.2f}, CPU {statistics.median(cpu):.2f}'
    )


def paired(ours: list[float], theirs: list[float]) -> list[float]:
  """Returns the ratio of each round."""
  return [a / b for a, b in zip(ours, theirs, strict=True)]


def memory_needed(program: Any) -> tuple[int, int]:
  """Returns bytes of temporary arrays, and with arguments and outputs."""
  found = program.memory_analysis()
  temp = found.temp_size_in_bytes
  ends = found.argument_size_in_bytes + found.output_size_in_bytes
  return temp, temp + ends


# --- Memory of a process -----------------------------------------------------


def report_peaks(args: argparse.Namespace) -> None:
  """Prints the peaks of processes, which take turns as well."""
  results = {name: [] for name in PEAKS}
  for _ in range(args.peaks):
    for name in PEAKS:
      options = ('model', 'batch', 'image_size')
      command = [sys.executable, __file__, '--child', name]
      command += [f'--{key}={getattr(args, key)}' for key in options]
      output = subprocess.run(command, stdout=subprocess.PIPE, check=True)
      results[name].append(json.loads(output.stdout))
  print(f'\nbatch {args.batch:<26} run MB  x plain  process MB  x plain')
  medians = {
    name: {key: statistics.median(r[key] for r in found) for key in found[0]}
    for name, found in results.items()
  }
  plain = medians['plain']
  for name, found in medians.items():
    print(
      f'  {name:30}{found["run"] / 1e6:7,.0f}  '
      f'{found["run"] / plain["run"]:7.3f}  {found["process"] / 1e6:10,.0f}  '
      f'{found["process"] / plain["process"]:7.3f}'
    )


def measure_peak(args: argparse.Namespace) -> dict[str, int]:
  """Returns the peak of one run: beyond what was there, and in all."""
  model, params, images = make(args, args.batch)
  images = jax.device_put(images)
  function = jax.jit(functions(model)[args.child])
  program = function.lower(params, images).compile()
  # Compiling takes more than running; and getrusage's peak, a child's too,
  # begins with that of the process that started it.
  pathlib.Path('/proc/self/clear_refs').write_text('5')
  before = memory('VmRSS')
  jax.block_until_ready(program(params, images))
  peak = memory('VmHWM')
  return {'run': peak - before, 'process': peak}


def memory(field: str) -> int:
  """Returns bytes of this process's memory, as Linux counts them."""
  status = pathlib.Path('/proc/self/status').read_text()
  return 1024 * int(status.split(f'{field}:')[1].split()[0])


if __name__ == '__main__':
  command_line.start(main)
