"""Where each published weight file is: in Google's storage, on Hugging Face.

What the files are called was read in the original's README, its notebooks and
the issues named below, in big_vision's `models/vit.py`, and in the configs of
timm 1.0.31, whose conversions hold a `model.safetensors` each. Nobody publishes
SHA-256 sums of the `.npz` files; what Hugging Face serves is checked against
the sum that it states.
"""

import dataclasses
import re

from vit_jax import errors

# Where a name that says no more is looked for: both upstreams are ImageNet-21k.
DEFAULT_UPSTREAMS = ('imagenet21k', 'augreg')
# The buckets' folders have the upstreams' names.
_FOLDER = re.compile(
  r'(?:gs://|https?://storage\.googleapis\.com/)'
  r'(?:vit_models|mixer_models)/([^/]+)/?'
)
_AUGREG_FILE = re.compile(r'-i(?:1k|21k|21k_30)-')


@dataclasses.dataclass(frozen=True)
class Weights:
  """One set of weights and where it lies; the places hold equal numbers."""

  file: str  # 'vit_models/imagenet21k/ViT-B_16.npz', or '' for no file.
  repo: str = ''  # 'timm/vit_base_patch16_224.orig_in21k', or ''.

  @property
  def places(self) -> list[str]:
    """Their addresses, in the order in which they are tried."""
    bucket = [f'gs://{self.file}'] if self.file else []
    return bucket + ([f'hf://{self.repo}'] if self.repo else [])


# Upstream -> name -> repository of `timm` with the same weights, or ''. A '.'
# begins the tag that all of an upstream's repositories share. The file is
# gs://vit_models/UPSTREAM/NAME.npz, and Mixer's is in gs://mixer_models.
_TABLE = {
  # timm's conversions have no head ("classifier not valid" in its configs).
  'imagenet21k': {
    'ViT-B_16': 'vit_base_patch16_224.orig_in21k',
    'ViT-B_32': 'vit_base_patch32_224.orig_in21k',
    'ViT-L_16': 'vit_large_patch16_224.orig_in21k',
    'ViT-L_32': 'vit_large_patch32_224.orig_in21k',
    'ViT-H_14': 'vit_huge_patch14_224.orig_in21k',
    'R50+ViT-B_16': 'vit_base_r50_s16_224.orig_in21k',
    'Mixer-B_16': 'mixer_b16_224.goog_in21k',
    'Mixer-L_16': 'mixer_l16_224.goog_in21k',
  },
  # For 384x384 images where the name doesn't end in '-224'.
  'imagenet21k+imagenet2012': {
    'ViT-B_16': 'vit_base_patch16_384.orig_in21k_ft_in1k',
    'ViT-B_16-224': 'vit_base_patch16_224.orig_in21k_ft_in1k',
    'ViT-B_32': '',
    'ViT-L_16': '',
    'ViT-L_16-224': '',
    'ViT-L_32': 'vit_large_patch32_384.orig_in21k_ft_in1k',
    'R50+ViT-B_16': 'vit_base_r50_s16_384.orig_in21k_ft_in1k',
    'Mixer-B_16': 'mixer_b16_224.goog_in21k_ft_in1k',
    'Mixer-L_16': 'mixer_l16_224.goog_in21k_ft_in1k',
  },
  'imagenet1k': {'Mixer-B_16': '', 'Mixer-L_16': ''},
  'sam': {
    'ViT-S_16': '',
    'ViT-B_16': 'vit_base_patch16_224.sam_in1k',
    'ViT-B_32': 'vit_base_patch32_224.sam_in1k',
    'ViT-L_16': '',
    'ViT-L_32': '',
    'Mixer-B_16': '',
    'Mixer-B_32': '',
  },
  # The ViTs have no class token (the original's issue 223): they fit the models
  # 'ViT-B_16-gap-norep' and the like (its pull request 215).
  'gsam': {
    'ViT-S_16': '',
    'ViT-S_32': '',
    'ViT-B_16': '',
    'ViT-B_32': '',
    'Mixer-S_8': '',
    'Mixer-S_16': '',
    'Mixer-S_32': '',
    'Mixer-B_16': '',
    'Mixer-B_32': '',
  },
  # ViT-S/16 of arXiv 2205.01580 by epochs, as big_vision writes its files.
  'big_vision': {
    'vit_s16_i1k_90ep': '',
    'vit_s16_i1k_150ep': '',
    'vit_s16_i1k_300ep': '',
  },
}
# AugReg's models by recipe: augmentation, weight decay, dropout (and stochastic
# depth, at the same rate). What timm converted, into which repository, and the
# recipe with the best accuracy on the validation set of ImageNet-21k where that
# is another: the one that the original's README recommends (B_8: big_vision).
# The notebook's list of the models has no `R26_B_32`.
_AUGREG = {
  'Ti_16': ('none 0.03 0.0', 'vit_tiny_patch16_224', ''),
  'S_32': ('light1 0.03 0.0', 'vit_small_patch32_224', 'none 0.1 0.0'),
  'S_16': ('light1 0.03 0.0', 'vit_small_patch16_224', ''),
  'B_32': ('medium1 0.03 0.0', 'vit_base_patch32_224', 'light1 0.1 0.0'),
  'B_16': ('medium1 0.1 0.0', 'vit_base_patch16_224', ''),
  'B_8': ('medium1 0.1 0.0', 'vit_base_patch8_224', 'medium2 0.1 0.0'),
  'L_16': ('medium1 0.1 0.1', 'vit_large_patch16_224', 'strong1 0.1 0.0'),
  'R_Ti_16': ('none 0.03 0.0', 'vit_tiny_r_s16_p8_224', ''),
  'R26_S_32': ('medium2 0.03 0.0', 'vit_small_r26_s32_224', 'light1 0.1 0.0'),
  'R50_L_32': ('medium2 0.1 0.0', 'vit_large_r50_s32_224', 'medium1 0.1 0.1'),
}
# The same, fine-tuned on ImageNet: what it began from, the learning rate, the
# repository, whose size in pixels is the file's.
_AUGREG_TUNED = {
  'Ti_16': ('none 0.03 0.0', '0.03', 'vit_tiny_patch16_384'),
  'Ti_16-224': ('none 0.03 0.0', '0.03', 'vit_tiny_patch16_224'),
  'S_32': ('light1 0.03 0.0', '0.03', 'vit_small_patch32_384'),
  'S_32-224': ('light1 0.03 0.0', '0.03', 'vit_small_patch32_224'),
  'S_16': ('light1 0.03 0.0', '0.03', 'vit_small_patch16_384'),
  'S_16-224': ('light1 0.03 0.0', '0.03', 'vit_small_patch16_224'),
  'B_32': ('light1 0.1 0.0', '0.03', 'vit_base_patch32_384'),
  'B_32-224': ('medium1 0.03 0.0', '0.03', 'vit_base_patch32_224'),
  'B_16': ('medium1 0.1 0.0', '0.01', 'vit_base_patch16_384'),
  'B_16-224': ('medium1 0.1 0.0', '0.01', 'vit_base_patch16_224'),
  'B_8-224': ('medium1 0.1 0.0', '0.01', 'vit_base_patch8_224'),
  'L_16': ('medium1 0.1 0.1', '0.01', 'vit_large_patch16_384'),
  'L_16-224': ('medium1 0.1 0.1', '0.01', 'vit_large_patch16_224'),
  'R_Ti_16': ('none 0.03 0.0', '0.03', 'vit_tiny_r_s16_p8_384'),
  'R_Ti_16-224': ('none 0.03 0.0', '0.03', 'vit_tiny_r_s16_p8_224'),
  'R26_S_32': ('medium2 0.03 0.0', '0.03', 'vit_small_r26_s32_384'),
  'R26_S_32-224': ('light0 0.03 0.1', '0.03', 'vit_small_r26_s32_224'),
  'R50_L_32': ('medium2 0.1 0.0', '0.01', 'vit_large_r50_s32_384'),
  'R50_L_32-224': ('medium1 0.1 0.1', '0.01', 'vit_large_r50_s32_224'),
}


def _augreg_file(model: str, recipe: str) -> str:
  aug, weight_decay, dropout = recipe.split()
  return (
    f'vit_models/augreg/{model}-i21k-300ep-lr_0.001-aug_{aug}-wd_{weight_decay}'
    f'-do_{dropout}-sd_{dropout}'
  )


def _augreg() -> dict[str, list[Weights]]:
  row = {}
  for model, (recipe, repo, best) in _AUGREG.items():
    file = f'{_augreg_file(model, recipe)}.npz'
    row[model] = [Weights(file, f'timm/{repo}.augreg_in21k')]
    if best:
      row[model].insert(0, Weights(f'{_augreg_file(model, best)}.npz'))
  return row


def _augreg_tuned() -> dict[str, list[Weights]]:
  row = {}
  for name, (recipe, rate, repo) in _AUGREG_TUNED.items():
    start = _augreg_file(name.removesuffix('-224'), recipe)
    size = repo.rsplit('_', 1)[1]
    file = f'{start}--imagenet2012-steps_20k-lr_{rate}-res_{size}.npz'
    row[name] = [Weights(file, f'timm/{repo}.augreg_in21k_ft_in1k')]
  return row


def _weights(upstream: str, name: str, repo: str) -> list[Weights]:
  is_mixer = name.startswith('Mixer')
  bucket = 'mixer_models' if is_mixer else 'vit_models'
  file = f'{bucket}/{upstream}/{name}.npz'
  if upstream == 'big_vision':
    file = f'big_vision/{name}.npz'
  elif is_mixer and upstream == 'imagenet21k+imagenet2012':
    file = ''  # Known from timm alone: no list of the bucket has it.
  return [Weights(file, f'timm/{repo}' if repo else '')]


# Upstream -> name -> sets of weights, the preferred one first.
PUBLISHED: dict[str, dict[str, list[Weights]]] = {
  upstream: {name: _weights(upstream, name, repo) for name, repo in row.items()}
  for upstream, row in _TABLE.items()
} | {'augreg': _augreg(), 'augreg+imagenet2012': _augreg_tuned()}
_BY_FILE = {
  weights.file.rsplit('/', 1)[-1].removesuffix('.npz'): weights
  for upstream in ('augreg', 'augreg+imagenet2012')
  for row in PUBLISHED[upstream].values()
  for weights in row
}


def find(name: str, upstream: str | None = None) -> list[Weights]:
  """Returns the weights that a name stands for, the preferred ones first.

  Args:
    name: a model's, such as 'ViT-B_16', with or without the file's suffix, or
      a file's, such as 'S_16-i21k-300ep-...'. With the AugReg upstreams the
      model may be called 'B_16' too.
    upstream: such as 'sam'; without it, ImageNet-21k.

  Returns:
    An empty list where nothing of that name was published.
  """
  name = without_suffix(name)
  for each in (upstream,) if upstream else DEFAULT_UPSTREAMS:
    row = PUBLISHED[each]
    if each == 'gsam':
      name = name.removesuffix('-gap-norep')
    if each.startswith('augreg'):
      if _AUGREG_FILE.search(name):
        # One of tens of thousands, for which there is no table.
        file = Weights(f'vit_models/augreg/{name}.npz')
        return [_BY_FILE.get(name, file)]
      name = name.replace('ViT-', '').replace('+', '_')
    if name in row:
      return row[name]
  return []


def find_address(address: str) -> list[Weights]:
  """Returns the weights whose file has that `gs://` address."""
  for row in PUBLISHED.values():
    for options in row.values():
      for weights in options:
        if f'gs://{weights.file}' == address:
          return [weights]
  return []


def upstream_of(directory: str) -> str | None:
  """Returns 'sam' for 'sam' and for the bucket's folder of that name."""
  folder = _FOLDER.fullmatch(directory.replace('%2B', '+'))
  name = folder[1] if folder else directory.rstrip('/')
  return name if name in PUBLISHED else None


def split_upstream(name: str) -> tuple[str | None, str]:
  """Returns ('sam', 'ViT-B_16') for 'sam/ViT-B_16'; else None and the name."""
  upstream, slash, rest = name.partition('/')
  if slash and upstream in PUBLISHED and '/' not in rest:
    return upstream, rest
  return None, name


def is_name(name: str) -> bool:
  """Whether something was published as that, 'ViT-B_16' or 'sam/ViT-B_16'.

  Names of files, with a suffix, are none: they are what a user has.
  """
  upstream, plain = split_upstream(name)
  if '/' in plain or without_suffix(plain) != plain:
    return False
  if _AUGREG_FILE.search(plain):  # Of the many, `find` takes every one.
    return plain.partition('-i')[0] in {*_AUGREG, 'R26_B_32'}
  upstreams = (upstream,) if upstream else PUBLISHED
  return any(find(plain, each) for each in upstreams)


def unknown(name: str, upstream: str | None) -> str:
  """Returns what there is instead of a name that `find` doesn't know."""
  plain = without_suffix(name)
  others = [each for each in PUBLISHED if find(plain, each)]
  if others:
    options = ', '.join(f'{each}/{plain}' for each in others)
    return (
      f'{plain!r} was published as {options}. In a training command: '
      f'--config.pretrained_dir={others[0]}'
    )
  valid = set(PUBLISHED[upstream]) if upstream else set()
  for row in PUBLISHED.values():
    valid |= set(row) if not upstream else set()
  return errors.unknown_name('published weights', plain, valid)


def augreg_files(model: str) -> list[str]:
  """Returns file names for an AugReg model where there is no `index.csv`.

  The first is the best one; the last is on Hugging Face.
  """
  options = PUBLISHED['augreg'].get(model, [])
  return [each.file.rsplit('/', 1)[-1].removesuffix('.npz') for each in options]


def without_suffix(name: str) -> str:
  """Returns a weight file's name without '.npz' or '.safetensors'."""
  return name.removesuffix('.npz').removesuffix('.safetensors')
