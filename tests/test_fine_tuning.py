"""Fine-tuning for real: what was learned on some digits helps with others."""

import json

import pytest

from configs import vit
from vit_jax import train


@pytest.mark.slow
def test_fine_tuning_beats_the_same_schedule_from_scratch(tmp_path):
  def accuracy(name, dataset, **overrides):
    config = vit.get_config(f'tiny,{dataset}')
    config.tfds_data_dir = str(tmp_path / 'tfds')
    config.update(checkpoint_every=0, eval_every=1000, progress_every=50)
    config.update_from_flattened_dict(overrides)
    train.train_and_evaluate(config, tmp_path / name)
    text = (tmp_path / name / 'metrics.jsonl').read_text()
    return json.loads(text.splitlines()[-1])['test/accuracy']

  schedule = {'total_steps': 150, 'warmup_steps': 15, 'pp.crop': 24}
  accuracy(
    'pretrained',
    'digits/0_to_4',
    total_steps=700,
    warmup_steps=100,
    **{'model.transformer.num_layers': 4},
  )
  scratch, tuned = (
    accuracy(
      name,
      'digits/5_to_9',
      pretrained_dir=pretrained_dir,
      **schedule,
      **{'model.transformer.num_layers': 4},
    )
    for name, pretrained_dir in (
      ('scratch', ''),
      ('tuned', str(tmp_path / 'pretrained')),
    )
  )
  assert tuned > scratch + 0.1
