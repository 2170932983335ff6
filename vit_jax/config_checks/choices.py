"""Whether the names in a config are among those that there are."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from vit_jax import errors, profiling
from vit_jax.config_checks.fields import leaves
from vit_jax.data import augment, eval_sets, labels
from vit_jax.data.augment.geometry import PAD_MODES
from vit_jax.data.augment.presets import PRESETS

_CHOICES = {
  'attention': ('auto', 'plain', 'fused'),
  'dtype': ('float32', 'bfloat16', 'float16'),
  'on_nonfinite': ('stop', 'skip'),
  'remat': ('none', 'dots', 'full'),
  'export': ('last', 'best'),
  'on_bad_image': ('fail', 'skip'),
  'decay_type': ('cosine', 'linear', 'constant'),
  'optim_dtype': ('bfloat16', 'float32'),
  'optimizer': ('sgd', 'adamw'),
  'pp.augment': augment.AUGMENTS,
  'pp.policy': ('none', 'randaugment', 'trivialaugment'),
  'pp.preset': ('', *PRESETS),
  'pp.shift.mode': PAD_MODES,
}


def problems(config: Any, unread: Collection[str] = ()) -> list[str]:
  """Returns the names that are none of those that there are.

  Args:
    config: all of whose fields are of the right types.
    unread: fields whose values there mean nothing.
  """
  found, metrics = [], ('', config.best_metric)
  try:
    names = ('test', *eval_sets.parse(config.eval_sets))
    if 'eval_sets' not in unread:
      metrics = _metric_names(names)
  except errors.ConfigError as error:
    found.append(str(error))
  try:
    profiling.parse(config.profile, total_steps=config.total_steps)
  except errors.ConfigError as error:
    found.append(str(error))
  try:
    if config.label:
      labels.find(config.label)
  except errors.ConfigError as error:
    found.append(str(error))
  fields = dict(leaves(config, stop='model'))
  for name, valid in {
    **_CHOICES,
    'best_metric': metrics,
  }.items():
    if fields[name] not in valid:
      text = errors.unknown_name(
        f'config.{name}', str(fields[name]), filter(None, valid)
      )
      found.append(text + (" '' is for none." if '' in valid else ''))
  # The others give logits for every token; a model without the field has
  # 'token'.
  classifier = getattr(config.model, 'classifier', 'token')
  if classifier in ('unpooled', 'token_unpooled'):
    found.append(
      f"config.model.classifier={classifier!r} should be 'token', 'gap' or "
      "'map' to train or evaluate."
    )
  for name, wants in {
    'patience': config.patience > 0,
    "export='best'": config.export == 'best',
  }.items():
    if wants and not config.best_metric:
      found.append(f'config.{name} needs config.best_metric.')
  return found


def _metric_names(sets: Iterable[str]) -> tuple[str, ...]:
  """Returns what `best_metric` may be, '' for none included."""
  kinds = ('accuracy', 'loss', 'top5')
  return ('', *(f'{name}/{kind}' for name in sets for kind in kinds))
