"""Which layers, heads and classes the user's words mean."""

import pytest

from vit_jax import errors
from vit_jax.attention_report import parse_heads, parse_layers
from vit_jax.attention_report.settings import parse_class


@pytest.mark.parametrize(
  ('text', 'layers'),
  [
    ('first,middle,last', [0, 3, 5]),
    ('all', [0, 1, 2, 3, 4, 5]),
    ('5, 0,-1', [5, 0]),
    ('last', [5]),
  ],
)
def test_layers(text, layers):
  assert parse_layers(text, 6) == layers


def test_heads():
  assert parse_heads('mean', 3) is None
  assert parse_heads('all', 3) == [0, 1, 2]
  assert parse_heads('2,0', 3) == [2, 0]


@pytest.mark.parametrize(
  ('parse', 'text', 'message'),
  [
    (parse_layers, '0,6', 'no layer 6: valid are 0 to 5'),
    (parse_layers, 'fist', "'fist' is no layer. Valid are first, middle, last"),
    (parse_layers, '', "'' is no layer"),
    (parse_heads, '7', 'no head 7: valid are 0 to 5'),
    (parse_heads, 'mean,1', "'mean' is no head. Valid are mean, all, and"),
  ],
)
def test_no_such_layer_or_head_names_the_valid_ones(parse, text, message):
  with pytest.raises(errors.ConfigError, match=message):
    parse(text, 6)


@pytest.mark.parametrize(
  ('asked', 'names', 'index'),
  [
    ('dog', ['cat', 'dog', '0'], 1),
    ('2', ['cat', 'dog', '0'], 2),
    ('0', ['cat', 'dog', '0'], 2),  # A name goes before a number.
    (-1, None, 2),
    ('-3', ['cat', 'dog', 'cow'], 0),
  ],
)
def test_class(asked, names, index):
  assert parse_class(asked, 3, names) == index


@pytest.mark.parametrize(
  ('asked', 'names', 'message'),
  [
    ('3', ['cat', 'dog', 'cow'], 'no class 3: valid are 0 to 2'),
    ('dogs', ['cat', 'dog', 'cow'], "Unknown class 'dogs'. Did you mean 'dog'"),
    ('dog', None, "'dog' is no class: .* give a number from 0 to 2"),
  ],
)
def test_no_such_class(asked, names, message):
  with pytest.raises(errors.ConfigError, match=message):
    parse_class(asked, 3, names)
