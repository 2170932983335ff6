"""Whether the classes of a head are those of a data set."""

from vit_jax import errors, trained
from vit_jax.class_names import readable
from vit_jax.data import decode, sources

# Widths of heads that are no classes of a data set to evaluate on.
_OF_21K = {21_843: 'ImageNet-21k', 21_841: 'ImageNet-22k'}


def check_classes(opened: trained.Trained, source: sources.Source) -> list[str]:
  """Returns what a user should know of the classes, a sentence each.

  Args:
    opened: the model, which has a head.
    source: the examples.

  Raises:
    ConfigError: the head has another number of classes.
  """
  path, num_classes = opened.found.path, opened.model.num_classes
  if num_classes != source.num_classes:
    what = _OF_21K.get(num_classes)
    text = (
      f'{path}: a head of {num_classes:,} classes'
      + (f', which are those of {what}' if what else '')
      + f', and {source.name} has {source.num_classes:,}. '
    )
    if opened.config is not None and opened.config.get('dataset'):
      text += f'The run was trained on {opened.config.dataset!r}. '
    raise errors.ConfigError(
      text
      + 'Evaluate on a data set with the classes of the head, or fine-tune '
      f'the weights on {source.name} first.'
    )
  remarks = []
  names = opened.class_names or []
  ours = [_comparable(name) for name in names]
  theirs = [_comparable(name) for name in source.class_names]
  if ours and ours != theirs:
    i = next(
      i
      for i, pair in enumerate(zip(ours, theirs, strict=True))
      if pair[0] != pair[1]
    )
    remarks.append(
      f'The classes are called otherwise: class {i} is '
      f'{decode.shown(readable(names[i]))!r} in the weights and '
      f'{decode.shown(source.class_names[i])!r} in {source.name}. If they '
      'are not the same in the same order, the accuracy means nothing.'
    )
  return remarks


def _comparable(name: str) -> str:
  return readable(name).strip().lower()
