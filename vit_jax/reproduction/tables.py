"""The tables as data: the paper's, and its stand-in of minute models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How long is trained.

  Attributes:
    overrides: of the config; none leaves what the data set's preset says.
    datasets: those that it is for, () for all.
  """

  overrides: Mapping[str, int]
  datasets: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
  """All cells that can be selected.

  Attributes:
    name: also that of the files with the results.
    title: heading of those.
    models: what the config calls a model -> what is overridden of its fields.
    prefix: of the models' names in this table.
    datasets: as the config calls them.
    dropouts: rates.
    schedules: by name; the first is what is selected by default.
    is_published: whether the cells are those that figures are published of.
  """

  name: str
  title: str
  models: Mapping[str, Mapping[str, Any]]
  datasets: tuple[str, ...]
  dropouts: tuple[float, ...]
  schedules: Mapping[str, Schedule]
  prefix: str = ''
  is_published: bool = False


PAPER = Table(
  name='table',
  title='Fine-tuning from ImageNet-21k, beside the published figures',
  models={name: {} for name in ('r50_b16', 'b16', 'b32', 'l16', 'l32')},
  datasets=('cifar10', 'cifar100', 'imagenet2012'),
  dropouts=(0.0, 0.1),
  schedules={
    'paper': Schedule({}),
    '500': Schedule(
      {'total_steps': 500, 'warmup_steps': 50}, ('cifar10', 'cifar100')
    ),
    '1000': Schedule(
      {'total_steps': 1_000, 'warmup_steps': 100}, ('cifar10', 'cifar100')
    ),
  },
  is_published=True,
)


def _mini(patch: int, width: int, layers: int, **others: Any) -> dict[str, Any]:
  return {
    'model.patches.size': (patch, patch),
    'model.hidden_size': width,
    'model.transformer.mlp_dim': 2 * width,
    'model.transformer.num_heads': 4,
    'model.transformer.num_layers': layers,
    # Without augmentation a few epochs are enough to tell it from chance.
    'base_lr': 3e-3,
    'mixup_alpha': 0.0,
    'pp.augment': 'none',
    'best_metric': '',
    **others,
  }


# The same shape on what every machine has. Images are 16 pixels wide: 16 tokens
# for what is 16 pixels to a token there, 4 for 32, and more width and depth for
# L than for B. A stem without stages divides by 4.
STAND_IN = Table(
  name='stand_in',
  title="Stand-in: minute models from scratch on scikit-learn's digits",
  models={
    'r50_b16': _mini(1, 32, 2, **{'model.resnet.num_layers': (1,)}),
    'b16': _mini(4, 32, 2),
    'b32': _mini(8, 32, 2),
    'l16': _mini(4, 48, 3),
    'l32': _mini(8, 48, 3),
  },
  datasets=('digits', 'digits/0_to_4', 'digits/5_to_9'),
  dropouts=(0.0, 0.1),
  schedules={
    name: Schedule(
      {
        'total_steps': steps,
        'warmup_steps': steps // 10,
        'eval_every': steps,
        'checkpoint_every': 50,
      }
    )
    for name, steps in (('full', 200), ('50', 50), ('100', 100))
  },
  prefix='mini-',
)
