"""Tests of docs/how_vit_works.md and notebooks/attention.ipynb: both hold."""

import ast
import importlib
import importlib.util
import json
import math
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

import vit_jax
from scripts import course_figures
from vit_jax.figures import course
from vit_jax.plan import layers

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / 'docs'
TEXT = (DOCS / 'how_vit_works.md').read_text('utf-8')
NOTEBOOK = ROOT / 'notebooks/attention.ipynb'
CELLS = json.loads(NOTEBOOK.read_text('utf-8'))['cells']
CODE_CELLS = [cell for cell in CELLS if cell['cell_type'] == 'code']


def tables():
  """Yields each table as rows of cells, its head first."""
  for found in re.findall(r'(?:^\|.*\|\n)+', TEXT, re.MULTILINE):
    head, _, *rows = found.splitlines()
    yield [
      [cell.strip() for cell in row.strip('|').split('|')]
      for row in (head, *rows)
    ]


def table(first_column):
  """Returns the rows of the table whose first column has that name."""
  ((_, *rows),) = [t for t in tables() if t[0][0] == first_column]
  return rows


def number(cell):
  return float(re.match(r'[\d,.]+', cell)[0].replace(',', ''))


def count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def millions(macs):
  return round(2 * macs / 1e6, 1)


def expected_parts(name, size, num_classes):
  """Returns [shape, parameters, MFLOPs] by part, all from the code."""
  model = vit_jax.create_model(name, num_classes)
  image = jnp.zeros((1, size, size, 3))
  params = jax.eval_shape(model.init, jax.random.key(0), image)['params']
  encoder, block = (
    params['Transformer'],
    params['Transformer']['encoderblock_0'],
  )
  parts = {part.name: part for part in layers.model_parts(model, size)}
  per_block = parts['encoder'].layers
  width, hidden, heads = model.hidden_size, model.mlp_dim, model.num_heads
  patches = math.prod(model.grid((size, size)))
  tokens = patches + 1

  def macs(weights):
    return sum(layer.macs for layer in per_block if layer.weights == weights)

  shape = [tokens, width]
  return {
    'patches': [[patches, math.prod(model.patch_size) * 3], 0, 0],
    'embedding': [
      [patches, width],
      count(params['embedding']),
      millions(parts['embedding'].macs),
    ],
    'class token': [shape, count(params['cls']), 0],
    'positions': [shape, count(encoder['posembed_input']), 0],
    'block: norms': [shape, 2 * count(block['LayerNorm_0']), 0],
    'block: query, key, value, output': [
      [heads, tokens, width // heads],
      count(block['MultiHeadDotProductAttention_0']),
      millions(macs(width * width)),
    ],
    'block: weights, gathering': [
      [heads, tokens, tokens],
      0,
      millions(macs(0)),
    ],
    'block: MLP': [
      [tokens, hidden],
      count(block['MlpBlock_0']),
      millions(macs(width * hidden)),
    ],
    f'all {model.num_layers} blocks': [
      shape,
      model.num_layers * count(block),
      millions(parts['encoder'].macs),
    ],
    'last norm': [shape, count(encoder['encoder_norm']), 0],
    'head': [
      [num_classes],
      count(params['head']),
      millions(parts['head'].macs),
    ],
    'whole model': [
      None,
      count(params),
      round(layers.forward_flops([*parts.values()]) / 1e6, 1),
    ],
  }


@pytest.mark.parametrize(
  'first, model', [(1, ('b16', 224, 1000)), (4, ('small4', 32, 10))]
)
def test_table_of_parts_is_what_the_code_has(first, model):
  found = {
    row[0]: [
      ast.literal_eval(row[first] or 'None'),
      number(row[first + 1]),
      number(row[first + 2]),
    ]
    for row in table('part')
  }
  assert found == expected_parts(*model)


def test_table_of_patches_is_what_the_code_has():
  rows = table('patch')
  assert len(rows) == 6
  for patch, tokens, head, layer, flops, share in rows:
    config = vit_jax.model_config('b16')
    config.patches.size = (int(patch), int(patch))
    model = vit_jax.create_model(config, 1000)
    parts = layers.model_parts(model, 224)
    (encoder,) = (part for part in parts if part.name == 'encoder')
    compared = sum(each.macs for each in encoder.layers if not each.weights)
    found = math.prod(model.grid((224, 224))) + 1
    total = layers.forward_flops(parts)
    assert number(tokens) == found
    assert number(head) == round(4 * found**2 / 1e6, 2)
    assert number(layer) == round(4 * found**2 * model.num_heads / 1e6, 1)
    assert number(flops) == round(total / 1e9, 1)
    assert number(share) == round(200 * encoder.repeats * compared / total, 1)


def test_small_models_cost_what_the_docs_say():
  rows = table('model')
  assert [row[0] for row in rows] == ['small8', 'small4']
  for name, tokens, params, flops in rows:
    expected = expected_parts(name, 32, 10)
    assert number(tokens) == expected['class token'][0][0]
    assert [number(params), number(flops)] == expected['whole model'][1:]


def test_shares_in_the_text_are_what_the_code_has():
  parts = expected_parts('b16', 224, 1000)
  mlp, whole = parts['block: MLP'], parts['whole model']
  assert 'Two thirds of the parameters and 64 % of the FLOPs' in TEXT
  assert round(12 * mlp[1] / whole[1], 2) == 0.65
  assert round(12 * mlp[2] / whole[2], 2) == 0.64
  gathering = parts['block: weights, gathering'][2]
  assert "that is 4 % of B/16's FLOPs" in TEXT
  assert round(12 * gathering / whole[2], 2) == 0.04
  first, *_, last = (number(row[4]) for row in table('patch')[1:])
  costs = f'costs {round(last / first, -2):,.0f} times'
  assert costs in TEXT


@pytest.mark.slow
def test_code_of_the_course_runs():
  blocks = re.findall(r'```python\n(.*?)```', TEXT, re.DOTALL)
  assert len(blocks) == 7
  names = {}
  for block in blocks:
    exec(compile(block, 'how_vit_works.md', 'exec'), names)
  assert names['x'].shape == (17, 128)
  assert names['all_weights'][0].shape == (4, 17, 17)


def test_commands_of_the_course_name_what_is_there():
  commands = re.findall(
    r'python (-m vit_jax\.main .*|scripts/.*)', TEXT.replace(' \\\n', ' ')
  )
  assert len(commands) > 6
  for command in commands:
    program, *words = shlex.split(command.rstrip('`.'), posix=True)
    if program != '-m':
      assert (ROOT / program).is_file()
      continue
    module, _, argument = words[words.index('--config') + 1].partition(':')
    name = module.removesuffix('.py').replace('/', '.')
    config = importlib.import_module(name).get_config(argument)
    for field in re.findall(r'--config\.([\w.]+)=', command):
      value = config
      for part in field.split('.'):
        assert part in value, command
        value = value[part]


@pytest.mark.parametrize('text', [TEXT, NOTEBOOK.read_text('utf-8')])
def test_links_lead_somewhere(text):
  links = re.findall(r'\]\((?!http)([^)#]+)', text)
  assert links
  for link in links:
    assert (DOCS / link).is_file(), link  # notebooks/ stands beside docs/.


def test_figures_are_small_and_shown():
  figures = sorted(DOCS.glob('course_*.png'))
  assert len(figures) == 5
  for path in figures:
    assert f']({path.name})' in TEXT
    assert path.stat().st_size < 200_000


def test_photograph_is_cut_into_its_patches(tmp_path):
  image = np.random.default_rng(0).integers(0, 256, (14, 21, 3), np.uint8)
  course.plot_patches(image, (7, 7), tmp_path / 'a.png')
  with PIL.Image.open(tmp_path / 'a.png') as picture:
    drawn = np.asarray(picture.convert('RGB'))
  windows = np.lib.stride_tricks.sliding_window_view(drawn, (7, 7), (0, 1))
  for row, column in ((0, 0), (1, 2)):
    patch = image[7 * row :, 7 * column :][:7, :7].transpose(2, 0, 1)
    assert (windows == patch).all((2, 3, 4)).sum() >= 2  # Whole, and apart.


def shape_of(path):
  with PIL.Image.open(path) as image:
    return image.size


@pytest.fixture
def digits_model(tmp_path_factory):
  """Returns a weight file of the digits model, untrained."""
  model = vit_jax.create_model('tiny', 10)
  params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
  path = tmp_path_factory.mktemp('weights') / 'tiny.npz'
  vit_jax.save_params(params['params'], path)
  return path


@pytest.mark.slow
def test_script_draws_what_the_course_shows(digits_model, tmp_path, run_script):
  status, output = run_script('--checkpoint', digits_model, '--out', tmp_path)
  assert status == 0, output
  names = [path.name for path in sorted(DOCS.glob('course_*.png'))]
  assert [path.name for path in sorted(tmp_path.glob('*.png'))] == names
  for name in names:
    assert shape_of(tmp_path / name) == shape_of(DOCS / name)


def test_script_says_which_model_it_needs(tmp_path, run_script):
  model = vit_jax.create_model('ti16', None)
  params = jax.eval_shape(
    model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
  )
  params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), params['params'])
  vit_jax.save_params(params, tmp_path / 'ti.npz')
  for checkpoint in (tmp_path / 'ti.npz', tmp_path / 'none.npz'):
    status, output = run_script('--checkpoint', checkpoint, '--out', tmp_path)
    assert status == 2
    assert output.err.startswith('error: ')
    assert output.err.count('error') == 1
    assert not output.out


@pytest.fixture
def run_script(monkeypatch, capsys):
  def run(*words):
    argv = ['course_figures.py', *map(str, words)]
    monkeypatch.setattr('sys.argv', argv)
    status = course_figures.main()
    return status, capsys.readouterr()

  return run


# --- The notebook ------------------------------------------------------------


def test_notebook_was_run_once_from_top_to_bottom():
  assert NOTEBOOK.stat().st_size < 800_000
  counts = [cell['execution_count'] for cell in CODE_CELLS]
  assert counts == [*range(1, len(CODE_CELLS) + 1)]
  outputs = [output for cell in CODE_CELLS for output in cell['outputs']]
  kinds = {output['output_type'] for output in outputs}
  assert kinds == {'stream', 'execute_result', 'display_data'}
  assert {o['name'] for o in outputs if 'name' in o} == {'stdout'}
  pictures = [o for o in outputs if 'image/png' in o.get('data', {})]
  assert len(pictures) >= 9


def test_notebook_tells_nothing_of_where_it_ran():
  text = NOTEBOOK.read_text('utf-8')
  text = re.sub(r'"image/png": "[^"]*"', '', text)
  assert not re.findall(r'(?<![\w.:/])/\w[\w.-]*/[\w./-]*', text)


def is_ours(module):
  return module.partition('.')[0] in ('configs', 'scripts', 'vit_jax')


def test_code_of_the_notebook_can_be_read_and_names_what_is_there():
  code = '\n'.join(''.join(cell['source']) for cell in CODE_CELLS)
  tree = ast.parse(code)
  for node in ast.walk(tree):
    # Those of others come with the extra that runs the notebook.
    if isinstance(node, ast.ImportFrom) and is_ours(str(node.module)):
      module = importlib.import_module(str(node.module))
      for alias in node.names:
        name = f'{node.module}.{alias.name}'
        assert hasattr(module, alias.name) or importlib.util.find_spec(name)


def test_photograph_is_attributed_and_random_weights_are_named():
  words = ' '.join(
    ''.join(cell['source']) for cell in CELLS if cell['cell_type'] == 'markdown'
  ).replace('\n', ' ')
  assert 'danielbuechele' in words
  assert 'creativecommons.org/licenses/by/2.0' in words
  last = ''.join(CODE_CELLS[-1]['source'])
  assert "note = 'random weights: nothing was learned'" in last
  assert 'note=note' in last
