"""What a probe is asked for, and what comes of it."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vit_jax import trained
from vit_jax.data import sources
from vit_jax.probe import ridge


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is computed of the features.

  Attributes:
    shots: examples of each class to fit on, 0 for all that there are.
    num_seeds: draws of these examples, by the seeds from 0.
    neighbours: numbers of nearest neighbours that vote.
    l2: strength of the regularisation that is not chosen.
    temperature: of weighted votes.
    layer: see `features.make_apply`.
    with_pixels: whether the same is computed of the images themselves.
  """

  shots: Sequence[int] = (5, 10, 25, 0)
  num_seeds: int = 3
  neighbours: Sequence[int] = (1, 3, 5, 20)
  l2: float = ridge.L2
  temperature: float = 0.07
  layer: str = ''
  with_pixels: bool = False


@dataclasses.dataclass(frozen=True)
class Score:
  """How accurate a probe is.

  Attributes:
    method: 'ridge' or 'neighbours'.
    number: of shots, 0 for all examples; or of neighbours.
    variant: of ridge whose l2 it is, 'fixed' or 'leave-one-out'; of neighbours
      the votes, 'majority' or 'weighted'.
    accuracies: shares in [0, 1], one a seed, one in all where none is drawn.
    l2s: as many strengths; () of neighbours.
  """

  method: str
  number: int
  variant: str
  accuracies: tuple[float, ...]
  l2s: tuple[float, ...] = ()

  @property
  def mean(self) -> float:
    return float(np.mean(self.accuracies))

  @property
  def deviation(self) -> float | None:
    """Returns the standard deviation over seeds, None of fewer than two."""
    if len(self.accuracies) < 2:
      return None
    return float(np.std(self.accuracies, ddof=1))


@dataclasses.dataclass(frozen=True, eq=False)
class Probe:
  """What came of it.

  Attributes:
    opened: the model.
    settings: what was asked for.
    train: the examples that are fitted and looked for neighbours in.
    test: the examples of which the accuracies are.
    image_size: side in pixels.
    num_features: of each kind.
    num_examples: (training, test) that could be read.
    scores: of each kind, 'features' and perhaps 'pixels', in the same order.
    remarks: what else a user should know, a sentence each.
  """

  opened: trained.Trained
  settings: Settings
  train: sources.Source
  test: sources.Source
  image_size: int
  num_features: dict[str, int]
  num_examples: tuple[int, int]
  scores: dict[str, list[Score]]
  remarks: tuple[str, ...]
