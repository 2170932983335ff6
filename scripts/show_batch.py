r"""Draws what the model sees: the images of a step, with their labels.

  python scripts/show_batch.py --config configs/vit.py:tiny,digits \
    --out batch.png
  python scripts/show_batch.py --config configs/vit.py:b16,/path/to/images \
    --out batch.pdf --step 100 --num 16 --config.pp.preset=medium1

They are the very arrays that a run of this config has at that step: cropped,
augmented and mixed. Mixed images have both labels and their shares.
"""

import contextlib
import functools
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import app, flags, logging

from vit_jax import command_line, errors, main

_OUT = flags.DEFINE_string(
  'out', '', 'The file to write; its ending says in what format: .png, .pdf.'
)
_STEP = flags.DEFINE_integer('step', 1, 'Of the run, whose first step is 1.')
_NUM = flags.DEFINE_integer('num', 32, 'How many images of the batch to draw.')
flags.declare_key_flag('config')


def run(_) -> None:
  """Draws the batch; a user's mistake is one message and exit status 2."""
  if not flags.FLAGS['verbosity'].present:
    logging.set_verbosity(logging.WARNING)  # tfds tells a lot.
  stopped = 'stopped; nothing was written'
  options = {'out': _OUT.value}
  sys.exit(command_line.status_of(_draw, stopped, options))


def _draw() -> int:
  # Here, so that a typo in a flag is answered before they are loaded.
  from vit_jax import figures

  config = flags.FLAGS.config
  _check_flags(figures.FORMATS)
  images, captions = batch_of(config, _STEP.value, _NUM.value)
  height, width = images.shape[1:3]
  figures.plot_batch(
    images,
    captions,
    _OUT.value,
    f'{config.dataset} {config.pp.train}, step {_STEP.value}: {len(images)} '
    f'of {config.batch} images, {height} x {width}',
  )
  print(_OUT.value)
  return 0


def _check_flags(formats: Sequence[str]) -> None:
  if pathlib.Path(_OUT.value).suffix.lower().lstrip('.') not in formats:
    valid = ', '.join(f'.{each}' for each in formats)
    raise errors.ConfigError(
      f'--out {_OUT.value!r} is no file that can be written. Give it one of '
      f'the endings {valid}, such as batch.png.'
    )
  for flag in (_STEP, _NUM):
    if flag.value < 1:
      raise errors.ConfigError(f'--{flag.name} {flag.value} is not positive.')


def batch_of(config: Any, step: int, num: int) -> tuple[np.ndarray, list[str]]:
  """Returns the first `num` images of a step, uint8, and what they are."""
  from vit_jax import config_checks, train_step
  from vit_jax.data import pipeline, sources

  config_checks.check_config(config, num_devices=1)
  source = sources.load_source(config, config.pp.train)
  make_inputs = train_step.make_inputs(
    config, source.num_classes, cropped=source.images is None
  )
  _, train_key = train_step.run_keys(config.seed)
  batches = pipeline.train_batches(config, step - 1, source)
  with contextlib.closing(batches):
    inputs, targets = make_inputs(train_key, step - 1, next(batches))
  pixels = np.clip(np.asarray(inputs[:num]) * 127.5 + 127.5, 0, 255)
  captions = [
    caption(target, source.class_names) for target in np.asarray(targets[:num])
  ]
  return np.round(pixels).astype(np.uint8), captions


def caption(target: np.ndarray, class_names: Sequence[str]) -> str:
  """Returns the classes of a target, largest first, with shares if mixed.

  Args:
    target: [num_classes], sums to one.
    class_names: of all classes.
  """
  order = np.argsort(-target, kind='stable').tolist()
  found: list[int] = [i for i in order if target[i] > 0.005]
  if len(found) == 1:
    return class_names[found[0]]
  return '\n'.join(f'{class_names[i]} {target[i]:.0%}' for i in found)


if __name__ == '__main__':
  app.run(
    run,
    flags_parser=functools.partial(
      main.parse_flags, names=('num', 'out', 'step')
    ),
  )
