r"""Fine-tunes an MLP-Mixer with the original's settings.

  python -m vit_jax.main --config configs/mixer.py:b16,cifar10

Hardware, time and accuracy, all published, none measured here: the original
code on four V100 GPUs, cifar10 at 224 pixels, by where the weights come from:

               imagenet21k        imagenet1k
  b16          96.82 %   9.6 h    96.72 %  3.0 h
  l16          98.34 %  10.0 h    96.59 %  3.0 h

A Mixer keeps the image size that it was pretrained with: its weights mix a
fixed number of patches. So `config.pp.crop` is 224, unless weights are trained
from scratch:

  python -m vit_jax.main --config configs/mixer.py:s16,digits \
    --config.model.patches.size='(4, 4)'
"""

from ml_collections import ConfigDict

from configs import common
from vit_jax import errors
from vit_jax.models import variants

# Here without the prefix that tells them from the ViTs: 'b16'.
_MODELS = {
  short.removeprefix('mixer_'): name
  for short, name in variants.SHORT_NAMES.items()
  if short.startswith('mixer_')
}
# Only these two were published for ImageNet-21k (and in imagenet1k); the others
# for ImageNet alone, with sharpness-aware minimisation: all of them and B/16 in
# gsam, B/16 and B/32 in sam as well.
_IMAGENET21K = ('Mixer-B_16', 'Mixer-L_16')


def get_config(model_dataset: str = '') -> ConfigDict:
  """Returns the config for an argument such as 'b16,cifar10'."""
  model, _, dataset = model_dataset.partition(',')
  if not model or not dataset:
    raise errors.ConfigError(
      f'configs/mixer.py:{model_dataset} lacks a model or a data set. Expected '
      'configs/mixer.py:MODEL,DATASET, such as configs/mixer.py:b16,cifar10. '
      f'Models: {", ".join(_MODELS)}. '
      f'Data sets: {", ".join(common.DATASETS)}, or the path of a folder of '
      'images.'
    )
  config = common.get_config()
  name, _ = common.call_all(
    lambda: _name_in_full(model),
    # To know that it is there: what it presets goes before the upstream.
    lambda: common.with_dataset(common.get_config(), dataset),
  )
  upstream = 'imagenet21k' if name in _IMAGENET21K else 'gsam'
  config.pretrained_dir = f'gs://mixer_models/{upstream}'
  config = common.with_dataset(config, dataset)
  # The presets have the ViT's 384 pixels, or the data's own few.
  config.pp.crop = min(config.pp.crop, 224)
  config.model = variants.model_config(name)
  return config


def _name_in_full(model: str) -> str:
  name = _MODELS.get(model, model)
  if name not in _MODELS.values():
    valid = [*_MODELS, *_MODELS.values()]
    raise errors.ConfigError(errors.unknown_name('Mixer', model, valid))
  return name
