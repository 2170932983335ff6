"""The data set presets: what a data set's name sets besides config.dataset."""

import re
from typing import Any

# How images of VTAB are augmented, by what would change their labels, as Scenic
# does it. It enlarges them to 448 pixels and cuts them to 384 by chance, which
# is a box of 6/7 of each side.
_BOX = {'area_range': (36 / 49, 36 / 49)}
_CROP_FLIP_SQUARE = {
  'augment': 'crop_flip',
  'ratio_range': (1.0, 1.0),
  **_BOX,
}
# Images that are no squares have room for such a box of another shape.
_CROP_FLIP = {'augment': 'crop_flip', **_BOX}
# A mirror image turns a sprite or a camera the other way round, so orientation
# and azimuth would be wrong; a part of the image leaves them as they are.
_CROP_SQUARE = {**_CROP_FLIP_SQUARE, 'augment': 'crop'}
# A part of the image may lack an object or its enlargement bring it nearer:
# counts and distances would be wrong, which a mirror image doesn't change.
_FLIP = {'augment': 'shift_flip', 'shift': {'pad': 0, 'mode': 'constant'}}
# Either would move a sprite, whose place is the label.
_WHOLE = {'augment': 'none'}


def _vtab(
  dataset: str,
  val200: str,
  test: str,
  augment: dict[str, Any],
  label: str = '',
) -> dict[str, Any]:
  """Returns the preset of a task of VTAB-1k.

  800 examples to train on and 200 to choose settings by, which are trained on
  as well in the end, are those of google-research/task_adaptation
  (`train800val200`), as is the test split. Learning rate, steps, batch and
  pixels are of the ViT paper (arXiv 2010.11929, section B.1.1 and table 4),
  which does not tell the warmup; it is that of Scenic's VTAB config for arXiv
  2106.04560, and so is what images are augmented by.

  Args:
    dataset: the tfds name.
    val200: the split of the 200 examples.
    test: the split that is tested on.
    augment: of `config.pp`.
    label: for `config.label`.
  """
  return {
    'dataset': dataset,
    'label': label,
    'base_lr': 0.01,
    'total_steps': 2_500,
    'warmup_steps': 200,
    'batch': 512,
    'eval_every': 500,  # Some test splits are 70 times what is trained on.
    'pp': {
      'train': f'train[:800]+{val200}',
      'test': test,
      'crop': 384,
      **augment,
    },
  }


# Steps and splits of the paper (arXiv 2010.11929, table 4 and section B.1.1)
# and, for the first three, of the original code, which holds some of the
# training split out.
DATASETS: dict[str, dict[str, Any]] = {
  'cifar10': {
    'total_steps': 10_000,
    'pp': {'train': 'train[:98%]', 'test': 'test', 'crop': 384},
  },
  'cifar100': {
    'total_steps': 10_000,
    'pp': {'train': 'train[:98%]', 'test': 'test', 'crop': 384},
  },
  'imagenet2012': {
    'total_steps': 20_000,
    'pp': {'train': 'train[:99%]', 'test': 'validation', 'crop': 384},
  },
  'oxford_iiit_pet': {
    'total_steps': 500,
    'warmup_steps': 100,
    'pp': {'train': 'train', 'test': 'test', 'crop': 384},
  },
  'oxford_flowers102': {
    'total_steps': 500,
    'warmup_steps': 100,
    'pp': {'train': 'train+validation', 'test': 'test', 'crop': 384},
  },
  # Trained from scratch; see vit.py for what it reaches.
  'digits': {
    'pretrained_dir': '',
    'optimizer': 'adamw',
    'optim_dtype': 'float32',
    'base_lr': 2e-3,
    'weight_decay': 0.3,
    'mixup_alpha': 0.2,
    'total_steps': 7_000,
    'warmup_steps': 300,
    'batch': 64,
    'batch_eval': 384,
    'accum_steps': 1,
    'progress_every': 50,
    'eval_every': 500,
    'checkpoint_every': 1_000,
    'best_metric': 'test/accuracy',
    'pp': {
      'train': 'train',
      'test': 'test',
      'crop': 16,
      'augment': 'affine',
      'affine': {'rotate': 15.0, 'scale': 0.2, 'shear': 15.0, 'shift': 0.1},
    },
  },
  # The 19 tasks of VTAB-1k (arXiv 1910.04867): natural,
  'vtab/caltech101': _vtab(
    'caltech101', 'train[2754:2954]', 'test', _CROP_FLIP
  ),
  'vtab/cifar100': _vtab(
    'cifar100', 'train[45000:45200]', 'test', _CROP_FLIP_SQUARE
  ),
  'vtab/dtd': _vtab('dtd', 'validation[:200]', 'test', _CROP_FLIP),
  'vtab/oxford_flowers102': _vtab(
    'oxford_flowers102', 'validation[:200]', 'test', _CROP_FLIP
  ),
  'vtab/oxford_iiit_pet': _vtab(
    'oxford_iiit_pet', 'train[2944:3144]', 'test', _CROP_FLIP
  ),
  'vtab/sun397': _vtab('sun397/tfds', 'validation[:200]', 'test', _CROP_FLIP),
  # A mirrored digit is none of the others, and the published runs have them.
  'vtab/svhn_cropped': _vtab(
    'svhn_cropped', 'train[65931:66131]', 'test', _CROP_FLIP_SQUARE
  ),
  # specialised,
  'vtab/patch_camelyon': _vtab(
    'patch_camelyon', 'validation[:200]', 'test', _CROP_FLIP_SQUARE
  ),
  'vtab/eurosat': _vtab(
    'eurosat/rgb', 'train[16200:16400]', 'train[21600:]', _CROP_FLIP_SQUARE
  ),
  'vtab/resisc45': _vtab(
    'resisc45', 'train[18900:19100]', 'train[25200:]', _CROP_FLIP_SQUARE
  ),
  'vtab/diabetic_retinopathy': _vtab(
    'diabetic_retinopathy_detection/btgraham-300',
    'validation[:200]',
    'test',
    _CROP_FLIP,
  ),
  # and structured. CLEVR's own test split is not annotated.
  'vtab/clevr_count': _vtab(
    'clevr', 'train[63000:63200]', 'validation', _FLIP, 'clevr_count'
  ),
  'vtab/clevr_distance': _vtab(
    'clevr', 'train[63000:63200]', 'validation', _FLIP, 'clevr_distance'
  ),
  'vtab/dmlab': _vtab('dmlab', 'validation[:200]', 'test', _FLIP),
  'vtab/dsprites_location': _vtab(
    'dsprites',
    'train[589824:590024]',
    'train[663552:]',
    _WHOLE,
    'dsprites_location',
  ),
  'vtab/dsprites_orientation': _vtab(
    'dsprites',
    'train[589824:590024]',
    'train[663552:]',
    _CROP_SQUARE,
    'dsprites_orientation',
  ),
  'vtab/kitti_distance': _vtab(
    'kitti', 'validation[:200]', 'test', _FLIP, 'kitti_distance'
  ),
  'vtab/smallnorb_azimuth': _vtab(
    'smallnorb', 'test[:200]', 'test[50%:]', _CROP_SQUARE, 'smallnorb_azimuth'
  ),
  # How high the camera stands is the same in a mirror.
  'vtab/smallnorb_elevation': _vtab(
    'smallnorb',
    'test[:200]',
    'test[50%:]',
    _CROP_FLIP_SQUARE,
    'smallnorb_elevation',
  ),
}

# What has nothing to train on -> the split that is tested on.
EVALUATION_ONLY = {'imagenet2012_real': 'validation', 'imagenet_v2': 'test'}

# Of a path: as of the small sets, for pictures of one's own are few.
FOLDER = {'total_steps': 500, 'warmup_steps': 100}


def splits_of(name: str) -> tuple[str, tuple[str, str], str]:
  """Returns what a name stands for where weights are only looked at.

  Args:
    name: of a preset or a tfds data set, perhaps with a variant or version; or
      a path; or ''.

  Returns:
    The data set, its splits to train and to test on, and its label: those of
    the preset, where there is one. The split to train on is '' where nothing
    is to be trained on.
  """
  first = re.split('[/:]', name)[0]
  if first in EVALUATION_ONLY:
    return name, ('', EVALUATION_ONLY[first]), ''
  preset = DATASETS.get(name) or DATASETS.get(first) or {}
  pp = preset.get('pp', {})
  return (
    preset.get('dataset', name),
    (pp.get('train', 'train'), pp.get('test', 'test')),
    preset.get('label', ''),
  )
