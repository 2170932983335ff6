"""Config files: every argument gives a config, with the published settings."""

import ast
import re
import sys

import parity
import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

import vit_jax
from configs import augreg, common, mixer, vit
from vit_jax import config_checks, errors, optim
from vit_jax.data import eval_sets, labels, sources
from vit_jax.models import variants

ROOT = parity.GOLDEN.parents[1]
# It loads files in a way that Python is going to give up.
by_ml_collections = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)


@pytest.fixture
def config_of(monkeypatch):
  """Gives the arguments of a command line -> its config."""

  def parse(file_and_args, *overrides) -> ConfigDict:
    flag_values = flags.FlagValues()
    argv = ['main', f'--config={ROOT}/configs/{file_and_args}', *overrides]
    monkeypatch.setattr(sys, 'argv', argv)
    holder = config_flags.DEFINE_config_file('config', flag_values=flag_values)
    assert flag_values(argv) == ['main']
    return holder.value

  return parse


@pytest.mark.parametrize('dataset', common.DATASETS)
@pytest.mark.parametrize('short_name', variants.SHORT_NAMES)
def test_every_model_goes_with_every_data_set(short_name, dataset):
  file, model, width = vit, short_name, 'hidden_size'
  if short_name.startswith('mixer_'):
    file, model, width = mixer, short_name[len('mixer_') :], 'hidden_dim'
  if short_name == 'cnn':  # It has a config of its own, for two data sets.
    with pytest.raises(errors.ConfigError, match='is no Vision Transformer'):
      vit.get_config(f'{model},{dataset}')
    return
  config = file.get_config(f'{model},{dataset}')
  config.pp.crop = max(config.pp.crop, 32)  # Scans are small for some patches.
  config_checks.check_config(config, num_devices=8)
  module = vit_jax.create_model(config.model, 7, dtype=config.dtype)
  assert getattr(module, width) == config.model[width]
  assert config.model.model_name == variants.SHORT_NAMES[short_name]
  assert config.dataset == common.DATASETS[dataset].get('dataset', dataset)
  schedule = optim.learning_rate_schedule(
    config.base_lr, config.decay_type, config.total_steps, config.warmup_steps
  )
  optim.make_optimizer(config, schedule)


@pytest.mark.parametrize(
  ('args', 'expected'),
  [
    # The paper's appendix B.1.1 and table 4, and the original's presets.
    ('b16,cifar10', (0.01, 10_000, 500, 'train[:98%]', 'test', 384)),
    ('b32,cifar10', (0.03, 10_000, 500, 'train[:98%]', 'test', 384)),
    ('b16,cifar100', (0.03, 10_000, 500, 'train[:98%]', 'test', 384)),
    ('l16,imagenet2012', (0.03, 20_000, 500, 'train[:99%]', 'validation', 384)),
    ('b16,oxford_iiit_pet', (0.03, 500, 100, 'train', 'test', 384)),
    ('b8,oxford_flowers102', (0.03, 500, 100, 'train+validation', 'test', 384)),
  ],
)  # fmt: skip
def test_fine_tuning_settings_are_the_published_ones(args, expected):
  config = vit.get_config(args)
  found = (
    config.base_lr,
    config.total_steps,
    config.warmup_steps,
    config.pp.train,
    config.pp.test,
    config.pp.crop,
  )
  assert found == expected
  assert config.optimizer == 'sgd'
  assert config.optim_dtype == 'bfloat16'
  assert config.grad_norm_clip == 1.0
  assert config.decay_type == 'cosine'
  assert (config.batch, config.batch_eval) == (512, 512)
  assert config.weight_decay == config.label_smoothing == 0.0
  assert config.pretrained_dir == 'gs://vit_models/imagenet21k'


# Data set, what is trained on besides train[:800], and what is tested on, by
# google-research/task_adaptation.
VTAB = {
  'caltech101': ('caltech101', 'train[2754:2954]', 'test'),
  'cifar100': ('cifar100', 'train[45000:45200]', 'test'),
  'clevr_count': ('clevr', 'train[63000:63200]', 'validation'),
  'clevr_distance': ('clevr', 'train[63000:63200]', 'validation'),
  'diabetic_retinopathy': (
    'diabetic_retinopathy_detection/btgraham-300',
    'validation[:200]',
    'test',
  ),
  'dmlab': ('dmlab', 'validation[:200]', 'test'),
  'dsprites_location': (
    'dsprites',
    'train[589824:590024]',
    'train[663552:]',
  ),
  'dsprites_orientation': (
    'dsprites',
    'train[589824:590024]',
    'train[663552:]',
  ),
  'dtd': ('dtd', 'validation[:200]', 'test'),
  'eurosat': ('eurosat/rgb', 'train[16200:16400]', 'train[21600:]'),
  'kitti_distance': ('kitti', 'validation[:200]', 'test'),
  'oxford_flowers102': ('oxford_flowers102', 'validation[:200]', 'test'),
  'oxford_iiit_pet': ('oxford_iiit_pet', 'train[2944:3144]', 'test'),
  'patch_camelyon': ('patch_camelyon', 'validation[:200]', 'test'),
  'resisc45': ('resisc45', 'train[18900:19100]', 'train[25200:]'),
  'smallnorb_azimuth': ('smallnorb', 'test[:200]', 'test[50%:]'),
  'smallnorb_elevation': ('smallnorb', 'test[:200]', 'test[50%:]'),
  'sun397': ('sun397/tfds', 'validation[:200]', 'test'),
  'svhn_cropped': ('svhn_cropped', 'train[65931:66131]', 'test'),
}
# What a crop would change, and what a flip would, as in Scenic's VTAB config.
UNCROPPED = ('clevr_count', 'clevr_distance', 'dmlab', 'dsprites_location',
             'kitti_distance')  # fmt: skip
UNFLIPPED = ('dsprites_location', 'dsprites_orientation', 'smallnorb_azimuth')


@pytest.mark.parametrize('task', VTAB)
def test_vtab_is_split_and_trained_on_as_published(task):
  config = vit.get_config(f'b16,vtab/{task}')
  pp, (dataset, val200, test) = config.pp, VTAB[task]
  assert config.dataset == dataset
  assert config.label == (task if task in labels.LABELS else '')
  assert (pp.train, pp.test) == (f'train[:800]+{val200}', test)
  assert pp.crop == 384
  # Section B.1.1 and table 4 of the paper.
  assert (config.base_lr, config.total_steps, config.batch) == (0.01, 2500, 512)
  assert (config.optimizer, config.decay_type) == ('sgd', 'cosine')
  assert (config.weight_decay, config.grad_norm_clip) == (0.0, 1.0)


@pytest.mark.parametrize('task', sorted({*VTAB} - {'cifar100'}))
def test_unprepared_set_of_vtab_says_how_to_prepare_it(task, tmp_path):
  config = vit.get_config(f'b16,vtab/{task}')
  config.tfds_data_dir = str(tmp_path)
  with pytest.raises(errors.DataNotFoundError) as caught:
    sources.load_source(config, config.pp.train)
  command = f"tfds.builder('{VTAB[task][0]}').download_and_prepare()"
  assert command in str(caught.value)
  archive = {'diabetic_retinopathy': 'kaggle', 'resisc45': 'NWPU-RESISC45/'}
  assert archive.get(task, '') in str(caught.value)


@pytest.mark.parametrize('task', VTAB)
def test_images_of_vtab_are_augmented_as_labels_allow(task):
  pp = vit.get_config(f'b16,vtab/{task}').pp
  is_cropped, is_flipped = task not in UNCROPPED, task not in UNFLIPPED
  assert (
    pp.augment
    == {
      (True, True): 'crop_flip',
      (True, False): 'crop',
      (False, True): 'shift_flip',
      (False, False): 'none',
    }[is_cropped, is_flipped]
  )
  if pp.augment == 'shift_flip':
    assert pp.shift.pad == 0
  if is_cropped:  # 384 of 448 pixels each way.
    assert [*pp.area_range] == pytest.approx([(384 / 448) ** 2] * 2)
  assert (pp.policy, pp.preset, pp.repeats) == ('none', '', 1)


def test_vtab_has_nineteen_tasks_and_every_label_is_one():
  tasks = {name for name in common.DATASETS if name.startswith('vtab/')}
  assert tasks == {f'vtab/{task}' for task in VTAB}
  assert len(tasks) == 19
  used = {common.DATASETS[task]['label'] for task in tasks} - {''}
  assert used == {*labels.LABELS}


@pytest.mark.parametrize(('name', 'split'), [
  ('imagenet_v2', 'test'), ('imagenet2012_real', 'validation'),
  ('imagenet_v2/matched-frequency', 'test'), ('imagenet_v2:3.0.0', 'test'),
])  # fmt: skip
@pytest.mark.parametrize('get_config', [vit.get_config, mixer.get_config])
def test_sets_to_evaluate_on_say_how(get_config, name, split):
  with pytest.raises(errors.ConfigError) as caught:
    get_config(f'b16,{name}')
  text = str(caught.value)
  assert f"'{name}' is to evaluate on and has no split to train on" in text
  assert f'={name}:{split}, or' in text
  assert f'--mode=evaluate --config.dataset={name} ' in text
  assert text.endswith(f'--config.pp.test={split}')
  (sets,) = re.findall(r'--config\.eval_sets=(\S+),', text)
  assert [*eval_sets.parse(sets).values()] == [(name, split)]


@pytest.mark.parametrize(('model', 'upstream'), [
  ('b16', 'imagenet21k'), ('Mixer-L_16', 'imagenet21k'), ('b32', 'gsam'),
  ('s8', 'gsam'), ('s16', 'gsam'), ('s32', 'gsam'),
])  # fmt: skip
def test_mixers_are_fine_tuned_as_the_original_does(model, upstream):
  config = mixer.get_config(f'{model},cifar10')
  assert config.pretrained_dir == f'gs://mixer_models/{upstream}'
  assert (config.base_lr, config.total_steps) == (0.03, 10_000)
  assert (config.pp.train, config.pp.test) == ('train[:98%]', 'test')
  assert config.pp.crop == 224
  assert config.batch == 512


def test_small_images_are_not_enlarged_for_a_mixer():
  config = mixer.get_config('s16,digits')
  assert (config.pp.crop, config.pretrained_dir) == (16, '')


@pytest.mark.parametrize(
  ('model', 'rate'), [('b16', 0.0), ('l16', 0.1), ('l32', 0.0), ('h14', 0.1)]
)
def test_dropout_is_the_original_one_of_the_model(model, rate):
  config = vit.get_config(f'{model},cifar10')
  assert config.model.transformer.dropout_rate == rate


def test_digits_are_trained_from_scratch():
  config = vit.get_config('tiny,digits')
  assert config.pretrained_dir == ''
  assert config.model.model_name == 'tiny'
  assert config.pp.augment == 'affine'


def test_variant_of_a_data_set_has_its_preset():
  whole, part = map(vit.get_config, ('tiny,digits', 'tiny,digits/0_to_4'))
  assert part.dataset == 'digits/0_to_4'
  part.dataset = 'digits'
  assert part.to_json() == whole.to_json()


def test_configs_do_not_share_their_parts():
  vit.get_config('b16,cifar10').pp.crop = 3
  vit.get_config('b16,cifar10').model.hidden_size = 3
  config = vit.get_config('b16,cifar10')
  assert (config.pp.crop, config.model.hidden_size) == (384, 768)


@pytest.mark.parametrize(
  ('get_config', 'argument', 'texts'),
  [
    (vit.get_config, 'b61,cifar10', ["'b61'", "Did you mean 'b16'?"]),
    (
      vit.get_config,
      'b61,cifar',
      ["mean 'b16'?", "\nUnknown data set 'cifar'"],
    ),
    (mixer.get_config, 'b61,cifar', ["mean 'b16'?", "\nUnknown data set 'ci"]),
    (vit.get_config, 'mixer_b16,cifar', ['is a Mixer', '\nUnknown data set']),
    (vit.get_config, 'b16,cifar', ["'cifar'", "Did you mean 'cifar10'?"]),
    (vit.get_config, 'B16,cifar10', ["Did you mean 'b16'?"]),
    (vit.get_config, 'b16,caltech101', ["Did you mean 'vtab/caltech101'?"]),
    (vit.get_config, 'b16,vtab/clevercount', ["mean 'vtab/clevr_count'?"]),
    (vit.get_config, 'b16,vtab/svhn', ["Did you mean 'vtab/svhn_cropped'?"]),
    (vit.get_config, 'b16,vtab', ['vtab/caltech101, vtab/cifar100, vtab/cl']),
    (vit.get_config, 'b16', ['MODEL,DATASET', 'b16', 'cifar10', 'r50_l32']),
    (vit.get_config, ',digits', ['MODEL,DATASET']),
    (vit.get_config, '', ['MODEL,DATASET']),
    (mixer.get_config, 'b61,cifar10', ["Mixer 'b61'", "Did you mean 'b16'?"]),
    (mixer.get_config, 'h14,cifar10', ["'h14'", 'Mixer-S_8, b16, b32, l16']),
    (mixer.get_config, 'b16,cifar', ["'cifar'", "Did you mean 'cifar10'?"]),
    (mixer.get_config, 'b16', ['MODEL,DATASET', 's32', 'cifar10']),
    (mixer.get_config, '', ['MODEL,DATASET']),
    (augreg.get_config, 'R_Ti16', ["Did you mean 'R_Ti_16'?"]),
    (augreg.get_config, 'B16-i21k-300ep', ["'B16'", "Did you mean 'B_16'?"]),
    (augreg.get_config, '', ['Valid: ', 'R50_L_32']),
  ],
)
def test_typo_in_the_argument_is_answered(get_config, argument, texts):
  with pytest.raises(errors.ConfigError) as caught:
    get_config(argument)
  for text in texts:
    assert text in str(caught.value)


@pytest.mark.parametrize(
  ('argument', 'model_name'),
  [
    ('Ti_16', 'ViT-Ti_16'),
    ('S_32', 'ViT-S_32'),
    ('S_16', 'ViT-S_16'),
    ('B_32', 'ViT-B_32'),
    ('B_16', 'ViT-B_16'),
    ('B_8', 'ViT-B_8'),
    ('L_16', 'ViT-L_16'),
    ('R_Ti_16', 'R+ViT-Ti_16'),
    ('R26_S_32', 'R26+ViT-S_32'),
    ('R50_L_32', 'R50+ViT-L_32'),
    ('R_Ti_16-i21k-300ep-lr_0.001', 'R+ViT-Ti_16'),
  ],
)
def test_augreg_models(argument, model_name):
  config = augreg.get_config(argument)
  vit_jax.create_model(config.model, 7)
  assert config.model.model_name == model_name
  assert config.model_or_filename == argument
  assert config.model.transformer.dropout_rate == 0.0
  assert config.pretrained_dir == 'gs://vit_models/augreg'
  assert (config.base_lr, config.total_steps) == (0.03, 500)
  assert (config.warmup_steps, config.pp.crop) == (100, 384)


def test_augreg_wants_a_data_set():
  config = augreg.get_config('R_Ti_16')
  with pytest.raises(errors.ConfigError, match=r'config\.dataset is not set'):
    config_checks.check_config(config, 1)
  config.dataset = 'oxford_iiit_pet'
  config_checks.check_config(config, 1)


# What command lines of the original code set.
OVERRIDES = {
  'pretrained_dir': '/weights',
  'dataset': 'cifar100',
  'batch': 256,
  'batch_eval': 16,
  'base_lr': 0.001,
  'decay_type': 'linear',
  'warmup_steps': 7,
  'total_steps': 70,
  'accum_steps': 64,
  'grad_norm_clip': 2.0,
  'optim_dtype': 'float32',
  'pp.train': 'train[:50%]',
  'pp.test': 'validation',
  'pp.crop': 224,
  'eval_every': 3,
  'progress_every': 1,
  'checkpoint_every': 5,
  'tfds_data_dir': '/data',
  'tfds_manual_dir': '/archives',
  'model.transformer.dropout_rate': 0.3,
}


@by_ml_collections
@pytest.mark.parametrize(
  'file', ['vit.py:b16,cifar10', 'augreg.py:R_Ti_16', 'mixer.py:b16,cifar10']
)
def test_command_lines_of_the_original_work(file, config_of):
  overrides = dict(OVERRIDES)
  if file.startswith('mixer'):  # It has no dropout.
    del overrides['model.transformer.dropout_rate']
  config = config_of(
    file, *(f'--config.{field}={value}' for field, value in overrides.items())
  )
  for field, value in overrides.items():
    found = config
    for name in field.split('.'):
      found = found[name]
    assert found == value, field
    assert type(found) is type(value), field


@by_ml_collections
def test_whole_number_does_for_a_real_one(config_of):
  config = config_of('vit.py:b16,cifar10', '--config.grad_norm_clip=2')
  assert config.grad_norm_clip == 2.0


@pytest.mark.parametrize('name', ['augreg', 'mixer', 'vit'])
def test_file_opens_with_its_command(name):
  text = (ROOT / 'configs' / f'{name}.py').read_text()
  docstring = ast.get_docstring(ast.parse(text))
  assert f'python -m vit_jax.main --config configs/{name}.py:' in docstring
