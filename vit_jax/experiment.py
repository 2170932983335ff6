"""What a config describes, built: the model, its state and compiled steps.

Training, planning and benchmarks all start from here, so that what is planned
and measured is what is trained.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import AbstractMesh, Mesh

from vit_jax import checkpoints, evaluate, guard, models, optim, sharding
from vit_jax.checkpoints.state import abstract_state
from vit_jax.data import augment
from vit_jax.models import blocks
from vit_jax.train_step import (
  TrainState,
  init_params,
  init_state,
  make_train_step,
  run_keys,
  state_shapes,
)


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Everything of a run but its data and its files.

  Attributes:
    config: as `configs/common.py` defines it.
    mesh: the devices, a `Mesh` or, to plan, an `AbstractMesh`.
    model: the module.
    schedule: learning rate by step, counted from 0.
    tx: the optimiser.
    target: the state as `jax.ShapeDtypeStruct`s with shardings.
    shardings: of every array of the state.
    train_key: of everything random in the steps, on all devices.
  """

  config: Any
  mesh: Any
  model: Any
  schedule: optax.Schedule
  tx: optax.GradientTransformation
  target: TrainState
  shardings: TrainState
  train_key: jax.Array

  def train_step(self, *, cropped: bool) -> Callable[..., Any]:
    """Returns the compiled update; `make_train_step` says of what.

    Args:
      cropped: whether the host crops the images.
    """
    return make_train_step(
      self.model,
      self.tx,
      self.schedule,
      self.config,
      cropped=cropped,
      shardings=self.shardings,
      mesh=self.mesh,
    )

  def eval_step(self) -> Callable[..., Any]:
    """Returns the compiled evaluation of a batch."""
    transform = augment.eval_transform(self.config.pp)
    return evaluate.make_eval_step(self.model, transform, self.mesh)

  def fresh_state(self, weights: str) -> TrainState:
    """Returns the state before step 1, on the devices.

    Args:
      weights: a file of pretrained ones; '' for random ones.

    Raises:
      CheckpointError: the file can't be read or doesn't fit.
    """
    crop = self.config.pp.crop
    if weights:
      published = jax.eval_shape(blocks.unstack_layers, self.target.params)
      params = checkpoints.load_pretrained(
        weights,
        self.model,
        crop,
        shardings=sharding.tree_shardings(self.mesh, published),
      )
      if self.model.scan_layers:
        params = jax.jit(
          blocks.stack_layers, out_shardings=self.shardings.params
        )(params)
    else:
      init_key, _ = run_keys(self.config.seed)
      params = jax.jit(
        lambda key: init_params(self.model, key, crop),
        out_shardings=self.shardings.params,
      )(init_key)
    init = functools.partial(init_state, tx=self.tx)
    return jax.jit(init, out_shardings=self.shardings)(params)


def build(
  config: Any, num_classes: int, mesh: Mesh | AbstractMesh
) -> Experiment:
  """Builds what `config` describes; allocates nothing to speak of.

  Args:
    config: as `configs/common.py` defines it, checked.
    num_classes: width of the head.
    mesh: the devices; an abstract one, to plan for others than are here.

  Raises:
    ConfigError: settings of the model or the optimiser that can't work.
  """
  model = models.create_model(
    config.model,
    num_classes=num_classes,
    dtype=config.dtype,
    attention=config.attention,
    remat=config.remat,
    scan_layers=config.scan_layers,
  )
  schedule = optim.learning_rate_schedule(
    config.base_lr, config.decay_type, config.total_steps, config.warmup_steps
  )
  tx = guard.guard_for(config, optim.make_optimizer(config, schedule))
  shapes = state_shapes(model, tx, config.pp.crop)
  shardings = sharding.tree_shardings(mesh, shapes)
  _, train_key = run_keys(config.seed)
  return Experiment(
    config,
    mesh,
    model,
    schedule,
    tx,
    abstract_state(shapes, shardings),
    shardings,
    _on_all(train_key, mesh),
  )


def _on_all(key: jax.Array, mesh: Mesh | AbstractMesh) -> Any:
  """Returns the key on all devices; of an abstract mesh, its shape."""
  everywhere = sharding.replicated(mesh)
  if isinstance(mesh, AbstractMesh):
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=everywhere)
  # Jitted: of keys, `device_put` reaches this process's devices alone.
  return jax.jit(lambda: key, out_shardings=everywhere)()
