"""What the project's command lines share: options, messages, exit statuses."""

from vit_jax.command_line.options import (
  WEIGHTS,
  add_batch,
  add_checkpoint,
  add_dataset,
  add_image_size,
  add_num_heads,
  add_places,
  make_parser,
)
from vit_jax.command_line.output import OutputError, guarded_output
from vit_jax.command_line.running import run, start, status_of
from vit_jax.command_line.values import (
  names,
  out_file,
  positive_float,
  positive_int,
  positive_ints,
)
from vit_jax.command_line.wording import as_options

__all__ = [
  'WEIGHTS',
  'OutputError',
  'add_batch',
  'add_checkpoint',
  'add_dataset',
  'add_image_size',
  'add_num_heads',
  'add_places',
  'as_options',
  'guarded_output',
  'make_parser',
  'names',
  'out_file',
  'positive_float',
  'positive_int',
  'positive_ints',
  'run',
  'start',
  'status_of',
]
