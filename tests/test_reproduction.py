"""Which cells the table has, their settings, and what is published of them."""

import re
import sys

import pytest

from configs import vit
from scripts import reproduce
from vit_jax import config_checks, errors
from vit_jax.reproduction import cells, planning, published, running

TABLES = pytest.mark.parametrize(
  'table', [cells.PAPER, cells.STAND_IN], ids=lambda table: table.name
)


def find(name):
  for cell in [*cells.all_cells(cells.PAPER), *cells.all_cells(cells.STAND_IN)]:
    if cell.name == name:
      return cell
  raise AssertionError(name)


def config_of(name, *settings):
  return running.configure(find(name), settings, vit.get_config)


@TABLES
def test_table_has_thirty_cells_of_one_shape(table):
  found = cells.select(table)
  assert len(found) == 5 * 3 * 2
  assert {*table.models} == {'r50_b16', 'b16', 'b32', 'l16', 'l32'}
  assert {cell.dropout for cell in found} == {0.0, 0.1}


def test_no_two_cells_share_a_directory():
  every = [*cells.all_cells(cells.PAPER), *cells.all_cells(cells.STAND_IN)]
  names = [cell.name for cell in every]
  assert len({*names}) == len(names) == 30 + 40 + 90
  assert not [name for name in names if '/' in name]


@TABLES
def test_every_cell_has_a_config_that_works(table):
  for cell in cells.all_cells(table):
    config = running.configure(cell, (), vit.get_config)
    assert not config_checks.value_problems(config)
    assert config.dataset == cell.dataset
    assert config.model.transformer.dropout_rate == cell.dropout


def test_settings_are_those_of_the_paper():
  config = config_of('l16,imagenet2012,dropout_0.1')
  assert (config.total_steps, config.warmup_steps) == (20_000, 500)
  assert (config.base_lr, config.batch, config.pp.crop) == (0.03, 512, 384)
  assert config.pretrained_dir == 'gs://vit_models/imagenet21k'
  assert config_of('r50_b16,cifar100,dropout_0.0').total_steps == 10_000
  for steps in (500, 1_000):
    config = config_of(f'b16,cifar10,dropout_0.0,{steps}_steps')
    assert (config.total_steps, config.warmup_steps) == (steps, steps // 10)


def test_stand_in_is_minute_from_scratch_and_says_so():
  for cell in cells.select(cells.STAND_IN):
    config = running.configure(cell, (), vit.get_config)
    assert config.pretrained_dir == ''
    assert config.model.hidden_size <= 48
    assert config.model.model_name == cell.model_name
    assert cell.model_name.startswith('mini-')


def test_every_cell_of_the_table_has_a_published_figure():
  for cell in cells.select(cells.PAPER):
    figure = published.of_cell(cell)
    assert figure is not None
    assert 80 < figure.accuracy < 99.5
    assert 0.5 < figure.hours < 60
    # The table's left half ran on A100, its right one on V100.
    assert figure.device == {0.0: 'A100', 0.1: 'V100'}[cell.dropout]


@pytest.mark.parametrize(
  ('name', 'accuracy', 'hours'),
  [
    ('r50_b16,cifar10,dropout_0.0', 98.72, 3.9),
    ('r50_b16,imagenet2012,dropout_0.1', 85.08, 24.2),
    ('b16,cifar100,dropout_0.0', 92.06, 2.2),
    ('b32,imagenet2012,dropout_0.1', 81.31, 4.9),
    ('l16,cifar10,dropout_0.1', 99.14, 24.7),
    ('l16,imagenet2012,dropout_0.1', 85.05, 59.7),
    ('l32,imagenet2012,dropout_0.1', 81.13, 15.0),
    ('b16,cifar100,dropout_0.0,500_steps', 89.17, 17 / 60),
    ('b16,cifar10,dropout_0.0,1000_steps', 98.86, 39 / 60),
  ],
)
def test_published_figure_stands_beside_its_cell(name, accuracy, hours):
  figure = published.of_cell(find(name))
  assert figure is not None
  assert figure.accuracy == accuracy
  assert figure.hours == pytest.approx(hours, abs=1e-3)


def test_of_the_short_schedules_four_are_published():
  short = cells.select(cells.PAPER, schedules=['500', '1000'])
  assert sum(published.of_cell(cell) is not None for cell in short) == 4


def test_nothing_is_published_of_the_stand_in():
  assert not any(map(published.of_cell, cells.all_cells(cells.STAND_IN)))


def test_every_figure_has_a_source():
  rows = published._read()['results']
  assert len(rows) == 30 + 4 + 24 + 8
  assert {row['source'] for row in rows} == {*published.sources()}
  for source in published.sources().values():
    assert source['address'].startswith('https://github.com/google-research/')


def test_published_figures_are_in_the_package():
  root = published._PUBLISHED.parents[2]
  text = (root / 'setup.py').read_text(encoding='utf-8')
  assert re.search(r"'vit_jax.reproduction': \['published.json'\]", text)


def test_selection_is_by_short_or_long_names_and_in_the_order_of_the_table():
  found = cells.select(
    cells.PAPER, ['ViT-L_32', 'b16'], ['cifar10'], ['0'], ['500', 'paper']
  )
  assert [cell.name for cell in found] == [
    'b16,cifar10,dropout_0.0',
    'l32,cifar10,dropout_0.0',
    'b16,cifar10,dropout_0.0,500_steps',
    'l32,cifar10,dropout_0.0,500_steps',
  ]


@pytest.mark.parametrize(
  ('option', 'expected'),
  [
    ('--models=l61', "Unknown model 'l61'. Did you mean 'l16'?"),
    ('--models=s16', "Unknown model 's16'."),
    ('--datasets=cifar1', "Did you mean 'cifar10'?"),
    ('--dropout=0.01', "Unknown dropout '0.01'. Did you mean '0.1'?"),
    ('--dropout=none', "Unknown dropout 'none'."),
    ('--schedules=5000', "Unknown schedule '5000'. Did you mean '500'?"),
    ('--set=bass_lr=1', "Did you mean 'base_lr'?"),
    ('--set=base_lr', "'base_lr' should be FIELD=VALUE."),
    ('--set=batch=-3', 'config.batch=-3'),
    ('--set=dataset=svhn', 'dataset is what makes'),
    ('--set=model.transformer.dropout_rate=0.2', 'what makes r50_b16,cifar10,'),
  ],
)
def test_mistake_is_answered_before_anything_runs(
  option, expected, monkeypatch, capsys, tmp_path
):
  monkeypatch.setattr(sys, 'argv', ['x', option, f'--out={tmp_path}'])
  assert reproduce.main() == 2
  assert expected in capsys.readouterr().err
  assert not [*tmp_path.iterdir()]


def test_short_schedules_are_not_for_imagenet():
  with pytest.raises(errors.ConfigError, match='of cifar10 and cifar100 alone'):
    cells.select(cells.PAPER, datasets=['imagenet2012'], schedules=['500'])


def test_accelerator_is_for_plans_only(monkeypatch, capsys):
  monkeypatch.setattr(sys, 'argv', ['x', '--accelerator=h100'])
  assert reproduce.main() == 2
  assert 'what --plan is for' in capsys.readouterr().err


def test_plan_has_steps_hours_memory_and_needs_no_data(monkeypatch, capsys):
  words = ['x', '--plan', '--models=b32', '--dropout=0.0', '--accelerator=v100']
  monkeypatch.setattr(sys, 'argv', [*words, '--datasets=imagenet2012'])
  assert reproduce.main() == 0
  text = capsys.readouterr().out
  assert 'Planned for v100' in text
  assert 'No data were read' in text
  assert re.search(
    r'ViT-B_32 +\| imagenet2012 +\| 0.0 +\| 20,000 +\| 512 +\| \d+ ', text
  )
  assert '3.3 h A100' in text


def test_plan_has_the_fewest_micro_batches_that_fit():
  cell = find('b32,cifar10,dropout_0.0')
  (row,) = planning.plan_cells([cell], [], vit.get_config, 't4')
  assert row.accum_steps is not None
  assert row.accum_steps > 1
  assert row.plan.fits
  assert row.seconds == 10_000 * row.plan.speed.step_seconds
  fewer = [f'accum_steps={row.accum_steps // 2}']
  (tight,) = planning.plan_cells([cell], fewer, vit.get_config, 't4')
  assert tight.accum_steps is None
  assert '| none fits' in planning.as_text([tight])


def test_slow_devices_have_a_speed():
  cell = find('b16,cifar10,dropout_0.0')
  (row,) = planning.plan_cells([cell], [], vit.get_config, 'cpu')
  speed = row.batch / row.plan.speed.step_seconds
  assert 0 < speed < 10
  assert f'| {speed:.2g} ' in planning.as_text([row])
