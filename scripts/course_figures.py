r"""Draws the figures of docs/how_vit_works.md.

  python -m vit_jax.main --config configs/vit.py:tiny,digits
  python scripts/course_figures.py --checkpoint runs/vit/tiny,digits --out docs

The photograph is scikit-learn's flower.jpg; the digits model shows what it
learned of positions, what a patch attends to, and how far its heads look.
"""

import argparse
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import attention, command_line, errors, models, trained
from vit_jax.data import augment, images
from vit_jax.figures import course
from vit_jax.models import variants
from vit_jax.models.positions import sincos2d

_SIZE = (224, 224)
_SCAN = 1437  # The first scan that is not trained on.
_NUM_SCANS = 128  # As many as Figure 7 of the ViT paper has images.
_PATCH = (1, 1)
_LAYER = 1


def main() -> int:
  """Returns the exit status."""
  return command_line.run(_draw_all, _parser, 'stopped; what was written stays')


def _draw_all(args: argparse.Namespace) -> int:
  out = pathlib.Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  draw(args.checkpoint, out)
  for path in sorted(out.glob('course_*.png')):
    print(path)
  return 0


def draw(checkpoint: str, out: pathlib.Path) -> None:
  """Writes all figures.

  Args:
    checkpoint: a digits model, as `trained.load` takes it.
    out: an existing directory.

  Raises:
    ConfigError: the model has a class token, or is no ViT.
    CheckpointError, CheckpointNotFoundError: weights that can't be used.
  """
  found = trained.load(checkpoint)
  model: Any = found.model
  if getattr(model, 'classifier', '') != 'gap':
    raise errors.ConfigError(
      f'{checkpoint} is {found.name}. The figures are of a ViT that averages '
      "its tokens, such as that of 'configs/vit.py:tiny,digits'."
    )
  grid = model.grid(found.image_size)
  course.plot_patches(_photograph(), (16, 16), out / 'course_patches.png')
  base: Any = models.create_model('b16', 1000)
  tokens = int(np.prod(base.grid(_SIZE))) + 1
  course.plot_block(
    tokens, base.hidden_size, base.mlp_dim, base.num_layers,
    out / 'course_block.png',
  )  # fmt: skip
  _draw_positions(found, grid, out)
  scans, pixels = _scans(found.image_size)
  weights = attention.attention_weights(model, found.params, pixels[:1])
  course.plot_patch_attention(
    scans[0], np.asarray(weights[_LAYER, 0]), grid, _PATCH,
    out / 'course_attention.png',
  )  # fmt: skip
  fresh = jax.jit(model.init)(jax.random.key(0), pixels[:1])['params']
  trained_distances, untrained = (
    np.asarray(attention.attention_distances(model, params, pixels)).mean(1)
    for params in (found.params, fresh)
  )
  reach = [2**0.5 * (layer + 1) for layer in range(model.num_layers)]
  course.plot_distances(
    trained_distances, untrained, reach, out / 'course_distances.png'
  )


def _draw_positions(found: Any, grid: Any, out: pathlib.Path) -> None:
  fixed = variants.model_config('b16')
  fixed.position_embedding, fixed.hidden_size = 'sincos2d', 128
  fixed.transformer.num_heads = 4
  model: Any = models.create_model(fixed, None)
  large = model.grid(_SIZE)
  course.plot_positions(
    np.asarray(sincos2d(large, 128)),
    attention.position_similarity(model, {}, large),
    attention.position_similarity(found.model, found.params, grid),
    out / 'course_positions.png',
  )


def _photograph() -> np.ndarray:
  """Returns the flower's middle, uint8 [224, 224, 3]."""
  from sklearn import datasets  # A second to import.

  return images.fit_image(datasets.load_sample_image('flower.jpg'), _SIZE)


def _scans(size: tuple[int, int]) -> tuple[list[np.ndarray], jax.Array]:
  """Returns test scans as images, and as the model takes them."""
  from sklearn import datasets

  pixels = datasets.load_digits().images[_SCAN : _SCAN + _NUM_SCANS]
  grey = np.rint(pixels * 255 / 16).astype(np.uint8)
  scans = [
    images.fit_image(np.stack([each] * 3, axis=-1), size) for each in grey
  ]
  return scans, augment.normalize(jnp.asarray(np.stack(scans)))


def _parser() -> argparse.ArgumentParser:
  parser = command_line.make_parser(__doc__)
  parser.add_argument(
    '--checkpoint',
    required=True,
    metavar='RUN|FILE',
    help='a digits model without a class token',
  )
  parser.add_argument(
    '--out', required=True, metavar='DIR', help='directory of the figures'
  )
  return parser


if __name__ == '__main__':
  command_line.start(main)
