r"""Fine-tunes a Vision Transformer or a hybrid with the paper's settings.

  python -m vit_jax.main --config configs/vit.py:b16,cifar10

Hardware, time and accuracy, all published, none measured here: the original
code on eight V100 GPUs, from weights pretrained on ImageNet-21k, two runs each
(the original's README of November 2020):

               cifar10               cifar100              imagenet2012
  b16          98.92, 99.03 %  7 h   92.26, 92.64 %  7 h   84.62, 84.61 %  18 h
  b32          98.93, 98.89 %  2 h   92.08, 91.96 %  2 h   81.79, 81.79 %   4 h
  l16          99.07, 99.10 % 25 h   93.04, 93.00 % 25 h   85.07, 85.05 %  59 h
  l32          99.03, 99.09 %  6 h   93.02, 93.06 %  7 h   81.78, 82.01 %  14 h

For oxford_iiit_pet and oxford_flowers102 the original code published none.

On images of your own, with a folder for each class:

  python -m vit_jax.main --config configs/vit.py:b16,/path/to/images

From scratch:

  python -m vit_jax.main --config configs/vit.py:tiny,digits

Measured, on two cores of a shared AMD EPYC: 97.8, 97.5 and
98.1 % (seeds 0, 1, 2) in 193, 220 and 181 s, compilation included.
"""

from ml_collections import ConfigDict

from configs import common
from vit_jax import errors
from vit_jax.models import variants

_MODELS = [
  name for name in variants.SHORT_NAMES if 'mixer' not in name and name != 'cnn'
]


def get_config(model_dataset: str = '') -> ConfigDict:
  """Returns the config for an argument such as 'b16,cifar10'."""
  model, _, dataset = model_dataset.partition(',')
  if not model or not dataset:
    raise errors.ConfigError(
      f'configs/vit.py:{model_dataset} lacks a model or a data set. Expected '
      'configs/vit.py:MODEL,DATASET, such as configs/vit.py:b16,cifar10. '
      f'Models: {", ".join(_MODELS)}. '
      f'Data sets: {", ".join(common.DATASETS)}, or the path of a folder of '
      'images.'
    )
  model_config, config = common.call_all(
    lambda: _model_config(model),
    lambda: common.with_dataset(common.get_config(), dataset),
  )
  config.model = model_config
  if (model, dataset) == ('b16', 'cifar10'):
    config.base_lr = 0.01
  return config


def _model_config(model: str) -> ConfigDict:
  if model.lower().startswith('mixer'):
    raise errors.ConfigError(
      f'{model} is a Mixer, which has a config of its own, such as '
      'configs/mixer.py:b16,cifar10.'
    )
  if model == 'cnn':
    raise errors.ConfigError(
      f'{model} is no Vision Transformer, and has a config of its own, such as '
      'configs/spatial_transformer.py:digits,plain.'
    )
  return variants.model_config(model)
