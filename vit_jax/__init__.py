"""Vision Transformers in JAX and Flax that load Google's checkpoints.

    model = vit_jax.create_model('ViT-B_16', num_classes=10)
    params = vit_jax.load_pretrained('ViT-B_16.npz', model, image_size=384)
    logits = model.apply({'params': params}, images, train=False)

Importing the package imports neither JAX nor Flax: names load on first use.
"""

import importlib

__version__ = '0.1.0'

# Public name -> the module that has it.
_PUBLIC = {
  'create_model': 'vit_jax.models',
  'model_config': 'vit_jax.models.variants',
  'load_params': 'vit_jax.checkpoints',
  'save_params': 'vit_jax.checkpoints',
  'load_pretrained': 'vit_jax.checkpoints',
}
_MODULES = ('attention', 'checkpoints', 'data', 'errors', 'models')

__all__ = ['__version__', *_PUBLIC, *_MODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str):
  if name in _PUBLIC:
    return getattr(importlib.import_module(_PUBLIC[name]), name)
  if name in _MODULES:
    return importlib.import_module(f'vit_jax.{name}')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__():
  return sorted(__all__)
