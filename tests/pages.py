"""Pages of the explorer for tests: made of the small model, and read back."""

import base64
import json
import pathlib
import re
import zlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from small_model import IMAGE_SIZE, make_model, random_params

from vit_jax import attention
from vit_jax.attention_report import explorer
from vit_jax.data import augment

GRID = (2, 5)
# What an image may be called, and the page must stand.
HOSTILE = '</script><img src=x onerror=alert(1)> & "quotes" \u2028 \U0001f408'


class Made(NamedTuple):
  """A page, and what is true of its first image."""

  path: pathlib.Path
  page: explorer.Page
  images: np.ndarray  # uint8 [2, *IMAGE_SIZE, 3].
  weights: np.ndarray  # [layers, heads, tokens, tokens].
  rollouts: np.ndarray  # [layers, tokens, tokens].


def make(path: pathlib.Path, classifier: str, **kwargs: Any) -> Made:
  """Writes a page of two images; `kwargs` are those of `Page`."""
  model = make_model(classifier=classifier)
  params = random_params(model)
  rng = np.random.default_rng(0)
  images = rng.integers(256, size=(2, *IMAGE_SIZE, 3)).astype(np.uint8)
  page = explorer.Page(model, params, **kwargs)
  assert page.add(images[0], 'first.png', 'class 3, 98.7%')
  assert page.add(images[1], HOSTILE)
  page.write(path, num_left_out=4)
  batch = augment.normalize(jnp.asarray(images))
  weights = attention.attention_weights(model, params, batch)[:, 0]
  rollouts = attention.layer_rollouts(
    weights, class_token=classifier == 'token'
  )
  return Made(path, page, images, np.asarray(weights), np.asarray(rollouts))


def settings_of(path: pathlib.Path) -> dict[str, Any]:
  """Returns the settings in a page."""
  found = re.search(
    r'<script type="application/json" id="settings">(.*?)</script>',
    path.read_text(encoding='utf-8'),
    re.DOTALL,
  )
  assert found
  return json.loads(found[1])


def weights_of(path: pathlib.Path, index: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns an image's weights in a page, as its JavaScript reads them.

  Args:
    path: of the page.
    index: of the image.

  Returns:
    On patches [layers, heads + 1, tokens, patches], the last of the heads being
    the rollout; on the class token [layers, heads + 1, tokens].
  """
  text = path.read_text(encoding='utf-8')
  packed = text.partition(f'id="weights{index}">')[2].partition('<')[0]
  content = zlib.decompress(base64.b64decode(packed))
  settings = settings_of(path)
  patches = int(np.prod(settings['grid']))
  rows = (
    settings['numLayers'],
    settings['numHeads'] + 1,
    patches + settings['hasClassToken'],
  )
  size = int(np.prod(rows))
  floats = np.frombuffer(content, '<f4', 2 * size).reshape(2, *rows)
  codes = np.frombuffer(content, np.uint8, offset=8 * size)
  share = (codes.reshape(*rows, patches) / 255) ** 2
  return share * floats[0][..., None], floats[1]


def summary_of(tmp_path: pathlib.Path) -> dict[str, Any]:
  """Returns the summary that the fixture `draw` has left."""
  return json.loads((tmp_path / 'out' / 'summary.json').read_text())
