"""Which checkpoints of a run are kept: the newest ones and the best."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from orbax.checkpoint import checkpoint_managers as policies


@dataclasses.dataclass
class Retention:
  """Tells Orbax what to keep, and is told itself which is the best.

  Orbax's own policy for the best forgets the metrics when a run is continued.

  Attributes:
    num_newest: how many of the newest are kept.
    with_best: whether the best is, too.
    best_step: its step, as a `Standing` has it; None while there is none.
  """

  num_newest: int
  with_best: bool
  best_step: int | None = None

  @property
  def num_kept(self) -> int:
    """How many there are at most."""
    return self.num_newest + self.with_best

  def policy(self) -> policies.PreservationPolicy:
    """Returns it as Orbax takes it."""
    keepers: list[Any] = [policies.LatestN(self.num_newest)]
    if self.with_best:
      keepers.append(self)
    return policies.AnyPreservationPolicy(keepers)

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: Any
  ) -> Sequence[bool]:
    """Returns which of them is the best; Orbax asks."""
    del context
    return [checkpoint.step == self.best_step for checkpoint in checkpoints]
