"""Which class of an image is asked about: one that the model has."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import errors
from vit_jax.attention.maps import check_index

# One for all images, one for each, or the predicted one of each.
Classes = int | jax.Array | np.ndarray | None


def checked_classes(
  model: Any, num_images: int, classes: Classes
) -> jax.Array | None:
  """Returns one class index for each image, from the front.

  Args:
    model: the module.
    num_images: of the batch.
    classes: one index for all images or [num_images] of them; negative ones
      count from the end. None is what the model predicts.

  Returns:
    int32 [num_images], or None for None.

  Raises:
    ConfigError: the model puts out no logits of images, or there is no such
      class.
  """
  classifier = getattr(model, 'classifier', None)  # A Mixer has none.
  if model.num_classes is None or 'unpooled' in (classifier or ''):
    raise errors.ConfigError(
      'A class can be asked about only where each image has one row of logits. '
      f'This model has num_classes={model.num_classes} and classifier='
      f'{classifier!r}: use one with a head that pools, or a plain rollout.'
    )
  if classes is None:
    return None
  found = np.asarray(classes)
  if found.shape not in ((), (num_images,)) or found.dtype.kind not in 'iu':
    raise errors.ConfigError(
      f'classes {classes!r} are neither one index, nor {num_images} of them, '
      'one for each image.'
    )
  for index in np.unique(found):
    check_index('class', int(index), model.num_classes)
  found = (found % model.num_classes).astype(np.int32)
  return jnp.broadcast_to(found, num_images)
