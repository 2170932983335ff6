"""Tests of reports of models with a spatial transformer before them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from finished_runs import DIGITS, Page, transformer_config, write_run

from vit_jax import attention
from vit_jax.checkpoints import load_params, save_params
from vit_jax.data import augment
from vit_jax.models import spatial_transformer
from vit_jax.run_report import Settings, answers, pictures, runs, write_report

pytestmark = pytest.mark.usefixtures('compile_once')


def shifting(path, model):
  """Writes a run that looks a quarter of the image further to the right."""
  run = write_run(path, transformer_config(model), DIGITS)
  params = jax.tree.map(np.array, load_params(run / 'model.npz'))
  theta = params[spatial_transformer.NAME]['theta']
  theta['kernel'][:] = 0
  theta['bias'][:] = [1, 0, 0.5, 0, 1, 0]
  save_params(params, run / 'model.npz')
  return run


@pytest.mark.parametrize(
  'model', [pytest.param('vit', marks=pytest.mark.slow), 'convnet']
)
def test_what_is_seen_is_what_it_makes_of_the_image(tmp_path, model):
  run = runs.read(shifting(tmp_path / 'run', model), 'run')
  said = answers.ask(run, Settings())
  # A last batch that is not full, and one that is.
  shown = pictures.show(said, [3, 5, 2, 11, 7], 'relevance')
  assert [each.place for each in shown] == [3, 5, 2, 11, 7]
  for each in shown:
    assert each.seen.dtype == np.uint8 and each.image.any()
    np.testing.assert_array_equal(each.seen[:, :-2], each.image[:, 2:])
    assert not each.seen[:, -2:].any()
    assert (each.values is None) == (model == 'convnet')
  if model == 'convnet':
    return
  # The map is that of the model behind, of what it gets.
  behind = spatial_transformer.without(said.model, said.params)
  seen = np.stack([each.seen for each in shown])
  expected = attention.relevance_maps(
    *behind,
    augment.normalize(jnp.asarray(seen)),
    said.predicted[[3, 5, 2, 11, 7]],
  )
  values = np.stack([np.asarray(each.values) for each in shown])
  np.testing.assert_allclose(values, expected.maps, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
  'model, said, alt',
  [
    ('vit', 'over what the spatial transformer made', 'was looked at'),
    ('convnet', 'ConvNet has no attention', 'the transformer made'),
  ],
)
def test_page(tmp_path, model, said, alt):
  run = shifting(tmp_path / 'run', model)
  report = write_report([run], tmp_path / 'out', Settings(num_images=2))
  assert not report.missing
  page = Page(report.page)
  assert said in page.text
  assert sum(alt in image['alt'] for image in page.all('img')) == 2
