"""The augmentations of the AugReg study, by their names."""

from typing import Any, NamedTuple

from vit_jax import errors


class Preset(NamedTuple):
  """How much is mixed, and RandAugment's layers and magnitude."""

  mixup_alpha: float
  num_layers: int
  magnitude: float


# Steiner et al. 2021, "How to train your ViT?" (arXiv 2106.10270), section 3.3;
# the same in big_vision's configs/vit_i1k.py. Crops and flips are in all.
PRESETS = {
  'none': Preset(0.0, 0, 0),
  'light1': Preset(0.0, 2, 0),  # Not nothing: see `rand_augment`.
  'light2': Preset(0.2, 2, 10),
  'medium1': Preset(0.2, 2, 15),
  'medium2': Preset(0.5, 2, 15),
  'strong1': Preset(0.5, 2, 20),
  'strong2': Preset(0.8, 2, 20),
}


def find_preset(pp: Any) -> Preset | None:
  """Returns the preset that `config.pp` names, None for ''.

  Raises:
    ConfigError: an unknown name.
  """
  name = pp.get('preset', '')
  if name and name not in PRESETS:
    raise errors.ConfigError(
      errors.unknown_name('config.pp.preset', name, PRESETS)
    )
  return PRESETS[name] if name else None


def mixup_alpha(config: Any) -> float:
  """Returns the alpha of mixup: the preset's, else `config.mixup_alpha`."""
  preset = find_preset(config.pp)
  return config.mixup_alpha if preset is None else preset.mixup_alpha
