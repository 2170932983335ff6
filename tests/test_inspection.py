"""What is said of a weight file, and that the command it prints fits it."""

import dataclasses
import hashlib
import pathlib
import shlex
import subprocess
import sys

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import parity
import pytest
from absl import flags
from flax import traverse_util
from ml_collections import config_flags

import vit_jax
from vit_jax import checkpoints, errors
from vit_jax.checkpoints import safetensors as safetensors_files
from vit_jax.checkpoints.arrays import StoredArray
from vit_jax.checkpoints.state import Standing, StateCheckpoints
from vit_jax.inspection import describe, matching, sizes
from vit_jax.inspection import description as description_module

# ml_collections, while it reads a config.
pytestmark = pytest.mark.filterwarnings(
  'ignore:the load_module:DeprecationWarning'
)

ROOT = pathlib.Path(__file__).parents[1]
MINIS = (*parity.MINI_VITS, 'mini-mixer')
POSITIONS = 'Transformer/posembed_input/pos_embedding'


def arrays_of(name):
  return parity.make_checkpoint(parity.layout(name), 0)


def description(path, arrays, **kwargs):
  np.savez(path, **arrays)
  return describe(path, **kwargs)


@pytest.fixture
def file(tmp_path):
  return tmp_path / 'file.npz'


def parse(command, monkeypatch):
  """Returns the config, as the command line reads it."""
  words = shlex.split(command)
  assert words[:3] == ['python', '-m', 'vit_jax.main']
  monkeypatch.setattr(sys, 'argv', words[2:])  # Where overrides are read.
  values = flags.FlagValues()
  config_flags.DEFINE_config_file('config', flag_values=values)
  assert values(sys.argv) == sys.argv[:1]  # Nothing is left over.
  return values.config


def loaded_as_told(command, monkeypatch):
  """Returns flat weights, loaded as `train` does it for a printed command."""
  config = parse(command, monkeypatch)
  model = vit_jax.create_model(config.model, 3)
  params = checkpoints.load_pretrained(
    config.model.model_name,
    model,
    config.pp.crop,
    directory=config.pretrained_dir,
  )
  return traverse_util.flatten_dict(params, sep='/')


@pytest.mark.parametrize('name', MINIS)
def test_mini_models(checkpoint_file, name):
  wanted = parity.configs()[name]
  config = wanted['config']
  found = describe(checkpoint_file(name))
  fields = found.model_config().to_dict()
  for key in config.keys() - {'model_name', 'transformer', 'patches', 'resnet'}:
    assert fields[key] == config[key]
  for key in ('patches', 'resnet', 'transformer'):
    for field, value in config.get(key, {}).items():
      value = tuple(value) if isinstance(value, list) else value
      assert fields[key][field] == value
  assert found.image_size == (wanted['image_size'],) * 2
  assert found.num_classes == wanted['num_classes']
  assert found.num_params == sum(map(np.size, arrays_of(name).values()))
  assert (found.container, found.names) == ('npz', 'google')
  assert found.models == () and found.dtypes == ('float32',)
  assert found.zero_head is False and not found.has_optimizer_state
  assert found.unknown == ()


@pytest.mark.parametrize('name', MINIS)
def test_weights_load_as_the_command_says(checkpoint_file, monkeypatch, name):
  path = checkpoint_file(name)
  command = describe(path).command
  config = parse(command, monkeypatch)
  assert config.pp.crop == parity.configs()[name]['image_size']
  found = loaded_as_told(command, monkeypatch)
  wanted = traverse_util.flatten_dict(checkpoints.load_params(path), sep='/')
  # They are dropped, as the original does it, and there are other classes.
  dropped = ('head/', 'pre_logits/')
  assert {k for k in wanted if not k.startswith(dropped)} | {
    'head/kernel',
    'head/bias',
  } == {*found}
  for key in found:
    if not key.startswith(dropped):
      np.testing.assert_array_equal(found[key], wanted[key])


def layout_of(config, size):
  model = vit_jax.create_model(config, 7)
  images = jax.ShapeDtypeStruct((1, size, size, 3), 'float32')
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)['params']
  return {
    key: leaf.shape
    for key, leaf in traverse_util.flatten_dict(shapes, sep='/').items()
  }


@pytest.mark.parametrize(
  ('name', 'argument', 'size', 'grid'),
  [
    ('ViT-B_16', 'configs/vit.py:b16,cifar10', 224, 14),
    ('ViT-B_16-gap-norep', 'configs/vit.py:b16_gap_norep,cifar10', 384, 24),
    ('ViT-H_14', 'configs/vit.py:h14,cifar10', 224, 16),
    ('R+ViT-Ti_16', 'configs/vit.py:r_ti16,cifar10', 224, 7),
    ('R26+ViT-S_32', 'configs/vit.py:r26_s32,cifar10', 224, 7),
    ('R50+ViT-B_16', 'configs/vit.py:r50_b16,cifar10', 384, 24),
    ('Mixer-B_16', 'configs/mixer.py:b16,cifar10', 224, 14),
    ('tiny', 'configs/vit.py:tiny,digits', 16, 4),
  ],
)
def test_known_models(monkeypatch, name, argument, size, grid):
  flat = {
    key: StoredArray(key, shape, np.dtype('f4'), lambda: np.empty(0))
    for key, shape in layout_of(name, size).items()
  }
  found = sizes.read_sizes(flat, 'a file')
  assert (found['grid'], found['image_size']) == ((grid,) * 2, (size,) * 2)
  assert found['unknown'] == found['missing'] == ()
  fields = sizes.config_fields(found)
  assert matching.equal_models(fields) == (name,)
  command = matching.fine_tuning_command(fields, 'a dir', (size, size))
  config = parse(command, monkeypatch)
  assert config.pretrained_dir == 'a dir'
  assert config.model.model_name == name
  start = f'python -m vit_jax.main --config {argument}'
  crop = ' --config.pp.crop=224' if name.startswith('Mixer') else ''
  assert command == f"{start} '--config.pretrained_dir=a dir'{crop}"


def test_sizes_that_no_model_has(file, monkeypatch):
  """A patch that is no square, MAP, sines, and a single stage."""
  config = vit_jax.model_config('R50+ViT-B_16')
  config.patches.size, config.hidden_size = (2, 1), 20
  config.classifier, config.position_embedding = 'map', 'sincos2d'
  config.resnet.num_layers, config.resnet.width_factor = (1,), 1.5
  config.transformer.update(mlp_dim=13, num_heads=5, num_layers=1)
  layout = layout_of(config, 16)
  found = description(file, parity.make_checkpoint(layout, 0))
  assert found.models == () and found.family == 'hybrid'
  assert (found.classifier, found.position_embedding) == ('map', 'sincos2d')
  assert found.num_patches is None and found.image_size is None
  assert found.unknown == found.missing == ()
  weights = loaded_as_told(found.command, monkeypatch)
  assert weights.keys() == layout.keys()


def test_mixer_is_fine_tuned_at_its_own_size(file, monkeypatch):
  layout = layout_of('Mixer-S_32', 96)
  assert layout['MixerBlock_0/token_mixing/Dense_0/kernel'] == (9, 256)
  arrays = {key: np.zeros(shape, 'f2') for key, shape in layout.items()}
  found = description(file, arrays)
  assert found.models == ('Mixer-S_32',)
  assert parse(found.command, monkeypatch).pp.crop == 96


def test_mixer_keeps_its_size_with_another_data_set(monkeypatch):
  fields = {
    'hidden_dim': 768,
    'num_blocks': 12,
    'tokens_mlp_dim': 384,
    'channels_mlp_dim': 3072,
    'patches.size': (16, 16),
  }
  command = matching.fine_tuning_command(fields, 'file', (224, 224))
  assert ':b16,cifar10' in command
  other = command.replace('cifar10', 'oxford_iiit_pet')
  assert '--config.pp.crop=224' in other


def test_run_directory(tmp_path, checkpoint_file, monkeypatch):
  run = tmp_path / 'runs' / 'vit' / 'tiny,digits'
  run.mkdir(parents=True)
  data = checkpoint_file('mini-vit').read_bytes()
  (run / 'model.npz').write_bytes(data)
  found = describe(run)
  assert found.path == str(run / 'model.npz')
  assert found.sha256 == hashlib.sha256(data).hexdigest()
  assert found.file_size == len(data)
  assert parse(found.command, monkeypatch).pretrained_dir == str(run)
  assert 'head/bias' in loaded_as_told(found.command, monkeypatch)


def test_run_that_has_only_a_checkpoint(tmp_path, mini):
  case = mini('mini-vit')
  state = {'params': jax.tree.map(jnp.asarray, case.params)}
  with StateCheckpoints(tmp_path / 'checkpoints', 1, None) as saved:
    saved.save(3, state | {'step': jnp.int32(3)}, Standing(), None)
  found, wanted = describe(tmp_path), describe(case.path)
  assert found.container == 'checkpoint' and found.has_optimizer_state
  assert found.sha256 is found.file_size is None
  assert (found.num_params, found.zero_head) == (wanted.num_params, False)
  assert f'--config.pretrained_dir={tmp_path} ' in found.command


@pytest.mark.parametrize('names', ['timm', 'transformers'])
def test_safetensors(tmp_path, checkpoint_file, monkeypatch, names):
  source = checkpoint_file('mini-vit')
  path = tmp_path / 'file.safetensors'
  checkpoints.save_params(checkpoints.load_params(source), path, names=names)
  found, wanted = describe(path), describe(source)
  own = ('path', 'container', 'names', 'file_size', 'sha256', 'command')
  rest = dict.fromkeys(own)
  assert dataclasses.replace(found, **rest) == dataclasses.replace(
    wanted, **rest
  )
  assert (found.container, found.names) == ('safetensors', names)
  gelu = {'timm': 'tanh', 'transformers': 'exact'}[names]
  assert parse(found.command, monkeypatch).model.gelu == gelu
  assert 'embedding/kernel' in loaded_as_told(found.command, monkeypatch)


def test_heads_where_the_file_does_not_say(tmp_path, checkpoint_file):
  path, silent = tmp_path / 'said.safetensors', tmp_path / 'silent.safetensors'
  params = checkpoints.load_params(checkpoint_file('mini-vit'))
  checkpoints.save_params(params, path)
  with (
    safetensors_files.open_safetensors(path) as stored,
    silent.open('wb') as file,
  ):
    arrays = {key: array.read() for key, array in stored.arrays.items()}
    safetensors_files.write_safetensors(arrays, file, {})
  assert (describe(path).num_heads, describe(path).heads_from) == (3, 'file')
  found = describe(silent)
  assert found.num_heads is found.heads_from is found.command is None
  assert (found.width, found.depth) == (48, 4)
  found = describe(silent, num_heads=8)
  assert (found.num_heads, found.heads_from) == (8, 'caller')
  assert '--config.model.transformer.num_heads=8' in found.command


def test_big_vision_file(file):
  arrays = arrays_of('mini-vit-gap')
  arrays['pos_embedding'] = arrays.pop(POSITIONS)
  state = {f'params/img/{key}': value for key, value in arrays.items()}
  state |= {'params/t': np.ones(1), 'opt/0/count': np.int32(3)}
  found = description(file, state)
  assert found.names == 'big_vision' and found.has_optimizer_state
  assert found.num_params == sum(map(np.size, arrays.values()))
  assert found.grid == (4, 4)


def test_optimizer_state_is_not_counted(file, checkpoint_file):
  arrays = arrays_of('mini-vit')
  state = {f'opt/target/{key}': value for key, value in arrays.items()}
  state |= {f'opt/state/{key}': value for key, value in arrays.items()}
  found = description(file, state)
  assert found.has_optimizer_state
  assert found.num_params == describe(checkpoint_file('mini-vit')).num_params


def test_zero_head(file):
  arrays = arrays_of('mini-vit')
  arrays['head/kernel'][:] = 0
  assert description(file, arrays).zero_head is True


def test_without_head(file):
  arrays = arrays_of('mini-vit')
  del arrays['head/kernel'], arrays['head/bias']
  found = description(file, arrays)
  assert found.num_classes is found.zero_head is None


def test_dtypes(file):
  arrays = arrays_of('mini-vit')
  for key in ('head/kernel', 'cls'):
    arrays[key] = arrays[key].astype(ml_dtypes.bfloat16)
  assert description(file, arrays).dtypes == ('bfloat16', 'float32')


def test_grid_that_is_no_square(file):
  arrays = arrays_of('mini-vit')
  arrays[POSITIONS] = arrays[POSITIONS][:, :11]
  found = description(file, arrays)
  assert found.num_patches == 10
  assert found.grid is found.image_size is found.command is None


def test_head_of_more_bytes_than_the_file_is_not_read(file, monkeypatch):
  """Its zeros could take any memory, and no bytes on disk."""
  arrays = arrays_of('mini-vit')
  arrays['head/kernel'] = np.zeros((48, 4_000), 'f4')
  arrays['head/bias'] = np.zeros(4_000, 'f4')
  np.savez_compressed(file, **arrays)
  assert arrays['head/kernel'].nbytes > file.stat().st_size
  assert describe(file).zero_head is True  # Of a few bytes.
  monkeypatch.setattr(description_module, '_ALWAYS_READ', 0)
  monkeypatch.setattr(StoredArray, 'read', None)
  found = describe(file)
  assert found.zero_head is None and found.num_classes == 4_000


def test_only_the_head_is_read(file):
  """All other values may be damaged."""
  arrays = arrays_of('mini-vit')
  np.savez(file, **arrays)
  data = bytearray(file.read_bytes())
  kernel = arrays['embedding/kernel'].tobytes()
  data[data.index(kernel) + 5] ^= 1
  file.write_bytes(data)
  assert describe(file).width == 48
  with pytest.raises(errors.CheckpointError, match='embedding/kernel'):
    checkpoints.load_params(file)
  head = data.index(arrays['head/kernel'].tobytes())
  data[head + 5] ^= 1
  file.write_bytes(data)
  with pytest.raises(errors.CheckpointError, match='head/kernel'):
    describe(file)


@pytest.mark.parametrize(
  ('changes', 'text'),
  [
    ({'embedding/kernel': None}, 'embedding/kernel is missing'),
    ({'embedding/kernel': np.ones((2, 3))}, 'found (2, 3), expected 4 dims'),
    ({'head/kernel': np.ones(3)}, 'head/kernel: found (3,), expected 2 dims'),
    ({POSITIONS: np.ones((1, 0, 2))}, 'found (1, 0, 2)'),
  ],
)
def test_what_says_no_sizes_is_refused(file, changes, text):
  arrays = {
    key: value
    for key, value in (arrays_of('mini-vit') | changes).items()
    if value is not None
  }
  with pytest.raises(errors.CheckpointError) as caught:
    description(file, arrays)
  assert str(caught.value).startswith(f'{file}: ') and text in str(caught.value)


def test_file_that_can_not_be_read_to_its_end(file, monkeypatch):
  np.savez(file, **arrays_of('mini-vit'))

  def fail(*_, **__):
    raise OSError(5, 'Input/output error')

  monkeypatch.setattr(description_module, 'file_digest', fail)
  with pytest.raises(errors.CheckpointError) as caught:
    describe(file)
  assert str(caught.value) == f'{file}: can not be read (Input/output error).'


def test_missing_file(tmp_path):
  with pytest.raises(errors.CheckpointNotFoundError):
    describe(tmp_path / 'none.npz')


def test_nothing_slow_is_imported(checkpoint_file):
  code = (
    'import sys\n'
    'from vit_jax.checkpoints import locate\n'
    'from vit_jax.inspection import describe\n'
    'describe(locate.locate(sys.argv[1]))\n'
    'print(*sorted({name.split(".")[0] for name in sys.modules}))'
  )
  output = subprocess.run(
    [sys.executable, '-c', code, checkpoint_file('mini-vit')],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split()
  assert 'numpy' in output
  slow = {'flax', 'jax', 'orbax', 'requests', 'rich', 'scipy'}
  assert not {*output} & slow
