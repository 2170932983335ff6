"""Runs that never ran, for reports to be made of, and the reports read."""

import html.parser
import json
import pathlib
from typing import Any

import jax
import numpy as np

from configs import mixer, spatial_transformer, vit
from vit_jax import checkpoints, models
from vit_jax.workdir import Workdir

DIGITS = [str(digit) for digit in range(10)]


def small_config(dataset='digits', get_config=vit.get_config, model='tiny'):
  """Returns the config of a run that takes no time to evaluate."""
  config = get_config(f'{model},{dataset}')
  config.model.hidden_size = 6
  if 'transformer' in config.model:
    config.model.transformer.update(mlp_dim=7, num_heads=2, num_layers=1)
  config.pp.crop = 8
  config.update(
    pretrained_dir='', total_steps=3, warmup_steps=1, batch=5, batch_eval=61,
    accum_steps=1, eval_every=2, progress_every=1, num_threads=1,
  )  # fmt: skip
  return config


def mixer_config():
  config = mixer.get_config('s16,digits')
  config.pp.crop = 8
  config.model.patches.size = (4, 4)
  config.model.update(
    hidden_dim=6, num_blocks=1, tokens_mlp_dim=5, channels_mlp_dim=7
  )
  config.update(batch_eval=61, num_threads=1)
  return config


def transformer_config(model):
  """Returns the config of a model with a spatial transformer before it."""
  config = spatial_transformer.get_config(f'digits,{model}')
  config.pp.crop = config.model.spatial_transformer.size = 8
  config.model.spatial_transformer.update(features=(2,), hidden_dim=3)
  if model == 'vit':
    config.model.hidden_size = 6
    config.model.patches.size = (2, 2)
    config.model.transformer.update(mlp_dim=7, num_heads=2, num_layers=1)
  config.pp.test = 'test[:29]'
  config.update(batch_eval=29, num_threads=1)
  return config


def write_run(
  path: pathlib.Path,
  config: Any,
  class_names: list[str],
  seed: int = 0,
  scale: float = 0.5,
) -> pathlib.Path:
  """Writes what a run with random weights would leave; returns its path."""
  run = Workdir(path)
  path.mkdir(parents=True)
  run.config.write_text(json.dumps(json.loads(config.to_json())))
  run.save_labels(class_names)
  model = models.create_model(config.model, num_classes=len(class_names))
  crop = config.pp.crop
  inputs = jax.ShapeDtypeStruct((1, crop, crop, 3), 'float32')
  shapes = jax.eval_shape(model.init, jax.random.key(0), inputs)['params']
  rng = np.random.default_rng(seed)
  params = jax.tree.map(
    lambda leaf: rng.normal(0, scale, leaf.shape).astype('f4'), shapes
  )
  checkpoints.save_params(params, run.model)
  lines = [
    {'step': 1, 'train/loss': 2.5, 'train/accuracy': 0.1,
     'train/learning_rate': 0.1, 'train/images_per_sec': 100.0},
    {'step': 2, 'test/loss': 2.25, 'test/accuracy': 0.125},
    {'step': 3, 'train/loss': 1.5, 'train/accuracy': None,
     'train/learning_rate': 0.05, 'train/images_per_sec': 200.0},
    {'step': 3, 'test/loss': 2.0, 'test/accuracy': 0.25},
  ]  # fmt: skip
  run.metrics.write_text(''.join(json.dumps(line) + '\n' for line in lines))
  return path


class Page(html.parser.HTMLParser):
  """Collects the elements of a page, each with its attributes."""

  VOID = ('meta', 'link', 'img', 'input', 'br')

  def __init__(self, path):
    super().__init__()
    self.elements, self.texts, self.open = [], [], []
    self.feed(path.read_text())
    assert not self.open

  def handle_starttag(self, tag, attrs):
    self.elements.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if not {'style', 'title'} & {*self.open}:
      self.texts.append(data)

  def all(self, tag):
    return [attrs for name, attrs in self.elements if name == tag]

  @property
  def text(self):
    return ' '.join(' '.join(self.texts).split())


def numbers_of(out):
  """Returns the numbers of a report."""
  return json.loads((out / 'report.json').read_text())
