"""What the classes of a model are called, if a user asks or nobody knows."""

import dataclasses

from vit_jax import class_names, trained


def with_names(
  opened: trained.Trained,
  asked: str = '',
  tfds_data_dir: str | None = None,
  tfds_manual_dir: str | None = None,
) -> tuple[trained.Trained, list[str]]:
  """Returns the same with the class names that are asked for, and remarks.

  Args:
    opened: the model.
    asked: as `class_names.of_user` takes it; '' for what comes with it.
    tfds_data_dir: of the data set that `asked` may be.
    tfds_manual_dir: where its archive is, if the user fetched that.

  Returns:
    The model, and sentences on what a user should know of its classes.

  Raises:
    ConfigError, DataError: there are no such names.
  """
  names, num_classes = opened.names, opened.model.num_classes
  remarks = []
  if asked and num_classes is not None:
    names = class_names.of_user(
      asked, num_classes, tfds_data_dir, tfds_manual_dir=tfds_manual_dir
    )
  elif names is None:
    remark = (
      'The names of the classes are not known, only their numbers; --labels '
      'FILE gives names.'
    )
    if num_classes == len(class_names.wnids()):
      remark += ' If they are those of ImageNet: --labels imagenet'
    remarks.append(remark)
  elif names.is_guess:
    remarks.append(
      f'The classes are named as those of {names.source}, as these look like '
      'published weights; --labels FILE gives other names.'
    )
  return dataclasses.replace(
    opened, names=names, class_names=names.names if names else None
  ), remarks
