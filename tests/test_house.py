"""Tests of the house's rules: who imports whom, what loads when, how long."""

import ast
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[1]
CODE = sorted(
  path
  for folder in ('configs', 'scripts', 'vit_jax')
  for path in (ROOT / folder).rglob('*.py')
)
TESTS = sorted((ROOT / 'tests').glob('*.py'))

# The parts of the package; each imports from the groups below its own. What
# stands in no group is a new part: give it its place here.
GROUPS = (
  {
    'attention_report',
    'benchmark',
    'main',
    'probe',
    'reproduction',
    'run_report',
    'sweep',
  },
  {
    'attention',
    'checkpoint_evaluation',
    'class_names',
    'command_line',
    'convert',
    'data_settings',
    'distributed',
    'evaluate',
    'evaluator',
    'experiment',
    'figures',
    'inspection',
    'launch',
    'outputs',
    'plan',
    'predict',
    'run_log',
    'summary',
    'train',
    'train_step',
    'trained',
    'transformed',
  },
  {
    'checkpoints',
    'config_checks',
    'flag_errors',
    'data',
    'guard',
    'metrics',
    'models',
    'optim',
    'preemption',
    'profiling',
    'progress',
    'run_lock',
    'run_settings',
    'sharding',
    'step_window',
    'workdir',
  },
  {'environment', 'errors', 'native_errors', 'whole_files'},
)
# And these within a group.
NEIGHBOURS = {
  ('checkpoint_evaluation', 'class_names'),
  ('checkpoint_evaluation', 'data_settings'),
  ('checkpoint_evaluation', 'evaluate'),
  ('checkpoint_evaluation', 'trained'),
  ('config_checks', 'data'),
  ('config_checks', 'models'),
  ('config_checks', 'profiling'),
  ('config_checks', 'sharding'),
  ('data_settings', 'trained'),
  ('flag_errors', 'config_checks'),
  ('convert', 'inspection'),
  ('evaluator', 'evaluate'),
  ('evaluator', 'figures'),
  ('evaluator', 'run_log'),
  ('experiment', 'evaluate'),
  ('experiment', 'train_step'),
  ('plan', 'experiment'),
  ('predict', 'class_names'),
  ('predict', 'trained'),
  ('step_window', 'data'),
  ('summary', 'evaluate'),
  ('summary', 'experiment'),
  ('trained', 'class_names'),
  ('trained', 'inspection'),
  ('train', 'distributed'),
  ('train', 'evaluator'),
  ('train', 'experiment'),
  ('train', 'run_log'),
  ('train', 'summary'),
  ('train', 'train_step'),
  ('transformed', 'outputs'),
  ('transformed', 'trained'),
  ('workdir', 'run_settings'),
}

# Modules whose distribution has another name.
DISTRIBUTIONS = {
  'PIL': 'pillow',
  'absl': 'absl-py',
  'cv2': 'opencv-python-headless',
  'google': 'protobuf',
  'huggingface_hub': 'huggingface-hub',
  'orbax': 'orbax-checkpoint',
  'sklearn': 'scikit-learn',
}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80  # Without the docstring.
LONG_FUNCTIONS = {'get_config': 150}


class Import(NamedTuple):
  path: pathlib.Path
  module: str  # As far as modules go: 'vit_jax.models.vit'.
  is_on_load: bool  # Not inside a function or `if TYPE_CHECKING`.

  @property
  def top(self) -> str:
    return self.module.split('.')[0]

  def __str__(self):
    return f'{self.path.relative_to(ROOT)} imports {self.module}'


def imports_of(path: pathlib.Path) -> Iterator[Import]:
  tree = ast.parse(path.read_text(encoding='utf-8'))
  later = {
    id(child)
    for node in ast.walk(tree)
    if isinstance(node, ast.FunctionDef)
    or (isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test))
    for child in ast.walk(node)
  }
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      modules = [
        f'{node.module}.{alias.name}'
        if is_module(f'{node.module}.{alias.name}')
        else str(node.module)
        for alias in node.names
      ]
    else:
      continue
    for module in modules:
      yield Import(path, module, id(node) not in later)


def is_module(name: str) -> bool:
  path = ROOT.joinpath(*name.split('.'))
  return path.is_dir() or path.with_suffix('.py').is_file()


def part_of(module: str) -> str:
  """Returns 'models' for 'vit_jax.models.vit', '' for the package itself."""
  return [*module.split('.'), ''][1]


def module_of(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT).with_suffix('').parts
  return '.'.join(part for part in parts if part != '__init__')


def group_of(part: str) -> int:
  places = [i for i, group in enumerate(GROUPS) if part in group]
  assert places, f'vit_jax.{part} stands in none of GROUPS'
  return places[0]


IMPORTS = [found for path in CODE for found in imports_of(path)]
PACKAGE = [
  found for found in IMPORTS if found.path.is_relative_to(ROOT / 'vit_jax')
]


def relative(path: pathlib.Path) -> str:
  return str(path.relative_to(ROOT))


def test_rules_see_the_code():
  assert len(CODE) > 20
  assert len(IMPORTS) > 100
  assert 'vit_jax.errors' in {found.module for found in IMPORTS}


def test_parts_import_one_way_only():
  wrong = []
  for found in PACKAGE:
    ours = part_of(module_of(found.path))
    if found.top != 'vit_jax' or not ours:
      continue
    theirs = part_of(found.module)
    if theirs in ('', ours) or (ours, theirs) in NEIGHBOURS:
      continue
    if group_of(theirs) <= group_of(ours):
      wrong.append(str(found))
  assert not wrong


def test_package_imports_neither_configs_nor_scripts():
  wrong = [str(i) for i in PACKAGE if i.top in ('configs', 'scripts', 'tests')]
  assert not wrong


def test_configs_import_only_names_and_config_dicts():
  allowed = {
    'ml_collections',
    'vit_jax.data.paths',
    'vit_jax.errors',
    'vit_jax.models.variants',
  }
  wrong = [
    str(found)
    for found in IMPORTS
    if found.path.is_relative_to(ROOT / 'configs')
    and found.top not in (*sys.stdlib_module_names, 'configs', 'ml_collections')
    and found.module not in allowed
  ]
  assert not wrong


@pytest.mark.parametrize(
  ('part', 'allowed'),
  [
    (
      'models',
      {'flax', 'jax', 'jaxtyping', 'ml_collections', 'numpy', 'vit_jax'},
    ),
    ('errors', set()),
  ],
)
def test_lowest_parts_import_little(part, allowed):
  wrong = [
    str(found)
    for found in PACKAGE
    if part_of(module_of(found.path)) == part
    and found.top not in (*sys.stdlib_module_names, *allowed)
  ]
  assert not wrong


def test_only_figures_imports_matplotlib():
  paths = {relative(i.path) for i in IMPORTS if i.top == 'matplotlib'}
  assert paths
  assert not [path for path in paths if 'vit_jax/figures/' not in path]
  loads = [
    str(i)
    for i in PACKAGE
    if part_of(i.module) == 'figures' and i.is_on_load
    # The report is there to draw, and nothing but a script imports it.
    if part_of(module_of(i.path))
    not in ('figures', 'attention_report', 'run_report')
  ]
  assert not loads


def test_tensorflow_and_torch_are_imported_nowhere():
  foreign = {'keras', 'tensorboard', 'tensorflow', 'tf_keras', 'torch'}
  assert not [str(i) for i in IMPORTS if i.top in foreign]


def test_every_import_is_a_declared_dependency():
  text = (ROOT / 'setup.py').read_text(encoding='utf-8')
  core = text[text.index('_CORE') : text.index('_TEST')]
  declared = {
    name.lower().replace('_', '-')
    for name in re.findall(r"^  '([A-Za-z0-9_-]+)>=", core, re.MULTILINE)
  }
  ours = {'configs', 'scripts', 'vit_jax'}
  used = {
    DISTRIBUTIONS.get(found.top, found.top).lower().replace('_', '-')
    for found in IMPORTS
    if found.top not in sys.stdlib_module_names and found.top not in ours
  }
  assert {'jax', 'numpy'} <= used
  assert not used - declared


def test_every_file_of_the_package_ships():
  tree = ast.parse((ROOT / 'setup.py').read_text(encoding='utf-8'))
  (shipped,) = (
    ast.literal_eval(node.value)
    for node in ast.walk(tree)
    if isinstance(node, ast.keyword) and node.arg == 'package_data'
  )
  data = [
    path
    for path in (ROOT / 'vit_jax').rglob('*.*')
    if path.is_file() and path.suffix not in ('.py', '.pyc')
  ]
  assert len(data) >= 10
  assert not [
    relative(path)
    for path in data
    if not any(
      path.match(pattern)
      for pattern in shipped.get(relative(path.parent).replace('/', '.'), ())
    )
  ]


def test_import_of_the_package_loads_nothing_heavy():
  code = 'import sys, vit_jax; print(*sorted(sys.modules))'
  output = subprocess.run(
    [sys.executable, '-c', code],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.split()
  assert 'vit_jax' in output
  heavy = {'flax', 'jax', 'matplotlib', 'ml_collections', 'numpy', 'optax'}
  assert not {*output} & {*heavy, 'orbax', 'scipy', 'tensorflow_datasets'}


@pytest.mark.parametrize('path', [*CODE, *TESTS], ids=relative)
def test_file_begins_with_its_purpose(path):
  tree = ast.parse(path.read_text(encoding='utf-8'))
  first_line = (ast.get_docstring(tree) or '').partition('\n')[0]
  assert first_line.endswith(('.', ':')), 'one sentence, on the first line'
  num_lines = path.read_text(encoding='utf-8').count('\n')
  assert num_lines <= MAX_FILE_LINES


def test_functions_are_short():
  long = []
  for path in CODE:
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, ast.FunctionDef):
        docstring = ast.get_docstring(node, clean=False) or ''
        assert node.end_lineno is not None
        length = node.end_lineno - node.lineno + 1 - len(docstring.splitlines())
        if length > LONG_FUNCTIONS.get(node.name, MAX_FUNCTION_LINES):
          long.append(f'{relative(path)}: {node.name} has {length} lines')
  assert not long
