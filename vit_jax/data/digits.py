"""The digits data set: 1,797 real 8x8 scans that come with scikit-learn."""

import dataclasses
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import scipy.ndimage
import tensorflow_datasets as tfds

# The scans are ordered by writer, so the rest is by other hands than these:
# harder than a random split, and closer to what a new user would write.
NUM_TRAIN = 1437
# Of 'distorted', in pixels and degrees: the side of the canvas, that of a scan
# before it is scaled, and what a scan is turned and scaled by.
CANVAS = 32
SCAN = 20
MAX_ANGLE = 60.0
SCALES = (0.5, 1.2)


@dataclasses.dataclass(eq=False)
class DigitsConfig(tfds.core.BuilderConfig):
  """Which of the ten digits are the classes, in the order of the labels.

  And whether each scan lies somewhere on a canvas, turned and scaled.
  """

  digits: tuple[int, ...] = tuple(range(10))
  is_distorted: bool = False


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
    DigitsConfig(
      name='distorted',
      description=(
        'All ten digits, each scan turned by up to 60 degrees, scaled by 0.5 '
        'to 1.2 and shifted on a canvas of 32x32 pixels.'
      ),
      is_distorted=True,
    ),
  ]

  @property
  def _is_distorted(self) -> bool:
    config: Any = self.builder_config
    return config.is_distorted

  @property
  def _digits(self) -> tuple[int, ...]:
    config: Any = self.builder_config
    return config.digits

  def _info(self) -> tfds.core.DatasetInfo:
    names = [str(digit) for digit in self._digits]
    side = CANVAS if self._is_distorted else 8
    return tfds.core.DatasetInfo(
      builder=self,
      description=(
        'Optical recognition of handwritten digits, the test part: 1,797 scans '
        'reduced to 8x8 pixels, as embedded in scikit-learn.'
      ),
      features=tfds.features.FeaturesDict(
        {
          'image': tfds.features.Image(
            shape=(side, side, 1), encoding_format='png'
          ),
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
        scan = images[index]
        if self._is_distorted:
          scan = distort(scan, distortion(index))
        image = PIL.Image.fromarray(scan)
        yield index, {'image': image, 'label': labels[targets[index]]}

  # Two lines on stdout for a data set of 200 kB would only be noise.
  def _log_download_bytes(self):
    pass

  def _log_download_done(self):
    pass


@dataclasses.dataclass(frozen=True)
class Distortion:
  """How a scan lies on its canvas.

  Attributes:
    angle: in degrees, anticlockwise.
    scale: factor of the scan's side, which is `SCAN` pixels at 1.
    shift: (down, right) from the middle, in pixels.
  """

  angle: float
  scale: float
  shift: tuple[float, float]


def distortion(index: int, seed: int = 0) -> Distortion:
  """Returns how the scan of that number lies, a function of both arguments.

  Angles are even within `MAX_ANGLE` either way and scales on a logarithmic axis
  within `SCALES`. Shifts are as large as the canvas has room for the scan
  as if it were upright; corners beyond that, of scans that are turned, are
  empty anyway.

  Args:
    index: in the order of `load_digits`.
    seed: of another set of distortions.
  """
  # `random` alone, as it gives the same numbers in every version of numpy.
  turned, scaled, *shifted = np.random.default_rng([seed, index]).random(4)
  low, high = SCALES
  scale = float(low * (high / low) ** scaled)
  room = (CANVAS - SCAN * scale) / 2
  down, right = (float(room * (2 * share - 1)) for share in shifted)
  return Distortion(float(MAX_ANGLE * (2 * turned - 1)), scale, (down, right))


def distort(scan: np.ndarray, how: Distortion) -> np.ndarray:
  """Returns the scan on its canvas, black around it.

  Args:
    scan: uint8 [rows, columns], square.
    how: it lies.

  Returns:
    uint8 [CANVAS, CANVAS], sampled bilinearly.
  """
  angle = np.deg2rad(how.angle)
  # From (row, column) of the canvas to that of the scan, about the middles of
  # both; a row's axis points downwards.
  turn = np.array(
    [[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]
  )
  matrix = turn * (len(scan) / (SCAN * how.scale))
  middle = (CANVAS - 1) / 2 + np.array(how.shift)
  found = scipy.ndimage.affine_transform(
    scan.astype(np.float64),
    matrix,
    offset=(len(scan) - 1) / 2 - matrix @ middle,
    output_shape=(CANVAS, CANVAS),
    order=1,
    mode='grid-constant',
  )
  return np.rint(found).astype(np.uint8)
