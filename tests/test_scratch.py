"""Training from scratch: what each recipe sets, and that its steps run."""

import re

import jax
import numpy as np
import pytest

import vit_jax
from configs import scratch
from vit_jax import config_checks, errors, optim, train
from vit_jax.metrics import read_metrics

# Steps for `epochs`, of batches of so many of so many examples.
STEPS = {
  'small,cifar10': (100, 45_000, 256),
  'small4,cifar10': (100, 45_000, 256),
  'small,cifar100,7': (7, 45_000, 256),
  'strong,cifar10': (300, 45_000, 256),
  'strong4,cifar100': (300, 45_000, 256),
  'small,digits': (24, 1_200, 32),
  'strong,digits,3': (3, 1_200, 32),
  's16,imagenet2012': (90, 1_268_355, 1024),
  's16,imagenet2012,300': (300, 1_268_355, 1024),
}
# Parameters: of the patches and positions, of a block, of norm and head.
_BLOCK = 4 * (128**2 + 128) + 2 * 128 * 512 + 512 + 128 + 4 * 128
NUM_PARAMS = {
  'small,cifar10': 192 * 128 + 128 + 128 * (1 + 17) + 12 * _BLOCK + 1546,
  'strong,cifar10': 2_407_818,
  'small4,cifar10': 48 * 128 + 128 + 128 * (1 + 65) + 12 * _BLOCK + 1546,
  'strong4,cifar10': 2_395_530,
  'small,cifar100': 2_419_428,
  'strong,digits': 2_407_818,
  's16,imagenet2012': 22_122_472,
}
NUM_CLASSES = {'cifar100': 100, 'imagenet2012': 1000}


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return str(tmp_path_factory.mktemp('tfds'))


@pytest.mark.parametrize('argument', STEPS)
def test_recipes_can_work_and_take_so_many_epochs(argument):
  config = scratch.get_config(argument)
  config_checks.check_config(config, num_devices=1)
  epochs, num_examples, batch = STEPS[argument]
  assert config.total_steps == epochs * num_examples // batch
  assert config.batch == batch
  assert config.pretrained_dir == ''
  assert config.model_or_filename == ''


@pytest.mark.parametrize('argument', NUM_PARAMS)
def test_models_have_so_many_parameters(argument):
  config = scratch.get_config(argument)
  model = vit_jax.create_model(
    config.model, NUM_CLASSES.get(config.dataset, 10)
  )
  crop = config.pp.crop
  images = jax.ShapeDtypeStruct((1, crop, crop, 3), 'float32')
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)
  sizes = [np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes)]
  assert sum(sizes) == NUM_PARAMS[argument]


@pytest.mark.parametrize('dataset', ['cifar10', 'cifar100', 'digits'])
def test_small_and_strong_train_the_same_model_on_the_same_data(dataset):
  small, strong = (
    scratch.get_config(f'{recipe},{dataset}') for recipe in ('small', 'strong')
  )
  assert small.model.to_dict() == strong.model.to_dict()
  for field in ('train', 'test', 'crop'):
    assert small.pp[field] == strong.pp[field]
  assert small.batch == strong.batch


@pytest.mark.parametrize('recipe', ['small', 'small4', 'strong', 'strong4'])
@pytest.mark.parametrize('dataset', ['cifar10', 'cifar100', 'digits'])
def test_best_checkpoint_is_chosen_on_what_is_not_trained_on(recipe, dataset):
  config = scratch.get_config(f'{recipe},{dataset}')
  assert config.best_metric == 'validation/accuracy'
  assert config.export == 'best'
  assert config.pp.test == 'test'
  cut = re.fullmatch(r'train\[:(\w+%?)\]', config.pp.train)
  assert cut
  assert config.eval_sets == f'validation=train[{cut[1]}:]'


def test_plain_recipe_is_plain():
  config = scratch.get_config('small,cifar10')
  assert (config.optimizer, config.base_lr) == ('sgd', 0.01)
  assert (config.decay_type, config.warmup_steps) == ('constant', 0)
  assert not config.grad_norm_clip
  assert config.pp.augment == config.pp.policy == 'none'
  assert not any(
    (config.mixup_alpha, config.cutmix_alpha, config.label_smoothing)
  )
  assert config.eval_every == 175  # One epoch.


def test_scans_are_neither_mirrored_nor_cut_nor_inverted():
  config = scratch.get_config('strong,digits')
  assert config.pp.augment == 'affine'
  assert config.pp.policy == 'none'
  assert config.cutmix_alpha == config.pp.erasing == 0


def test_s16_is_that_of_big_vision():
  config = scratch.get_config('s16,imagenet2012')
  model = config.model
  assert (model.classifier, model.position_embedding) == ('gap', 'sincos2d')
  assert model.representation_size == model.hidden_size == 384
  assert (config.pp.train, config.pp.test) == ('train[:99%]', 'validation')
  assert config.eval_sets == 'minival=train[99%:]'
  assert (config.pp.crop, config.pp.test_resize) == (224, 256)
  assert config.pp.augment == 'crop_flip'
  assert tuple(config.pp.area_range) == (0.05, 1.0)
  assert config.pp.policy == 'randaugment'
  assert config.pp.randaugment.to_dict() == {'num_layers': 2, 'magnitude': 10}
  assert (config.mixup_alpha, config.label_smoothing) == (0.2, 0)
  assert (config.optimizer, config.grad_norm_clip) == ('adamw', 1.0)
  assert (config.best_metric, config.export) == ('', 'last')


def test_schedule_of_s16():
  config = scratch.get_config('s16,imagenet2012')
  schedule = optim.learning_rate_schedule(
    config.base_lr, config.decay_type, config.total_steps, config.warmup_steps
  )
  assert config.total_steps == 111_476
  halfway = (10_000 + 111_476) // 2
  for step, rate in {
    0: 0.0,
    2_500: 2.5e-4,
    10_000: 1e-3,
    halfway: 5e-4,
    111_476: 0.0,
  }.items():
    np.testing.assert_allclose(schedule(step), rate, atol=1e-9)


def test_decay_of_s16_is_that_of_big_vision():
  """There, an update takes the schedule (at most 1) times 1e-4 off a kernel."""
  config = scratch.get_config('s16,imagenet2012')
  tx = optim.make_optimizer(config, lambda count: config.base_lr)
  params = {'kernel': np.full(3, 7.0, 'f4'), 'bias': np.full(3, 7.0, 'f4')}
  zeros = jax.tree.map(np.zeros_like, params)
  updates, _ = tx.update(zeros, tx.init(params), params)
  np.testing.assert_allclose(updates['kernel'], -7 * 1e-4, rtol=1e-6)
  np.testing.assert_array_equal(updates['bias'], 0)


@pytest.mark.parametrize(
  ('argument', 'texts'),
  [
    ('', ('a recipe, a data set', 'strong4', 'imagenet2012')),
    ('small', ('a recipe, a data set',)),
    ('small,', ('a recipe, a data set',)),
    ('small,cifar10,5,6', ('configs/scratch.py:small,cifar10,5,6',)),
    ('smal,cifar1', ("recipe 'smal'", "'small'?", "'cifar1'", "'cifar10'?")),
    ('small,imagenet2012', ('for cifar10, cifar100, digits, not',)),
    ('s16,cifar10', ('for imagenet2012, not',)),
    ('small,digits,x', ("'x' is no number of epochs",)),
    ('small,digits,0', ("'0' is no number of epochs",)),
  ],
)
def test_wrong_argument_is_answered(argument, texts):
  with pytest.raises(errors.ConfigError) as caught:
    scratch.get_config(argument)
  for text in texts:
    assert text in str(caught.value)


@pytest.mark.parametrize(
  'recipe',
  [
    'small',
    # RandAugment takes long to compile.
    pytest.param('strong', marks=pytest.mark.slow),
    pytest.param('s16', marks=pytest.mark.slow),
  ],
)
def test_recipe_trains(recipe, data_dir, tmp_path, compile_once):
  """A step or two of everything it says, on a mini model and scans."""
  config = scratch.get_config(
    f'{recipe},{"imagenet2012" if recipe == "s16" else "cifar10"}'
  )
  config.dataset, config.tfds_data_dir = 'digits', data_dir
  config.pp.update(train='train[:40]', test='test[:10]', crop=8)
  if config.pp.test_resize:
    config.pp.test_resize = 9
  name = config.eval_sets.partition('=')[0]
  config.eval_sets = f'{name}=train[40:60]'
  config.model.patches.size = (4, 4)
  config.model.hidden_size = 12
  if config.model.representation_size:
    config.model.representation_size = 12
  config.model.transformer.update(mlp_dim=14, num_heads=2, num_layers=1)
  config.update(
    batch=8, batch_eval=10, total_steps=2, warmup_steps=1, eval_every=1
  )
  config.num_threads = 0
  state = train.train_and_evaluate(config, tmp_path / 'run')
  assert int(state.step) == 2
  logged = read_metrics(tmp_path / 'run' / 'metrics.jsonl')
  assert list(logged[f'{name}/accuracy'][0]) == [1, 2]
  assert np.isfinite(logged['train/loss'][1]).all()
  assert (tmp_path / 'run' / 'model.npz').exists()
