"""What a sweep is asked to do, and that its directory belongs to the same."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from ml_collections import ConfigDict

from vit_jax import errors, flag_errors, run_settings, whole_files
from vit_jax.sweep import space

FILE_NAME = 'sweep.json'
SAMPLERS = ('grid', 'random', 'tpe')
PRUNERS = ('none', 'median')


@dataclasses.dataclass(frozen=True)
class Settings:
  """A sweep.

  Attributes:
    config: argument of --config, FILE.py:ARGS.
    fixed: (field, value) that all trials have, texts.
    parameters: fields that differ between them.
    sampler: one of `SAMPLERS`.
    trials: how many at most; None is all of a grid.
    metric: that they are compared by, at the last evaluation.
    seeds: each trial is so many runs; () is one with the config's seed.
    pruner: one of `PRUNERS`.
    prune_after: trials that finish before any is pruned.
    sampler_seed: of random and TPE.
    base: config that the trials start from.
  """

  config: str
  fixed: tuple[tuple[str, str], ...]
  parameters: tuple[space.Parameter, ...]
  sampler: str
  trials: int | None
  metric: str
  seeds: tuple[int, ...]
  pruner: str
  prune_after: int
  sampler_seed: int
  base: ConfigDict

  @property
  def is_loss(self) -> bool:
    """Whether lower is better."""
    return self.metric.endswith('/loss')

  @property
  def num_trials(self) -> int:
    """How many trials there will be."""
    if self.sampler != 'grid':
      assert self.trials
      return self.trials
    whole = len(space.combinations(self.parameters))
    return min(whole, self.trials or whole)

  def warning(self) -> str:
    """Returns why the metric of the best trial is no fair one, or ''."""
    split = str(self.base.pp.test)
    # Who holds out a part of the training split calls it 'test' as well.
    if not self.metric.startswith('test/') or split.startswith('train'):
      return ''
    return (
      f'{self.metric} is of {split!r}: the best of several trials, chosen by '
      'the images that it is told for, looks better than it is. Hold out a '
      "part to choose by: --set pp.train='train[:90%]' "
      f"--set eval_sets='val=train[90%:]' --metric val/"
      f'{self.metric.partition("/")[2]}'
    )

  def as_dict(self) -> dict[str, Any]:
    """Returns what has to be the same where a sweep is continued, as JSON."""
    found = {
      'config': self.config,
      'vary': [str(parameter) for parameter in self.parameters],
      'sampler': self.sampler,
      'metric': self.metric,
      'seeds': [*self.seeds],
      'pruner': self.pruner,
    }
    if self.pruner != 'none':
      found['prune_after'] = self.prune_after
    if self.sampler != 'grid':
      found['sampler_seed'] = self.sampler_seed
    # With what --set says; a config file may change between two calls.
    found['fields'] = self.base.to_dict()
    return json.loads(json.dumps(found, default=str))


def make(
  config: str,
  *,
  grids: tuple[str, ...] = (),
  ranges: tuple[str, ...] = (),
  fixed: tuple[str, ...] = (),
  sampler: str = '',
  trials: int | None = None,
  metric: str = 'test/accuracy',
  seeds: tuple[int, ...] = (),
  pruner: str = 'none',
  prune_after: int = 4,
  sampler_seed: int = 0,
) -> Settings:
  """Returns settings that have been checked, all trials' configs with them.

  Args:
    config: FILE.py:ARGS.
    grids: 'base_lr=0.01,0.03'.
    ranges: 'base_lr=1e-4..1e-1:log'.
    fixed: 'total_steps=100', of all trials.
    sampler: one of `SAMPLERS`; '' is 'grid', or with ranges 'tpe'.
    trials: as in `Settings`, and so on.
    metric: such as 'val/accuracy'.
    seeds: none twice.
    pruner: one of `PRUNERS`.
    prune_after: at least 1.
    sampler_seed: of random and TPE.

  Raises:
    ConfigError: what can't work, a line each.
  """
  pairs = tuple(_pair(text) for text in fixed)
  base = flag_errors.built_config(config, pairs)
  parameters = space.parse(grids, ranges, base)
  sampler = sampler or ('tpe' if ranges else 'grid')
  names = [parameter.name for parameter in parameters]
  problems = [
    f'{name} is varied, and fixed by --set; leave one out.'
    for name, _ in pairs
    if name in names
  ]
  if seeds and 'seed' in {*names, *(name for name, _ in pairs)}:
    problems.append('The seed is set as a field and by --seeds; leave one out.')
  if len({*seeds}) < len(seeds):
    problems.append(f'--seeds {",".join(map(str, seeds))}: one is there twice.')
  problems += _problems(sampler, trials, bool(ranges))
  if pruner == 'median' and base.eval_every >= base.total_steps:
    problems.append(
      f'--pruner median needs evaluations on the way: eval_every='
      f'{base.eval_every} of total_steps={base.total_steps}. Lower it: '
      f'--set eval_every={max(1, base.total_steps // 10)}'
    )
  if problems:
    raise errors.ConfigError('\n'.join(problems))
  space.check(base, parameters, metric)
  return Settings(
    config, pairs, parameters, sampler, trials, metric, seeds, pruner,
    prune_after, sampler_seed, base,
  )  # fmt: skip


def claim(settings: Settings, out: pathlib.Path) -> None:
  """Makes a directory this sweep's, or finds that it is already.

  Raises:
    ConfigError: it is of a sweep with other settings, the text lists what
      differs; or it can't be written.
  """
  path, wanted = out / FILE_NAME, settings.as_dict()
  try:
    if not path.exists():
      whole_files.write_text(path, json.dumps(wanted, indent=2) + '\n')
      return
    found = json.loads(path.read_text(encoding='utf-8'))
    if not isinstance(found, dict):
      raise ValueError('it is no JSON object')
  except (OSError, ValueError) as error:
    raise errors.ConfigError(
      f'{path}, which notes the settings of a sweep, can not be used '
      f'({error}). Put a whole one back, or name another directory: --out DIR.'
    ) from error
  old, new = run_settings.flatten(found), run_settings.flatten(wanted)
  lines = [
    f'  {key}: {old.get(key)!r} there, {new.get(key)!r} now'
    for key in sorted({*old, *new})
    if old.get(key) != new.get(key)
  ]
  if lines:
    raise errors.ConfigError(
      '\n'.join([
        f'{out} holds a sweep with other settings:',
        *lines,
        'Continue it with the same ones, or name another directory: --out DIR.',
      ])
    )  # fmt: skip


def _problems(sampler: str, trials: int | None, has_ranges: bool) -> list[str]:
  if sampler == 'grid' and has_ranges:
    return [
      'A grid has no ranges. Give values by --grid, or choose --sampler tpe or '
      '--sampler random.'
    ]
  if sampler != 'grid' and not trials:
    return [f'--sampler {sampler} needs a number: --trials 20']
  return []


def _pair(text: str) -> tuple[str, str]:
  name, equals, value = text.partition('=')
  if not name or not equals:
    raise errors.ConfigError(
      f'--set {text}: expected FIELD=VALUE, such as total_steps=100.'
    )
  return name.removeprefix('--config.'), value
