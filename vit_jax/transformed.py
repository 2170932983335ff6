"""What a spatial transformer makes of a split: by example, angle and step."""

import dataclasses
import pathlib
from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vit_jax import errors, outputs, sharding, trained, workdir
from vit_jax.checkpoints import locate
from vit_jax.data import sources
from vit_jax.models import spatial_transformer
from vit_jax.models.spatial_transformer import affine_grid, grid_sample

MAX_ANGLE = 60


@dataclasses.dataclass(frozen=True)
class Transformed:
  """Inputs beside what the transformer makes of them; uint8, RGB.

  Attributes:
    dataset: that they are of, with its split.
    names: [num_classes] of the classes.
    images: [num_classes, height, width, 3], an example of each class.
    made: of each of these.
    outlines: float32 [num_classes, 4, 2], the corners (x, y) in pixels of what
      the transformer takes out of each of them.
    means: [num_classes, height, width, 3], of all examples of each class.
    made_means: of what it makes of these examples.
    angles: [num_angles] in degrees, anticlockwise.
    turned: [num_angles, height, width, 3], one example turned by these.
    made_turned: of each of these.
  """

  dataset: str
  names: list[str]
  images: np.ndarray
  made: np.ndarray
  outlines: np.ndarray
  means: np.ndarray
  made_means: np.ndarray
  angles: np.ndarray
  turned: np.ndarray
  made_turned: np.ndarray


@dataclasses.dataclass(frozen=True)
class Learned:
  """The same inputs as the transformer of a run saw them while it learned.

  Attributes:
    dataset: that they are of, with its split.
    names: [num_classes] of the classes.
    images: uint8 [num_classes, height, width, 3], an example of each class.
    steps: [num_steps] ascending.
    made: uint8 [num_steps, num_classes, height, width, 3].
    outlines: float32 [num_steps, num_classes, 4, 2], as those of `Transformed`.
  """

  dataset: str
  names: list[str]
  images: np.ndarray
  steps: list[int]
  made: np.ndarray
  outlines: np.ndarray


def look(
  checkpoint: str, num_columns: int = 10, tfds_data_dir: str | None = None
) -> Transformed:
  """Returns what the transformer of a run makes of the run's test split.

  Args:
    checkpoint: a run directory, or its `model.npz`.
    num_columns: classes, from the first, and angles.
    tfds_data_dir: where the data set is, if that has moved.

  Raises:
    ConfigError: the weights are of no run, or have no spatial transformer.
    DataError, DataNotFoundError: unusable data.
    CheckpointError, CheckpointNotFoundError: unusable weights.
  """
  opened, config, source = _opened(checkpoint, tfds_data_dir)

  def apply(params: Any, images: jax.Array) -> dict[str, jax.Array]:
    made, theta = spatial_transformer.transform(opened.model, params, images)
    return {'images': images, 'made': made, 'theta': theta}

  found = outputs.whole_split(apply, opened.params, config, source, _mesh())
  return _arranged(opened, found, source, num_columns, apply)


def look_at_steps(
  checkpoint: str,
  steps: Collection[int],
  num_columns: int = 10,
  tfds_data_dir: str | None = None,
) -> Learned:
  """Returns what a transformer made of the same inputs as it learned.

  Args:
    checkpoint: a run directory whose checkpoints of these steps are there.
    steps: numbers of updates; one or more.
    num_columns: classes, from the first.
    tfds_data_dir: where the data set is, if that has moved.

  Raises:
    ConfigError: as from `look`, or a step was not kept.
    DataError, DataNotFoundError: unusable data.
    CheckpointError, CheckpointNotFoundError: unusable weights.
  """
  opened, config, source = _opened(checkpoint, tfds_data_dir)
  steps = sorted({*steps})
  # Of a run under way, weights lie deeper than in `model.npz`.
  run = workdir.of_weights(locate.locate(checkpoint))
  _check_kept(run.checkpoints, steps)
  found = outputs.whole_split(
    lambda _, images: {'images': images}, {}, config, source, _mesh()
  )
  classes, masks = _classes(found, source, num_columns)
  images = found.values['images'][[int(mask.argmax()) for mask in masks]]

  @jax.jit
  def transform(params: Any) -> tuple[jax.Array, jax.Array]:
    return spatial_transformer.transform(
      opened.model, params, jnp.asarray(images)
    )

  made, theta = zip(
    *(
      jax.device_get(transform(_params_at(run.checkpoints / str(step))))
      for step in steps
    ),
    strict=True,
  )
  return Learned(
    dataset=f'{source.name} ({source.split})',
    names=[source.class_names[label] for label in classes],
    images=_pixels(images),
    steps=steps,
    made=_pixels(np.stack(made)),
    outlines=np.stack([outlines(each, images.shape[1:3]) for each in theta]),
  )


def _check_kept(checkpoints: pathlib.Path, steps: Collection[int]) -> None:
  # What a save that was cut short has left has a longer name.
  kept = {int(x.name) for x in checkpoints.glob('*') if x.name.isdecimal()}
  if lost := sorted({*steps} - kept):
    raise errors.ConfigError(
      f'{checkpoints} has no step {_listed(lost)}; there are: '
      f'{_listed(kept) or "none"}. A run keeps the last '
      'config.keep_checkpoints of those saved every config.checkpoint_every '
      'steps.'
    )


def _listed(steps: Collection[int]) -> str:
  return ', '.join(map(str, sorted(steps)))


def _params_at(checkpoint: pathlib.Path) -> dict[str, Any]:
  """Returns the parameters of the transformer alone, of the model's."""
  # They import Orbax, of which `look` has no need.
  from vit_jax.checkpoints import record, saved_params

  state = checkpoint / 'state'
  try:
    said = record.read_record(checkpoint)
    shapes = saved_params.shapes(state, said)
    arrays = saved_params.read(state, said, shapes)
    # Of a model whose blocks are scanned the others have other names.
    arrays = {
      name: np.asarray(arrays[name])
      for name in arrays
      if name.startswith(f'{spatial_transformer.NAME}/')
    }
    for name, array in arrays.items():
      saved_params.check(said, name, array)
  except Exception as error:  # Orbax raises whatever it meets.
    raise errors.CheckpointError(
      f'{checkpoint}: the checkpoint can not be read '
      f'({errors.first_line(error)}). Leave that step out.'
    ) from error
  return traverse_util.unflatten_dict(arrays, sep='/')


def _opened(
  checkpoint: str, tfds_data_dir: str | None
) -> tuple[trained.Trained, ConfigDict, sources.Source]:
  """Returns a run with a transformer, its settings and its test split."""
  opened = trained.load(checkpoint)
  if spatial_transformer.of_model(opened.model) is None:
    raise errors.ConfigError(
      f'{opened.found.path}: {opened.name} has no spatial transformer before '
      'it. Train one with configs/spatial_transformer.py:digits.'
    )
  if opened.config is None:
    raise errors.ConfigError(
      f'{opened.found.path} is not of a run, so the images are not known that '
      'it was trained on. Give a run directory.'
    )
  config = opened.config.copy_and_resolve_references()
  if tfds_data_dir:
    config.tfds_data_dir = tfds_data_dir
  return opened, config, sources.load_source(config, config.pp.test)


def _mesh() -> Mesh:
  return sharding.make_mesh(devices=jax.devices()[:1])


def _classes(
  found: outputs.Batch, source: sources.Source, num_columns: int
) -> tuple[list[int], list[np.ndarray]]:
  """Returns the first classes that there are, and where they are."""
  masks = [found.labels == label for label in range(source.num_classes)]
  classes = [label for label, mask in enumerate(masks) if mask.any()]
  classes = classes[:num_columns]
  return classes, [masks[label] for label in classes]


def _arranged(
  opened: trained.Trained,
  found: outputs.Batch,
  source: sources.Source,
  num_columns: int,
  apply: outputs.Apply,
) -> Transformed:
  classes, masks = _classes(found, source, num_columns)
  first = [int(mask.argmax()) for mask in masks]
  images, made = found.values['images'], found.values['made']
  angles = np.linspace(-MAX_ANGLE, MAX_ANGLE, num_columns).round()
  turned = turn(images[first[-1]], angles)
  return Transformed(
    dataset=f'{source.name} ({source.split})',
    names=[source.class_names[label] for label in classes],
    images=_pixels(images[first]),
    made=_pixels(made[first]),
    outlines=outlines(found.values['theta'][first], images.shape[1:3]),
    means=_pixels(np.stack([images[mask].mean(0) for mask in masks])),
    made_means=_pixels(np.stack([made[mask].mean(0) for mask in masks])),
    angles=angles,
    turned=_pixels(turned),
    made_turned=_pixels(
      jax.jit(apply)(opened.params, jnp.asarray(turned))['made']
    ),
  )


def turn(image: np.ndarray, angles: np.ndarray) -> np.ndarray:
  """Returns an image turned about its middle, once for each angle.

  Args:
    image: float32 [height, width, 3] in [-1, 1]; black comes from outside.
    angles: [num_angles] in degrees, anticlockwise.
  """
  height, width = image.shape[:2]
  cosines, sines = np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))
  zeros = np.zeros_like(sines)
  # A unit of x is half the width, one of y half the height.
  theta = np.stack(
    [
      np.stack([cosines, -sines * height / width, zeros], -1),
      np.stack([sines * width / height, cosines, zeros], -1),
    ],
    axis=1,
  ).astype(np.float32)
  grid = affine_grid(jnp.asarray(theta), (height, width))
  batch = jnp.broadcast_to(image, (len(angles), *image.shape))
  return np.asarray(grid_sample(batch + 1, grid) - 1)


def outlines(theta: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Returns the corners of what transforms take out of images.

  Args:
    theta: [batch, 2, 3], as `affine_grid` takes them.
    size: (height, width) of the images.

  Returns:
    float32 [batch, 4, 2]: (x, y) in pixels, (0, 0) being the upper left corner
    of the first one. In a row they go round.
  """
  corners = np.array([[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])
  points = np.einsum('bij,nj->bni', theta, corners)
  return ((points + 1) / 2 * size[::-1]).astype(np.float32)


def _pixels(images: Any) -> np.ndarray:
  values = np.clip(np.asarray(images) * 127.5 + 127.5, 0, 255)
  return np.rint(values).astype(np.uint8)
