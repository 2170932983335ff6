"""The part of a page that shows misclassified images."""

from collections.abc import Sequence

from vit_jax.run_report import elements
from vit_jax.run_report.answers import Answers
from vit_jax.run_report.elements import escaped, percent
from vit_jax.run_report.pictures import (
  Mistake,
  has_transformer,
  without_attention,
)
from vit_jax.run_report.results import Result

# What overlays show, by the method: yellow most, violet least.
_MEANINGS = {
  'relevance': (
    'what speaks for the predicted class by relevance (Chefer et al. 2021), '
    'yellow most, violet least'
  ),
  'rollout': (
    'what went into the answer by attention rollout (Abnar and Zuidema 2020), '
    'yellow most, violet least'
  ),
  'grad_rollout': (
    'what speaks for the predicted class by rollout of attention times its '
    'gradient, yellow most, violet least'
  ),
}


def mistakes_part(result: Result, method: str) -> str:
  """Returns the part of a run on the most confident of its mistakes.

  Args:
    result: of the run.
    method: of the overlays.
  """
  answers, found = result.answers, result.found
  if answers is None or found is None:
    return ''
  num_wrong = found.total - found.right
  if not num_wrong:
    return elements.paragraph('There are none: every image is recognised.')
  if not result.mistakes:
    return elements.paragraph(f'{num_wrong:,} images are wrong; none is shown.')
  text = f'{len(result.mistakes):,} of the {num_wrong:,} wrong predictions'
  if len(result.mistakes) == num_wrong:
    text = f'All {num_wrong:,} wrong predictions'
  text += ', the surest first, with the images as the model got them'
  reason, transforms = without_attention(answers), has_transformer(answers)
  if transforms and reason:
    text += ' and as its spatial transformer turned them'
  text += f'. {reason}' if reason else f' and {_MEANINGS[method]}.'
  if transforms and not reason:
    text += (
      ' The colours are over what the spatial transformer made of the image.'
    )
  return elements.paragraph(text, 'how') + mistake_list(
    answers, result.mistakes
  )


def mistake_list(answers: Answers, shown: Sequence[Mistake]) -> str:
  """Returns images with what is said of them.

  Args:
    answers: whose mistakes they are.
    shown: the images.
  """
  return (
    '<ul class="mistakes">'
    + ''.join(_item(answers, each) for each in shown)
    + '</ul>'
  )


def _item(answers: Answers, each: Mistake) -> str:
  names = answers.class_names
  guess = names[answers.predicted[each.place]]
  truth = ' or '.join(names[label] for label in answers.labels_of(each.place))
  images = [
    elements.image(each.image, f'{each.name}: {truth}, taken for {guess}')
  ]
  if each.overlay is not None:
    images.append(elements.image(each.overlay, 'what was looked at in it'))
  elif has_transformer(answers):
    images.append(elements.image(each.seen, 'what the transformer made of it'))
  kind = 'pair' if len(images) == 2 else 'pair alone'
  return (
    f'<li><figure><div class="{kind}">{"".join(images)}</div><figcaption>'
    f'<span class="key">predicted</span> <strong>{escaped(guess)}</strong>, '
    f'{percent(float(answers.confidence[each.place]), 1)}'
    f'<br><span class="key">true</span> <strong>{escaped(truth)}</strong>, '
    f'{percent(answers.probability_of_truth(each.place), 1)}'
    f'<br><small>{escaped(each.name)}</small></figcaption></figure></li>'
  )
