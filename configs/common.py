"""The fields of a training config, their defaults, and presets by data set."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from configs import datasets
from vit_jax import errors
from vit_jax.data import paths


def get_config() -> ConfigDict:
  """Returns the original's fine-tuning defaults, model and data set unset."""
  config = ConfigDict()

  # Model and weights.
  config.model = placeholder(ConfigDict)
  # Where the weights are: a directory with NAME.npz for the model's name, a run
  # directory, a weight file, an address (gs://, https:// or hf://), or the name
  # of an upstream ('sam') or of published weights ('sam/ViT-B_16'); see
  # docs/checkpoints.md. '' starts from random weights.
  config.pretrained_dir = 'gs://vit_models/imagenet21k'
  # Whether weights come from local files and the cache alone.
  config.offline = False
  # Set by augreg.py: a file's name, or a model's for its best file.
  config.model_or_filename = ''

  # Data. A tfds name, and splits as tfds writes them; or the path of a folder
  # of images or of a list of them, and splits in percent (docs/data.md).
  config.dataset = ''
  # What examples are labelled by instead of their 'label': 'clevr_count',
  # 'clevr_distance', 'dsprites_location', 'dsprites_orientation',
  # 'kitti_distance', 'smallnorb_azimuth' or 'smallnorb_elevation'.
  config.label = ''
  # Whether symbolic links in a folder of images may lead out of it.
  config.follow_links = False
  config.tfds_data_dir = placeholder(str)
  config.tfds_manual_dir = placeholder(str)
  config.pp = ConfigDict()
  config.pp.train = 'train'
  config.pp.test = 'test'
  # What else is evaluated, beside pp.test, which is 'test': NAME=SPLIT of the
  # data set or NAME=DATASET:SPLIT of another one with the same classes, such as
  # 'holdout=train[98%:],v2=imagenet_v2:test,real=imagenet2012_real:validation'.
  config.eval_sets = ''
  # Side of the square that the model sees, in pixels.
  config.pp.crop = 384
  # Images that are evaluated are squashed to that square. Or, if this is not 0,
  # shrunk until the shorter side has so many pixels, and their middle is cut
  # out, as big_vision does it (256 for a crop of 224).
  config.pp.test_resize = 0
  # 'crop_flip': a random box with a share of the area in area_range and a
  # width / height in ratio_range, mirrored half of the time; 'crop': never.
  # 'affine': rotated and sheared by up to so many degrees, scaled and shifted
  # by up to a share of the side. 'shift_flip': shifted by up to `pad` pixels,
  # what is outside being black ('constant'), the image mirrored ('reflect') or
  # its border ('edge'), and mirrored half of the time. 'none': the whole image.
  config.pp.augment = 'crop_flip'
  config.pp.area_range = (0.05, 1.0)
  config.pp.ratio_range = (3 / 4, 4 / 3)
  config.pp.affine = ConfigDict(
    {'rotate': 15.0, 'scale': 0.15, 'shear': 10.0, 'shift': 0.1}
  )
  config.pp.shift = ConfigDict({'pad': 4, 'mode': 'constant'})
  # How strongly, in the terms of the AugReg paper (arXiv 2106.10270): 'none',
  # 'light1', 'light2', 'medium1', 'medium2', 'strong1' or 'strong2'. It says
  # what RandAugment and mixup do, whatever pp.policy, pp.randaugment and
  # mixup_alpha say. '' leaves it to those.
  config.pp.preset = ''
  # 'none', 'randaugment' or 'trivialaugment', which has no settings.
  config.pp.policy = 'none'
  # Operations one after the other, and how much of each, from 0 to 30.
  config.pp.randaugment = ConfigDict({'num_layers': 2, 'magnitude': 10.0})
  # Factors are up to so much above or below 1; the hue turns by up to a share
  # of the circle, 0.5 at most.
  config.pp.color_jitter = ConfigDict(
    {'brightness': 0.0, 'contrast': 0.0, 'saturation': 0.0, 'hue': 0.0}
  )
  # Share of the images of which a random box becomes noise.
  config.pp.erasing = 0.0
  # How often an example is in a batch, augmented anew each time; it divides the
  # batch. An epoch takes so many times the steps.
  config.pp.repeats = 1
  # Examples in a step, over all devices and micro-batches.
  config.batch = 512
  config.batch_eval = 512
  # Threads that read and decode; or so many processes to train from, no faster
  # on few cores, but not waiting for Python on many. 0 is threads alone.
  config.num_threads = 16
  config.num_workers = 0
  # 'skip' takes another image in place of a bad one, names it, and stops when
  # more than one in a thousand are bad.
  config.on_bad_image = 'fail'

  # Optimisation.
  config.optimizer = 'sgd'  # Or 'adamw'.
  # Of the momentum: 'bfloat16' or 'float32'.
  config.optim_dtype = 'bfloat16'
  config.base_lr = 0.03
  config.decay_type = 'cosine'  # Or 'linear' or 'constant'.
  config.warmup_steps = 500
  config.total_steps = 10_000
  # Of kernels, with 'adamw' only.
  config.weight_decay = 0.0
  config.grad_norm_clip = 1.0
  config.label_smoothing = 0.0
  # Of mixup: images are blended in pairs with a weight from
  # Beta(alpha, alpha). 0 blends none.
  config.mixup_alpha = 0.0
  # Of cutmix: a box of one image is pasted into the other, its share of the
  # area being Beta(alpha, alpha). 0 cuts none; with both, each does half of the
  # micro-batches.
  config.cutmix_alpha = 0.0
  # Micro-batches of a step, to save memory; it divides the batch.
  config.accum_steps = 8
  # How many devices each axis has; -1 is all that are left. Batches are split
  # over data and fsdp, parameters and momentum over fsdp (to save memory) and
  # tensor (heads and MLP width, to save work too).
  config.mesh = ConfigDict({'data': -1, 'fsdp': 1, 'tensor': 1})
  # Of the computation: 'float32', 'bfloat16' or, for GPUs that lack that,
  # 'float16', with a loss scale that adapts. Parameters, loss and updates are
  # float32.
  config.dtype = 'float32'
  # How attention is computed: 'plain', 'fused' without ever holding the
  # weights, or 'auto', fused where cuDNN has a kernel (16-bit dtypes on GPUs).
  config.attention = 'auto'
  # What the backward pass computes again to save memory: 'none', 'dots' for all
  # but products with weights, or 'full' for all of a block.
  config.remat = 'none'
  # Whether one block is compiled for all, so that deep models start sooner. The
  # outcome is the same up to rounding, and so are the files.
  config.scan_layers = False
  # Where a loss or gradient is NaN or infinite: 'stop', or 'skip' to leave that
  # update out and stop once more than max_skipped have been, over the whole
  # run. Overflows that a float16 loss scale takes care of are no such case.
  config.on_nonfinite = 'stop'
  config.max_skipped = 10
  config.seed = 0

  # Every so many steps. A checkpoint is also written at the end; with
  # checkpoint_every 0, only there.
  config.progress_every = 10
  config.eval_every = 100
  config.checkpoint_every = 1_000
  # Steps to trace for XProf or TensorBoard, into WORKDIR/profile: 'FIRST:LAST',
  # or how many once the first two are done; '' for none.
  config.profile = ''
  # How many of the newest checkpoints to keep.
  config.keep_checkpoints = 2
  # 'test/accuracy', 'test/loss' (lower is better) or 'test/top5', or those of
  # one of eval_sets: an evaluation that is the best so far writes a checkpoint,
  # which is kept until a better one comes. '' writes and keeps none.
  config.best_metric = ''
  # Evaluations without a better best_metric after which to stop; 0 never does.
  config.patience = 0
  # Which parameters model.npz gets: 'last', or 'best' by best_metric.
  config.export = 'last'
  return config


DATASETS = datasets.DATASETS


def call_all(*calls: Callable[[], Any]) -> list[Any]:
  """Returns what each call returns.

  Raises:
    ConfigError: what any of them raised, all of it, a line each.
  """
  results, problems = [], []
  for call in calls:
    try:
      results.append(call())
    except errors.ConfigError as error:
      problems.append(str(error))
  if problems:
    raise errors.ConfigError('\n'.join(problems))
  return results


def with_dataset(config: ConfigDict, dataset: str) -> ConfigDict:
  """Sets the data set and what its preset says.

  Args:
    config: from `get_config`.
    dataset: a preset's name, such as 'vtab/dtd'; a variant such as
      'digits/0_to_4' has the preset of what stands before the slash. Or a path,
      as `paths.is_path` tells.

  Raises:
    ConfigError: there is no preset of that name, or it is a set to evaluate on.
  """
  if paths.is_path(dataset):
    config.dataset = dataset
    config.update(datasets.FOLDER)
    return config
  first = dataset.split('/')[0]
  _check_can_be_trained_on(dataset, first.partition(':')[0])
  name = dataset if dataset in DATASETS else first
  if name not in DATASETS:
    # 'vtab/svhn' is short for one of them, and by letters closer to another.
    longer = [known for known in DATASETS if known.startswith(dataset)]
    text = errors.unknown_name('data set', dataset, longer or DATASETS)
    if '/' in dataset:
      text += ' Nor is there a folder or list of images at that path.'
    raise errors.ConfigError(text)
  config.dataset = dataset
  config.update(DATASETS[name])  # Of VTAB it has the tfds name.
  return config


def _check_can_be_trained_on(dataset: str, name: str) -> None:
  split = datasets.EVALUATION_ONLY.get(name)
  if split:
    raise errors.ConfigError(
      f'{dataset!r} is to evaluate on and has no split to train on. Train on '
      f'imagenet2012 with --config.eval_sets={name}={dataset}:{split}, or '
      f'evaluate alone by --mode=evaluate --config.dataset={dataset} '
      f'--config.pp.test={split}'
    )
