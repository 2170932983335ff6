r"""Fine-tunes a Vision Transformer or a hybrid with the paper's settings.

  python -m vit_jax.main --config configs/vit.py:tiny,digits
  python -m vit_jax.main --config configs/vit.py:b16,cifar10 \
    --config.pretrained_dir=DIR_WITH_NPZ_FILES

"""

from ml_collections import ConfigDict

from configs import common
from vit_jax.models import variants


def get_config(model_dataset: str) -> ConfigDict:
  """Returns the config for an argument such as 'b16,cifar10'."""
  model, _, dataset = model_dataset.partition(',')
  config = common.with_dataset(common.get_config(), dataset)
  config.model = variants.model_config(model)
  if (model, dataset) == ('b16', 'cifar10'):
    config.base_lr = 0.01
  return config
