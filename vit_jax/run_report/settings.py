"""What a report is asked for."""

import dataclasses

from vit_jax import command_line, errors


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is evaluated, and how much of it is shown.

  Attributes:
    split: of the data set, or the name of one of the run's `eval_sets`; None
      for its `pp.test`.
    dataset: to look at instead of the run's own, with the same classes; or
      where that has moved to.
    tfds_data_dir: where tfds keeps it, if not where the run had it.
    tfds_manual_dir: where its archives are that tfds can't fetch, likewise.
    num_images: misclassified images to show, of each run.
    method: of the overlays, a key of `METHODS`.
    batch: images at a time; None for the run's `batch_eval`.
    num_bins: of the calibration, equally wide.

  Raises:
    ConfigError: a number that can't be.
  """

  split: str | None = None
  dataset: str | None = None
  tfds_data_dir: str | None = None
  tfds_manual_dir: str | None = None
  num_images: int = 24
  method: str = 'relevance'
  batch: int | None = None
  num_bins: int = 15

  def __post_init__(self):
    limits = {'num_images': (0, 500), 'num_bins': (1, 100)}
    if self.batch is not None:
      limits['batch'] = (1, 1_000_000)
    for name, (low, high) in limits.items():
      value = getattr(self, name)
      if not low <= value <= high:
        raise errors.ConfigError(
          f'{name} is {value}, expected a number from {low} to {high:,}.'
        )

  @property
  def names_data(self) -> bool:
    """Whether other examples are asked for than those of the run itself."""
    return any(
      (self.split, self.dataset, self.tfds_data_dir, self.tfds_manual_dir)
    )


def as_options(error: errors.UserError) -> str:
  """Returns what an error says, with options of a report where it has flags."""
  names = [field.name for field in dataclasses.fields(Settings)]
  return command_line.as_options(str(error), names)
