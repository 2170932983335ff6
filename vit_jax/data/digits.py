"""The digits data set: 1,797 real 8x8 scans that come with scikit-learn."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

# The scans are ordered by writer, so the rest is by other hands than these:
# harder than a random split, and closer to what a new user would write.
NUM_TRAIN = 1437


@dataclasses.dataclass(eq=False)
class DigitsConfig(tfds.core.BuilderConfig):
  """Which of the ten digits are the classes, in the order of the labels."""

  digits: tuple[int, ...] = tuple(range(10))


class Digits(tfds.core.GeneratorBasedBuilder):
  """Handwritten digits, generated from scikit-learn's own copy, no network.

  Pixels of 0..16 are scaled by 255/16 and rounded to uint8 0..255. `train` is
  the first 1,437 scans in the order of `load_digits`, `test` the last 360.
  """

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES: ClassVar = {'1.0.0': 'First release.'}
  BUILDER_CONFIGS: ClassVar = [
    DigitsConfig(name='all', description='All ten digits.'),
    DigitsConfig(
      name='0_to_4', description='Digits 0 to 4.', digits=(0, 1, 2, 3, 4)
    ),
    DigitsConfig(
      name='5_to_9',
      description='Digits 5 to 9, as labels 0 to 4.',
      digits=(5, 6, 7, 8, 9),
    ),
  ]

  @property
  def _digits(self) -> tuple[int, ...]:
    config: Any = self.builder_config
    return config.digits

  def _info(self) -> tfds.core.DatasetInfo:
    names = [str(digit) for digit in self._digits]
    return tfds.core.DatasetInfo(
      builder=self,
      description=(
        'Optical recognition of handwritten digits, the test part: 1,797 scans '
        'reduced to 8x8 pixels, as embedded in scikit-learn.'
      ),
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(shape=(8, 8, 1), encoding_format='png'),
          'label': tfds.features.ClassLabel(names=names),
        }
      ),
      supervised_keys=('image', 'label'),
      homepage='https://doi.org/10.24432/C50P49',
      citation=(
        '@misc{alpaydin1998optical, title={Optical Recognition of Handwritten '
        'Digits}, author={Alpaydin, E. and Kaynak, C.}, year={1998}, '
        'publisher={UCI Machine Learning Repository}}'
      ),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    from sklearn import datasets  # A second to import, so only when preparing.

    pixels, targets = datasets.load_digits(return_X_y=True)
    images = np.rint(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return {
      'train': self._generate_examples(images, targets, 0, NUM_TRAIN),
      'test': self._generate_examples(images, targets, NUM_TRAIN, len(images)),
    }

  def _generate_examples(self, images, targets, start, stop):
    labels = {digit: label for label, digit in enumerate(self._digits)}
    for index in range(start, stop):
      if targets[index] in labels:
        # A PIL image, because tfds would encode an array by TensorFlow.
        image = PIL.Image.fromarray(images[index])
        yield index, {'image': image, 'label': labels[targets[index]]}

  # Two lines on stdout for a data set of 200 kB would only be noise.
  def _log_download_bytes(self):
    pass

  def _log_download_done(self):
    pass
