"""What a weight file is, from its headers: no values are read but a head's."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vit_jax.checkpoints.digest import file_digest

# Most of the time goes into the file's SHA-256. All imports that take a while
# are inside functions, so that they are made meanwhile.
if TYPE_CHECKING:
  from ml_collections import ConfigDict

  from vit_jax.checkpoints.arrays import StoredArray

_ALWAYS_READ = 1 << 24  # Bytes; of these, no file is too small.
# Names in which the heads are fused, so that their number isn't seen.
_FUSE_HEADS = ('timm', 'transformers')


@dataclasses.dataclass(frozen=True)
class Description:
  """What a weight file is. What it lacks is None.

  Attributes:
    path: the file, or the checkpoint of a run.
    container: 'npz', 'safetensors' or 'checkpoint'.
    names: whose keys it has: 'google', 'big_vision', 'timm' or 'transformers'.
    family: 'ViT', 'hybrid', 'Mixer' or 'ConvNet'.
    models: the models that have all of these sizes.
    nearest_model: the one with the fewest other sizes.
    patch: (height, width) of a patch in pixels, of a hybrid in positions of its
      stem's output, of a ConvNet of what its poolings make one of.
    stride: (height, width) in pixels of what becomes a token.
    width: of a token, or of a ConvNet's dense layer.
    depth: encoder or mixer blocks, or convolutions.
    mlp_dim: hidden width of the MLPs, a Mixer's across channels.
    tokens_mlp_dim: a Mixer's across tokens.
    conv_features: a ConvNet's, of each convolution.
    conv_kernel_size: side of these.
    spatial_transformer: the fields of the one before the model, as the model's
      config has them.
    num_heads: of the attention.
    heads_from: 'file', 'caller', or 'width' where neither says it and it is
      what published models of that width have.
    resnet_num_layers: bottlenecks in each stage of a hybrid's stem.
    resnet_width_factor: of the stem.
    classifier: 'token', 'gap' or 'map'. A model with a result for every token
      can't be told from one with the mean of them.
    position_embedding: 'learned', or 'sincos2d', which has no parameters.
    num_patches: that it was made for; with 'sincos2d', none in particular.
    grid: (rows, columns) of patches, if their number is a square.
    image_size: (height, width) in pixels that the grid implies.
    representation_size: width of the layer between features and head.
    num_classes: width of the head.
    zero_head: whether all weights of the head are zero; None, too, where it
      claims more bytes than the file has.
    has_optimizer_state: whether there is more in the file than weights.
    dtypes: of the weights.
    num_params: numbers in the weights, as the model has them.
    unknown: keys of weights that no model here has, or of another shape.
    missing: keys of weights that a model of these sizes has, and the file not.
    file_size: in bytes.
    sha256: of the file.
    command: a command line that fine-tunes it on an example of a data set;
      None where heads are unknown, the size of images isn't a square's, or
      something is unknown or missing.
  """

  path: str
  container: str
  names: str
  family: str
  models: tuple[str, ...]
  nearest_model: str
  patch: tuple[int, int]
  stride: tuple[int, int]
  width: int
  depth: int
  mlp_dim: int | None
  tokens_mlp_dim: int | None
  conv_features: tuple[int, ...] | None
  conv_kernel_size: int | None
  spatial_transformer: dict[str, Any] | None
  num_heads: int | None
  heads_from: str | None
  resnet_num_layers: tuple[int, ...] | None
  resnet_width_factor: float | None
  classifier: str | None
  position_embedding: str | None
  num_patches: int | None
  grid: tuple[int, int] | None
  image_size: tuple[int, int] | None
  representation_size: int | None
  num_classes: int | None
  zero_head: bool | None
  has_optimizer_state: bool
  dtypes: tuple[str, ...]
  num_params: int
  unknown: tuple[str, ...]
  missing: tuple[str, ...]
  file_size: int | None
  sha256: str | None
  command: str | None

  def model_config(self) -> ConfigDict:
    """Returns the config of the model that the file is of, in full."""
    from vit_jax.inspection import matching, sizes

    return matching.model_config(
      sizes.config_fields(vars(self)), self.representation_size
    )


def describe(
  path: str | os.PathLike, num_heads: int | None = None
) -> Description:
  """Returns what a weight file is.

  Args:
    path: an `.npz` or `.safetensors` file, or a run directory.
    num_heads: attention heads, for a file that doesn't say it and a width that
      no published model has.

  Raises:
    CheckpointNotFoundError: there is no such file.
    CheckpointError: it is damaged, or not of a model known here.
  """
  path, stop = os.fspath(path), threading.Event()
  exported = os.path.join(path, 'model.npz')
  file = exported if os.path.isdir(path) else path
  digest = _Digest(file, stop) if os.path.isfile(file) else None
  try:
    return _describe(path, num_heads, digest)
  finally:  # An error is not kept waiting.
    stop.set()
    if digest:
      digest.join()


class _Digest(threading.Thread):
  """A file's SHA-256, on its way."""

  # No future, as `concurrent.futures` takes a while to load.

  def __init__(self, path: str, stop: threading.Event):
    super().__init__()
    self._path, self._stop_early = path, stop
    self._value, self._error = '', None
    self.start()

  def run(self) -> None:
    try:
      self._value = file_digest(self._path, stop=self._stop_early)
    except OSError as error:
      self._error = error

  def result(self) -> str:
    self.join()
    if self._error:
      from vit_jax import errors

      raise errors.CheckpointError(
        f'{self._path}: can not be read ({self._error.strerror}).'
      ) from self._error
    return self._value


def _describe(
  path: str, num_heads: int | None, digest: _Digest | None
) -> Description:
  from vit_jax.checkpoints import files
  from vit_jax.checkpoints import names as file_names
  from vit_jax.checkpoints.names import heads
  from vit_jax.inspection import sizes

  with files.open_file(path) as stored:
    weights = file_names.without_optimizer(stored.arrays)
    names = file_names.find_names(weights, stored.path)
    said = heads.from_metadata(stored.metadata, stored.path)
    flat = file_names.to_ours(
      stored.arrays,
      # All else can be told without it.
      num_heads=num_heads or (1 if names in _FUSE_HEADS else None),
      metadata=stored.metadata,
      source=stored.path,
    )
    found = sizes.read_sizes(flat, stored.path)
    found['heads_from'] = None
    if found['num_heads'] is not None:
      found |= _heads(found, names, said, num_heads)
    container = _container(stored.path)
    return Description(
      **found,
      **_models(found, path, names),
      path=stored.path,
      container=container,
      names=names,
      zero_head=_is_zero(flat.get('head/kernel'), stored.path, container),
      has_optimizer_state=container == 'checkpoint'
      or len(weights) < len(stored.arrays),
      dtypes=tuple(sorted({array.dtype.name for array in flat.values()})),
      num_params=sum(array.size for array in flat.values()),
      file_size=os.path.getsize(stored.path) if digest else None,
      sha256=digest.result() if digest else None,
    )


def _container(path: str) -> str:
  if os.path.isdir(path):
    return 'checkpoint'
  with open(path, 'rb') as file:
    return 'npz' if file.read(2) == b'PK' else 'safetensors'


def _heads(
  found: Mapping[str, Any], names: str, said: int | None, given: int | None
) -> dict[str, Any]:
  if said or names not in _FUSE_HEADS:
    return {'heads_from': 'file'}
  if given:
    return {'heads_from': 'caller'}
  from vit_jax.checkpoints.names import heads

  num_heads = heads.PUBLISHED.get(found['width'])
  return {
    'num_heads': num_heads,
    'heads_from': 'width' if num_heads else None,
  }


def _models(found: Mapping[str, Any], path: str, names: str) -> dict[str, Any]:
  from vit_jax.inspection import matching, sizes

  fields = sizes.config_fields(found)
  command = None
  if not found['unknown'] and not found['missing']:
    command = matching.fine_tuning_command(
      fields,
      path,
      found['image_size'],
      gelu='exact' if names == 'transformers' else None,
    )
  return {
    'models': matching.equal_models(fields),
    'nearest_model': matching.nearest_model(fields)[0],
    'command': command,
  }


def _is_zero(
  kernel: StoredArray | None, path: str, container: str
) -> bool | None:
  if kernel is None:
    return None
  # Zeros compress to nothing, so that a small file can have any number of them.
  num_bytes = kernel.size * kernel.dtype.itemsize
  if container != 'checkpoint' and num_bytes > max(
    _ALWAYS_READ, os.path.getsize(path)
  ):
    return None
  from vit_jax import errors
  from vit_jax.checkpoints import arrays

  try:
    values = kernel.read()
    arrays.check_values(values)
  except arrays.DamagedArrayError as error:
    raise errors.CheckpointError(
      f'{path}: {kernel.key} can not be used: {error}. Download or copy the '
      'file again. If it is a run of yours, take an earlier checkpoint.'
    ) from error
  return not values.any()
