r"""Fine-tunes from an AugReg checkpoint (Steiner et al., arXiv 2106.10270).

  python -m vit_jax.main --config configs/augreg.py:R_Ti_16 \
    --config.dataset=oxford_iiit_pet --config.base_lr=0.01
  python -m vit_jax.main --config configs/augreg.py:R_Ti_16,/path/to/images

The model's best file by upstream accuracy is picked from `index.csv`, which is
fetched as the weights are; where it can't be had, the table of published files
names it. A file's name, without `.npz`, in place of the model's picks that one.

Neither time nor accuracy was measured here. The paper's are for other data sets
(its table 4, and the columns `adapt_*` of `index.csv`).
"""

from ml_collections import ConfigDict

from configs import common
from vit_jax import errors
from vit_jax.models import variants

# 'R_Ti_16' -> 'R+ViT-Ti_16': the files' names have no '+' and no 'ViT-'.
_MODELS = {
  name.replace('ViT-', '').replace('+', '_'): name
  for name in (
    'ViT-Ti_16',
    'ViT-S_32',
    'ViT-S_16',
    'ViT-B_32',
    'ViT-B_16',
    'ViT-B_8',
    'ViT-L_16',
    'R+ViT-Ti_16',
    'R26+ViT-S_32',
    'R26+ViT-B_32',
    'R50+ViT-L_32',
  )
}


def get_config(model_or_filename: str = '') -> ConfigDict:
  """Returns the config for an argument such as 'R_Ti_16' or 'R_Ti_16,PATH'."""
  model_or_filename, _, dataset = model_or_filename.partition(',')
  model = model_or_filename.split('-')[0]
  if model not in _MODELS:
    raise errors.ConfigError(
      errors.unknown_name('AugReg model', model, _MODELS)
    )
  config = common.get_config()
  config.model = variants.model_config(_MODELS[model])
  # The weights were made with dropout where it helps; fine-tuning needs none.
  config.model.transformer.dropout_rate = 0.0
  config.model_or_filename = model_or_filename
  config.pretrained_dir = 'gs://vit_models/augreg'
  config.total_steps = 500
  config.warmup_steps = 100
  config.base_lr = 0.03
  # Else set it on the command line: --config.dataset=NAME.
  config.dataset = dataset
  return config
