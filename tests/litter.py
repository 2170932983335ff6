"""What Orbax leaves behind where it fails, kept from failing other tests."""

import pytest


def leaves_litter(test):
  """Marks a test of Orbax's failures, which would fail whatever comes next."""
  for mark in (
    pytest.mark.usefixtures('litter'),
    pytest.mark.filterwarnings(
      'ignore::pytest.PytestUnraisableExceptionWarning'
    ),
  ):
    test = mark(test)
  return test
