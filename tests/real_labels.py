"""A data set like imagenet2012_real, of small noise with digits' classes."""

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

NUM_IMAGES = 29
# As in ReaL, some images have no label and some have many.
LABELS = [
  np.random.default_rng(index).permutation(10)[: index % 4 * 2].tolist()
  for index in range(NUM_IMAGES)
]


def make_image(index, side):
  rng = np.random.default_rng(100 + index)
  return rng.integers(0, 256, (side, side, 3), np.uint8)


class _Real(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """The features of imagenet2012_real, of the classes of digits."""

  VERSION = tfds.core.Version('1.0.0')
  SIDE = 8
  SHAPE = (8, 8, 3)

  def _info(self):
    names = [str(digit) for digit in range(10)]
    several = tfds.features.Sequence(tfds.features.ClassLabel(names=names))
    features = {
      'image': tfds.features.Image(shape=self.SHAPE),
      'original_label': tfds.features.ClassLabel(names=names),
      'real_label': several,
      'file_name': tfds.features.Text(),
    }
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {'validation': self._generate_examples()}

  def _generate_examples(self):
    for index in range(NUM_IMAGES):
      yield (
        index,
        {
          'image': PIL.Image.fromarray(make_image(index, self.SIDE)),
          'original_label': index % 10,
          'real_label': LABELS[index],
          'file_name': f'{index}.png',
        },
      )


class RealSmall(_Real, skip_registration=True):
  """Kept in memory."""


class RealLarge(_Real, skip_registration=True):
  """Left encoded."""

  SIDE = 70
  SHAPE = (None, None, 3)
