"""How accurate classifiers of features are, from those of every example."""

from typing import Any

from jax.sharding import Mesh

from vit_jax import trained
from vit_jax.probe import features, neighbours, ridge
from vit_jax.probe.results import Score, Settings


def of_features(
  settings: Settings,
  fitted: features.Features,
  tested: features.Features,
  name: str,
  num_classes: int,
  mesh: Mesh,
) -> list[Score]:
  """Returns the accuracies of all probes of one kind of features.

  Args:
    settings: what to compute.
    fitted: examples to fit, and to find neighbours in.
    tested: examples of which the accuracies are.
    name: of the kind, a key of their values.
    num_classes: of the labels.
    mesh: devices that look for neighbours.

  Raises:
    ConfigError: there is too little memory.
  """
  scores = []
  for shots in settings.shots:
    scores += _ridge_scores(settings, fitted, tested, name, num_classes, shots)
  if not settings.neighbours:
    return scores
  with trained.memory_told('Lower --neighbours.'):
    indices, cosines = neighbours.nearest(
      fitted.values[name], tested.values[name], max(settings.neighbours), mesh
    )
  labels = fitted.labels[indices]
  for num in settings.neighbours:
    for variant, weights in (
      ('majority', None),
      ('weighted', cosines[:, :num]),
    ):
      chosen = neighbours.vote(
        labels[:, :num], num_classes, weights, settings.temperature
      )
      right = float((chosen == tested.labels).mean())
      scores.append(Score('neighbours', num, variant, (right,)))
  return scores


def _ridge_scores(
  settings: Settings,
  fitted: features.Features,
  tested: features.Features,
  name: str,
  num_classes: int,
  shots: int,
) -> list[Score]:
  """Returns the accuracies with both choices of the regularisation."""
  found: dict[str, list[tuple[float, float]]] = {}
  for seed in range(settings.num_seeds if shots else 1):
    rows: Any = slice(None)
    if shots:
      rows = ridge.draw_shots(fitted.labels, num_classes, shots, seed)
    fit = ridge.Ridge(
      fitted.values[name][rows], fitted.labels[rows], num_classes
    )
    for variant, l2 in (
      ('fixed', settings.l2),
      ('leave-one-out', fit.choose_l2()),
    ):
      right = fit.predict(tested.values[name], l2) == tested.labels
      found.setdefault(variant, []).append((float(right.mean()), l2))
  return [
    Score('ridge', shots, variant, *zip(*pairs, strict=True))
    for variant, pairs in found.items()
  ]
